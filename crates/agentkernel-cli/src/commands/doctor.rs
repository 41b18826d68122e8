//! `doctor`: what works on this machine, what does not, and what would help.
use std::time::Duration;

use agentkernel_core::{BackendType, Error, ErrorKind, Health, Result, SandboxConfig};
use futures_util::future::join_all;
use tokio::time::{Instant, timeout, timeout_at};

use super::Outcome;
use crate::{
    context::Context,
    output::{BackendRow, Diagnosis, View},
};

/// How long all of it may take, with an engine that hangs too: an answer in two seconds is worth more than a late one.
const PATIENCE: Duration = Duration::from_millis(1800);

pub(crate) async fn doctor(context: &Context) -> Result<Outcome> {
    let rows = join_all(context.backend_types().into_iter().map(|backend| async move {
        let health = health(context, backend).await;
        BackendRow { backend, health, upper_bound: context.registry.upper_bound(backend) }
    }))
    .await;
    let is_any_there = rows.iter().any(|row| row.health.is_ok());
    // What hangs would hang here again.
    let chosen = match is_any_there {
        true => {
            timeout(PATIENCE, context.registry.select(context.choice, &SandboxConfig::default())).await.ok()
        }
        false => None,
    };
    let chosen = chosen.and_then(Result::ok).map(|selection| selection.backend.backend_type());
    Ok(Outcome::Show(View::Diagnosis(Diagnosis { rows, chosen }), !is_any_there))
}

/// Asks a backend, and has it start something with the time that is left.
async fn health(context: &Context, backend: BackendType) -> Result<Health> {
    let until = Instant::now() + PATIENCE;
    let asked = async {
        let backend = context.registry.connect(backend).await?;
        let health = backend.health().await?;
        Ok((backend, health))
    };
    let (backend, mut health) = timeout_at(until, asked).await.unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Timeout, "ask the backend", "it does not answer in time")
            .with_hint(format!("ask it with more patience: `agentkernel --backend {backend} backends`")))
    })?;
    match timeout_at(until, backend.probe()).await {
        Ok(tried) => tried?,
        Err(_) => health
            .warnings
            .push("It is not known whether it starts anything: that takes too long.".to_owned()),
    }
    Ok(health)
}
