//! `stop`: ends everything inside; a sandbox that has an owner is then removed, as by the library.
use agentkernel_core::{Lifetime, Result};

use super::{Outcome, each};
use crate::{args::StopArgs, context::Context};

pub(crate) async fn stop(context: &Context, args: &StopArgs) -> Result<Outcome> {
    let targets = context.targets(&args.targets).await?;
    Ok(each(context, &targets, async |target| {
        let sandbox = context.target(target).await?;
        let info = sandbox.inspect().await?;
        sandbox.halt(args.grace).await?;
        if info.lifetime == Lifetime::Owned { sandbox.remove().await } else { Ok(()) }
    })
    .await)
}
