//! `ps`: the commands of a sandbox.
use agentkernel_core::Result;

use super::Outcome;
use crate::{args::PsArgs, context::Context, output::View};

pub(crate) async fn ps(context: &Context, args: &PsArgs) -> Result<Outcome> {
    let commands = context.sandbox(&args.name).await?.commands().await?;
    let view = if args.quiet {
        View::Names(commands.into_iter().map(|command| command.id.to_string()).collect())
    } else {
        View::Commands(commands)
    };
    Ok(Outcome::Show(view, false))
}
