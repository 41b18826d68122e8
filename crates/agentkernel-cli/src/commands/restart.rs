//! `restart`: stops sandboxes and boots them again.
use agentkernel_core::{Error, ErrorKind, Lifetime, Result};

use super::{Outcome, each};
use crate::{args::StopArgs, context::Context};

pub(crate) async fn restart(context: &Context, args: &StopArgs) -> Result<Outcome> {
    let targets = context.targets(&args.targets).await?;
    Ok(each(context, &targets, async |target| {
        let sandbox = context.target(target).await?;
        if sandbox.inspect().await?.lifetime == Lifetime::Owned {
            return Err(Error::new(ErrorKind::Conflict, "restart sandbox", "another process owns it")
                .with_context("name", target)
                .with_hint(
                    "it ends when it is stopped: only what `create` or `run --detach` made can be restarted",
                ));
        }
        sandbox.halt(args.grace).await?;
        sandbox.boot().await
    })
    .await)
}
