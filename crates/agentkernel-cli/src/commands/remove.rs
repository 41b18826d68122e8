//! `remove`: removes sandboxes; running ones only by force.
use agentkernel_core::{Error, ErrorKind, Result, State};

use super::{Outcome, each, is_absent};
use crate::{args::RemoveArgs, context::Context};

pub(crate) async fn remove(context: &Context, args: &RemoveArgs) -> Result<Outcome> {
    Ok(each(context, &args.names, async |name| {
        let sandbox = match context.sandbox(name).await {
            found if args.force && is_absent(&found) => return Ok(()),
            found => found?,
        };
        let info = match sandbox.inspect().await {
            info if args.force && is_absent(&info) => return Ok(()),
            info => info?,
        };
        if !args.force && matches!(info.state, State::Running | State::Paused) {
            return Err(Error::new(ErrorKind::Conflict, "remove sandbox", "it is running")
                .with_context("name", name)
                .with_hint(format!("stop it with `agentkernel stop {name}`, or use `--force`")));
        }
        sandbox.remove().await
    })
    .await)
}
