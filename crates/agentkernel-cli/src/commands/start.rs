//! `start`: boots a stopped sandbox.
use agentkernel_core::Result;

use super::Outcome;
use crate::{args::NameArgs, context::Context, output::View};

pub(crate) async fn start(context: &Context, args: &NameArgs) -> Result<Outcome> {
    context.sandbox(&args.name).await?.boot().await?;
    Ok(Outcome::Show(View::Names(vec![args.name.to_string()]), false))
}
