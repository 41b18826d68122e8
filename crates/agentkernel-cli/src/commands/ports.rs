//! `ports`: where the ports of a sandbox are published.
use agentkernel_core::Result;

use super::Outcome;
use crate::{args::NameArgs, context::Context, output::View};

pub(crate) async fn ports(context: &Context, args: &NameArgs) -> Result<Outcome> {
    let info = context.sandbox(&args.name).await?.inspect().await?;
    Ok(Outcome::Show(View::Ports(info.ports), false))
}
