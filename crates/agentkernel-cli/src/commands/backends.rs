//! `backends`: what this program is built with, and what of it works here.
use agentkernel_core::Result;
use futures_util::future::join_all;

use super::Outcome;
use crate::{
    context::Context,
    output::{BackendRow, View},
};

pub(crate) async fn backends(context: &Context) -> Result<Outcome> {
    let rows = join_all(context.backend_types().into_iter().map(|backend| async move {
        let health = async {
            let backend = context.registry.connect(backend).await?;
            let health = backend.health().await?;
            backend.probe().await.map(|()| health)
        };
        let health = health.await;
        let upper_bound = context.registry.upper_bound(backend);
        BackendRow { backend, health, upper_bound }
    }))
    .await;
    Ok(Outcome::Show(View::Backends(rows), false))
}
