//! `ps`: the commands of a sandbox.
use agentkernel_core::Result;

use super::Outcome;
use crate::{args::NameArgs, context::Context, output::View};

pub(crate) async fn ps(context: &Context, args: &NameArgs) -> Result<Outcome> {
    let commands = context.sandbox(&args.name).await?.commands().await?;
    Ok(Outcome::Show(View::Commands(commands), false))
}
