//! `remove`: removes sandboxes; running ones only by force.
use agentkernel_core::{Error, ErrorKind, Result, State};

use super::{Outcome, each, is_absent};
use crate::{args::RemoveArgs, context::Context};

pub(crate) async fn remove(context: &Context, args: &RemoveArgs) -> Result<Outcome> {
    let targets = match context.targets(&args.targets).await {
        found if args.force && is_absent(&found) => Vec::new(),
        found => found?,
    };
    Ok(each(context, &targets, async |target| {
        let sandbox = match context.target(target).await {
            found if args.force && is_absent(&found) => return Ok(()),
            found => found?,
        };
        let info = match sandbox.inspect().await {
            info if args.force && is_absent(&info) => return Ok(()),
            info => info?,
        };
        if !args.force && matches!(info.state, State::Running | State::Paused) {
            return Err(Error::new(ErrorKind::Conflict, "remove sandbox", "it is running")
                .with_context("name", target)
                .with_hint(format!("stop it with `agentkernel stop {target}`, or use `--force`")));
        }
        sandbox.remove().await
    })
    .await)
}
