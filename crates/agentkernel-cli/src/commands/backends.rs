//! `backends`: what this program is built with, and what of it works here.
use agentkernel_core::{BackendType, Result};
use futures_util::future::join_all;

use super::Outcome;
use crate::{
    context::Context,
    output::{BackendRow, View},
};

pub(crate) async fn backends(context: &Context) -> Result<Outcome> {
    let rows = join_all(context.backend_types().into_iter().map(|backend| row(context, backend))).await;
    Ok(Outcome::Show(View::Backends(rows), false))
}

/// Asks a backend what it can do here, and has it start something: an engine may answer and yet start nothing.
async fn row(context: &Context, backend: BackendType) -> BackendRow {
    let health = async {
        let backend = context.registry.connect(backend).await?;
        let health = backend.health().await?;
        backend.probe().await.map(|()| health)
    };
    BackendRow { backend, health: health.await, upper_bound: context.registry.upper_bound(backend) }
}
