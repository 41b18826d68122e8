//! `inspect`: all that is known of a sandbox, its commands included.
use agentkernel_core::{Result, State};

use super::Outcome;
use crate::{args::NameArgs, context::Context, output::View};

pub(crate) async fn inspect(context: &Context, args: &NameArgs) -> Result<Outcome> {
    let sandbox = context.sandbox(&args.name).await?;
    let info = sandbox.inspect().await?;
    let commands = if info.state == State::Running { sandbox.commands().await? } else { Vec::new() };
    Ok(Outcome::Show(View::Sandbox(Box::new(info), commands), false))
}
