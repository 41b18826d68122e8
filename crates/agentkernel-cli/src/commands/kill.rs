//! `kill`: a signal for a command and all that it started.
use agentkernel_core::{Replay, Result};

use super::Outcome;
use crate::{args::KillArgs, context::Context, output::View};

pub(crate) async fn kill(context: &Context, args: &KillArgs) -> Result<Outcome> {
    let sandbox = context.sandbox(&args.name).await?;
    sandbox.attach(&args.id, Replay::None).await?.control().signal(args.signal).await?;
    Ok(Outcome::Show(View::Names(vec![args.id.to_string()]), false))
}
