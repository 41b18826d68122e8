//! `list`: what there is, after removing what has no reason to exist any more.
use std::time::Duration;

use agentkernel_core::{Error, ErrorKind, Filter, Reap, Result};
use tokio::time::timeout;

use super::Outcome;
use crate::{args::ListArgs, context::Context, output::View};

/// How long tidying up may hold up the list.
const TIDY: Duration = Duration::from_secs(5);
/// How long a backend may take to list what it has: one that hangs must not hide the others.
const LIST: Duration = Duration::from_secs(10);

pub(crate) async fn list(context: &Context, args: &ListArgs) -> Result<Outcome> {
    let filter = Filter { labels: args.labels.iter().cloned().collect(), running: args.running };
    let (sandboxes, is_failed) = context
        .ask_each(|backend| {
            let filter = &filter;
            async move {
                // What fails is told by `gc`.
                let _told_by_gc = timeout(TIDY, backend.reap(Reap::Remove)).await;
                timeout(LIST, backend.list(filter)).await.unwrap_or_else(|_| {
                    Err(Error::new(
                        ErrorKind::Timeout,
                        "list sandboxes",
                        "the backend does not answer in time",
                    )
                    .with_context("backend", backend.backend_type())
                    .with_hint("see what is wrong with it: `agentkernel doctor`"))
                })
            }
        })
        .await?;
    let view = if args.quiet {
        View::Names(sandboxes.into_iter().map(|info| info.name.to_string()).collect())
    } else {
        View::Sandboxes(sandboxes)
    };
    Ok(Outcome::Show(view, is_failed))
}
