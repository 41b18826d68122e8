//! Removing sandboxes that have no reason to exist any more, and what was left half made.
use std::{collections::HashSet, fs, time::Duration};

use agentkernel_core::{Liveness, Reap, Reaped, Result, State};
use agentkernel_host::{RunDir, liveness};

use crate::{
    backend::Shared,
    end::{discard, end_by},
    state::{self, Found},
};

/// A directory of sockets is older than its sandbox by less than that.
const YOUNG: Duration = Duration::from_secs(60);

pub(crate) async fn reap(shared: &Shared, plan: Reap) -> Result<Vec<Reaped>> {
    let dirs = RunDir::list(shared.key())?;
    let mut reaped = Vec::new();
    let mut alive = HashSet::new();
    for found in state::list(&shared.data) {
        let labels = &found.labels;
        alive.insert(labels.run_id.clone());
        let why = liveness(labels.config.lifetime, labels.owner.as_ref(), labels.deadline);
        let outcome = match why {
            Liveness::Dead | Liveness::Expired if plan == Reap::Remove => remove(shared, &found).await,
            Liveness::Dead | Liveness::Expired | Liveness::Unknown => Ok(()),
            _ => continue,
        };
        reaped.push(Reaped { name: labels.name.clone(), id: labels.run_id.clone(), why, outcome });
    }
    if plan == Reap::Remove {
        sweep(shared, &dirs, &alive);
    }
    Ok(reaped)
}

async fn remove(shared: &Shared, found: &Found) -> Result<()> {
    if found.dir.state() == State::Running {
        let told = async {
            let client = RunDir::open(shared.key(), &found.labels.run_id)?.connect_control().await?;
            client.shutdown(Duration::ZERO).await
        };
        end_by(shared, found, Duration::ZERO, told.await).await;
    }
    discard(shared, found).await
}

/// Removes what a process of ours that was killed has left half made or half removed.
fn sweep(shared: &Shared, dirs: &[RunDir], alive: &HashSet<String>) {
    for entry in fs::read_dir(shared.data.join("sandboxes")).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(rest) =
            name.to_str().and_then(|name| name.strip_prefix(".new-").or(name.strip_prefix(".gone-")))
        else {
            continue;
        };
        let worker = rest.split('-').next().unwrap_or_default();
        if !std::path::Path::new("/proc").join(worker).exists() {
            let _gone = state::remove_tree(&entry.path());
        }
    }
    for dir in dirs.iter().filter(|dir| !alive.contains(dir.run_id())) {
        let age = dir.modified().and_then(|modified| modified.elapsed().ok());
        // Without a name there is no link to remove: any will do.
        if let (true, Ok(name)) = (age.is_some_and(|age| age > YOUNG), "x".parse()) {
            dir.remove(&name);
        }
    }
}
