//! Ending a sandbox, and removing what is kept of it.
use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path, time::Duration};

use agentkernel_core::{ErrorKind, Result, State};
use agentkernel_host::RunDir;

use tokio::time::{Instant, sleep};

use crate::{
    backend::Shared,
    sandbox::LinuxSandbox,
    state::{Found, StateDir},
};

/// How long a helper may take to clean up.
const LEAVING: Duration = Duration::from_secs(2);

impl LinuxSandbox {
    /// Asks the guest to end everything, waits for it, and falls back to the helper.
    pub(crate) async fn halt_within(&self, grace: Duration) -> Result<()> {
        let was_bound = self.bound().run_id.is_some();
        let Some(found) = self.find()? else {
            // An owned sandbox goes with its end: one that this handle knew and that is gone is halted.
            return if was_bound { Ok(()) } else { Err(self.absent("stop sandbox")) };
        };
        if found.dir.state() != State::Running {
            return Ok(());
        }
        self.end(&found, grace).await
    }

    /// Ends one that runs.
    async fn end(&self, found: &Found, grace: Duration) -> Result<()> {
        let politely = async { self.guest("stop sandbox").await?.shutdown(grace).await };
        if end_by(&self.shared, found, grace, politely.await).await {
            return Ok(());
        }
        Err(self.error(ErrorKind::Timeout, "stop sandbox", "the kernel does not end it"))
    }

    pub(crate) async fn close_ports(&self) {
        let ports = self.bound().ports.take();
        if let Some(ports) = ports {
            ports.close().await;
        }
    }

    /// Removes it, running or not.
    pub(crate) async fn remove_now(&self) -> Result<()> {
        if let Some(found) = self.find()? {
            if found.dir.state() == State::Running {
                self.end(&found, Duration::ZERO).await?;
            }
            discard(&self.shared, &found).await?;
        }
        self.close_ports().await;
        let guest = {
            let mut bound = self.bound();
            bound.owned = false;
            bound.prepared = None;
            bound.guest.take()
        };
        if let Some(guest) = guest {
            guest.client().close();
        }
        Ok(())
    }
}

/// Waits for the end that the guest was told of, and ends it by force if it does not come. Returns whether it is over.
pub(crate) async fn end_by(shared: &Shared, found: &Found, grace: Duration, told: Result<()>) -> bool {
    let margin = shared.config.end_timeout;
    let patience = match told {
        Ok(()) => grace + margin,
        Err(error) => {
            tracing::debug!(%error, sandbox = %found.labels.name, "the guest cannot be asked to end");
            // It may have ended already: then its helper is cleaning up.
            LEAVING
        }
    };
    if found.dir.is_over(patience).await {
        return true;
    }
    found.dir.kill();
    let is_over = found.dir.is_over(margin).await;
    clean(&found.dir).await;
    is_over
}

/// Removes what is kept of a sandbox that does not run.
pub(crate) async fn discard(shared: &Shared, found: &Found) -> Result<()> {
    clean(&found.dir).await;
    found.dir.remove()?;
    if let Ok(run_dir) = RunDir::open(shared.key(), &found.labels.run_id) {
        run_dir.remove(&found.labels.name);
    }
    Ok(())
}

/// Removes the control groups that a helper which was killed has left: what was inside is dying.
async fn clean(dir: &StateDir) {
    let Ok(setup) = dir.setup() else { return };
    let deadline = Instant::now() + LEAVING;
    for group in &setup.cgroups {
        let path = Path::new(OsStr::from_bytes(&group.path));
        while std::fs::remove_dir(path).is_err_and(|error| error.kind() != std::io::ErrorKind::NotFound)
            && Instant::now() < deadline
        {
            sleep(Duration::from_millis(1)).await;
        }
    }
}
