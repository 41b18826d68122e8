//! `list`: what there is, after removing what has no reason to exist any more.
use std::time::Duration;

use agentkernel_core::{Filter, Reap, Result};
use tokio::time::timeout;

use super::Outcome;
use crate::{args::ListArgs, context::Context, output::View};

/// How long tidying up may hold up the list.
const TIDY: Duration = Duration::from_secs(5);

pub(crate) async fn list(context: &Context, args: &ListArgs) -> Result<Outcome> {
    let filter = Filter { labels: args.labels.iter().cloned().collect(), running: args.running };
    let sandboxes = context
        .ask_all(|backend| {
            let filter = &filter;
            async move {
                // What fails is told by `gc`.
                let _told_by_gc = timeout(TIDY, backend.reap(Reap::Remove)).await;
                backend.list(filter).await
            }
        })
        .await?;
    let view = if args.quiet {
        View::Names(sandboxes.into_iter().map(|info| info.name.to_string()).collect())
    } else {
        View::Sandboxes(sandboxes)
    };
    Ok(Outcome::Show(view, false))
}
