//! Removing sandboxes that have no reason to exist any more, and what the sandboxes left on this machine.
use std::{collections::HashSet, fs, path::Path, time::Duration};

use agentkernel_core::{Filter, Liveness, Reap, Reaped, Result, SandboxName};
use agentkernel_host::{RunDir, liveness};

use crate::{backend::Shared, exec::end_survivor};

/// See [`is_old`].
const YOUNG: Duration = Duration::from_secs(24 * 3600);

/// Finds our containers whose owner is dead or whose deadline passed, and removes them if told so.
pub(crate) async fn reap(shared: &Shared, plan: Reap) -> Result<Vec<Reaped>> {
    let dirs = RunDir::list(&shared.key)?;
    // Looked at before the engine is asked: what is made meanwhile is then neither here nor missing there.
    let is_stale = |dir: &&RunDir| was_booted(dir) || name_of(dir).is_some() || is_old(dir);
    let stale = dirs.iter().filter(is_stale).collect::<Vec<_>>();
    let mut found = shared.find_all(&Filter::default()).await?;
    let alive = found.iter().map(|found| found.labels.run_id.clone()).collect::<HashSet<_>>();
    if plan == Reap::Remove {
        sweep(&stale, &alive).await;
    }
    let mut reaped = Vec::new();
    for found in found.drain(..) {
        let labels = &found.labels;
        let why = liveness(labels.config.lifetime, labels.owner.as_ref(), labels.deadline);
        let outcome = match why {
            Liveness::Dead | Liveness::Expired if plan == Reap::Remove => {
                let removed = shared.engine.remove(&found.id).await;
                if removed.is_ok() {
                    let of_it = dirs.iter().filter(|dir| dir.run_id() == labels.run_id);
                    of_it.for_each(|dir| dir.remove(&labels.name));
                }
                removed
            }
            Liveness::Dead | Liveness::Expired | Liveness::Unknown => Ok(()),
            _ => continue,
        };
        reaped.push(Reaped { name: labels.name.clone(), id: found.id.as_str().to_owned(), why, outcome });
    }
    Ok(reaped)
}

/// Removes directories of sockets whose container is gone, as after the owner was killed, with the links to them.
async fn sweep(dirs: &[&RunDir], alive: &HashSet<String>) {
    for dir in dirs.iter().filter(|dir| !alive.contains(dir.run_id())) {
        end_survivor(dir).await;
        // A directory without a name has no link to remove: any name will do.
        if let Some(name) = name_of(dir).or_else(|| "x".parse().ok()) {
            dir.remove(&name);
        }
    }
}

/// The name that leads to a directory. It gets one once its container is there: if that is not there now, it is gone.
fn name_of(dir: &RunDir) -> Option<SandboxName> {
    let boot = dir.boot_path();
    let names = boot.ancestors().nth(2).unwrap_or(Path::new("/")).join("names");
    let links = fs::read_dir(names).into_iter().flatten().flatten();
    let mut of_it =
        links.filter(|link| fs::read_link(link.path()).is_ok_and(|to| to.ends_with(dir.run_id())));
    of_it.find_map(|link| link.file_name().to_str()?.parse().ok())
}

/// A directory with a control socket was booted: its container was there, so if it is not there now, it is gone.
fn was_booted(dir: &RunDir) -> bool {
    dir.boot_path().with_file_name("ctl").exists()
}

/// A directory may be older than its container by a pull and a create, and not by more.
fn is_old(dir: &RunDir) -> bool {
    let age = dir.modified().and_then(|modified| modified.elapsed().ok());
    age.is_some_and(|age| age > YOUNG)
}
