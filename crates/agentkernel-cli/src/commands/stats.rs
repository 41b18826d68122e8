//! `stats`: what sandboxes use, once or every second.
use std::{io::IsTerminal, time::Duration};

use agentkernel_core::{Error, ErrorKind, Filter, Result, SandboxName};
use futures_util::future::join_all;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Outcome;
use crate::{
    args::StatsArgs,
    context::Context,
    output::{self, Usage, View},
};

/// How often they are shown again.
const PERIOD: Duration = Duration::from_secs(1);
/// How long one sandbox may hold up the others.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) async fn stats(context: &Context, args: &StatsArgs) -> Result<Outcome> {
    if !args.watch {
        return Ok(Outcome::Show(View::Usage(usage(context, args, &[]).await?), false));
    }
    let is_terminal = std::io::stdout().is_terminal() && !context.json;
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = Vec::new();
    loop {
        ticks.tick().await;
        before = usage(context, args, &before).await?;
        if is_terminal {
            output::clear();
        }
        let view = View::Usage(before);
        match output::show(&view, context.json) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                return Ok(Outcome::Code(crate::report::READER_GONE));
            }
            Err(error) => return Err(Error::unexpected("print", "writing to stdout failed", error)),
        }
        let View::Usage(shown) = view else { return Ok(Outcome::Code(0)) };
        before = shown;
    }
}

/// Asks each sandbox. One that ends meanwhile is left out, unless it was named.
async fn usage(context: &Context, args: &StatsArgs, before: &[Usage]) -> Result<Vec<Usage>> {
    let named = !args.names.is_empty();
    let names = if named { args.names.clone() } else { running(context, args).await? };
    let asked = join_all(names.iter().map(|name| async move {
        let stats = timeout(PATIENCE, async { context.sandbox(name).await?.stats().await });
        let stats = stats.await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Timeout, "read stats", "the backend does not answer"))
        });
        stats.map(|stats| Usage::new(name.clone(), stats))
    }))
    .await;
    let mut all = Vec::new();
    for usage in asked {
        match usage {
            Ok(usage) => all.push(usage.since(before)),
            Err(error) if !named && matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotRunning) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

async fn running(context: &Context, args: &StatsArgs) -> Result<Vec<SandboxName>> {
    let filter = Filter { labels: args.labels.iter().cloned().collect(), running: true };
    let filter = &filter;
    let found = context.ask_all(|backend| async move { backend.list(filter).await }).await?;
    Ok(found.into_iter().map(|info| info.name).collect())
}
