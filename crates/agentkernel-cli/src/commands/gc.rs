//! `gc`: removes what has no reason to exist any more, and tells.
use agentkernel_core::{Reap, Result};

use super::Outcome;
use crate::{args::GcArgs, context::Context, output::View};

pub(crate) async fn gc(context: &Context, args: &GcArgs) -> Result<Outcome> {
    let plan = if args.dry_run { Reap::Show } else { Reap::Remove };
    let (reaped, is_partial) = context.ask_each(|backend| async move { backend.reap(plan).await }).await?;
    let is_failed = is_partial || reaped.iter().any(|one| one.outcome.is_err());
    Ok(Outcome::Show(View::Reaped(reaped, plan), is_failed))
}
