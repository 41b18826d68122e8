//! Removing sandboxes that have no reason to exist any more.
use agentkernel_core::{Liveness, Reap, Reaped, Result};
use agentkernel_host::liveness;

use crate::{backend::Shared, sandbox};

/// Finds our containers whose owner is dead or whose deadline passed, and removes them if told so.
pub(crate) async fn reap(shared: &Shared, plan: Reap) -> Result<Vec<Reaped>> {
    shared.health().await?;
    let mut reaped = Vec::new();
    for found in shared.find_all("reap sandboxes").await? {
        let labels = &found.labels;
        let why = liveness(labels.config.lifetime, labels.owner.as_ref(), labels.deadline);
        let outcome = match why {
            Liveness::Dead | Liveness::Expired if plan == Reap::Remove => {
                sandbox::delete(shared, &labels.name, &labels.run_id).await
            }
            Liveness::Dead | Liveness::Expired | Liveness::Unknown => Ok(()),
            _ => continue,
        };
        reaped.push(Reaped { name: labels.name.clone(), id: found.container.id, why, outcome });
    }
    Ok(reaped)
}
