//! Reaching the guest of a sandbox, and ending it. The engine is asked only if the guest does not answer: commands and
//! files work while the engine is stopped or busy.
use std::time::Duration;

use agentkernel_core::{Error, ErrorKind, Result, State};
use agentkernel_host::{GuestClient, GuestSandbox, RunDir};
use tokio::time::{Instant, sleep};

use crate::{
    backend::{MAX_PAUSE, MIN_PAUSE},
    elsewhere,
    engine::absent_is_none,
    id::ContainerId,
    info,
    sandbox::DockerSandbox,
};

/// How long beyond the grace a guest may take to end.
const HALT_MARGIN: Duration = Duration::from_secs(5);

impl DockerSandbox {
    /// Returns a connection to the guest: this handle's own, or a new one through the control socket.
    pub(crate) async fn guest(&self, operation: &'static str) -> Result<GuestSandbox> {
        let (cached, expected) = {
            let bound = self.bound();
            (bound.guest.clone(), bound.run_id.clone())
        };
        if let Some(guest) = cached.filter(|guest| !guest.client().is_closed()) {
            return Ok(guest);
        }
        let dir = RunDir::find(&self.shared.key, &self.name)?;
        let dir = dir.filter(|dir| expected.is_none_or(|run_id| dir.run_id() == run_id));
        let reached = match &dir {
            Some(dir) => self.reach(dir, None).await,
            None => Err(self.error(ErrorKind::NotRunning, operation, "its sockets are not on this machine")),
        };
        let (Some(dir), Ok(client)) = (&dir, &reached) else {
            return Err(match reached {
                Ok(_) => self.absent(operation),
                Err(error) => self.explain(operation, error).await,
            });
        };
        let guest =
            GuestSandbox::new(client.clone(), self.name.clone(), self.shared.engine.kind().backend_type());
        let mut bound = self.bound();
        bound.run_id.get_or_insert_with(|| dir.run_id().to_owned());
        bound.guest = Some(guest.clone());
        Ok(guest)
    }

    /// Connects to the guest whose directory this is.
    pub(crate) async fn reach(&self, dir: &RunDir, id: Option<&ContainerId>) -> Result<GuestClient> {
        // The engine is not asked where it is: it may hang.
        if self.shared.engine.endpoint().address.is_local() && !dir.has_key() {
            return dir.connect_control().await;
        }
        let id = match id {
            Some(id) => id.clone(),
            None => self.require("reach the sandbox").await?.id,
        };
        let targets = info::targets(&self.shared.engine.inspect(&id).await?);
        elsewhere::reach(&self.shared, &id, dir, &targets, &self.name).await
    }

    /// Asks the engine why the guest does not answer.
    pub(crate) async fn explain(&self, operation: &'static str, error: Error) -> Error {
        let found = match self.find().await {
            Ok(Some(found)) => found,
            Ok(None) => return self.absent(operation),
            Err(failure) => return failure.with_operation(operation).with_context("guest", error),
        };
        match found.state() {
            State::Paused => self.paused(operation),
            State::Running => error
                .with_operation(operation)
                .with_context("sandbox", &self.name)
                .with_hint("it runs: was it made by another user, or started by the engine's own command?"),
            state => {
                let error = self
                    .error(ErrorKind::NotRunning, operation, "it does not run")
                    .with_context("state", state);
                error.with_hint(format!("start it: agentkernel start {}", self.name))
            }
        }
    }

    /// Asks the guest to end everything, waits for it, and falls back to the engine.
    pub(crate) async fn halt_within(&self, grace: Duration) -> Result<()> {
        let was_bound = self.bound().id.is_some();
        let (id, is_paused) = match self.find().await? {
            // Owned sandboxes go with their end: one that this handle knew and that is gone is halted.
            None if was_bound => return Ok(()),
            None => return Err(self.absent("stop sandbox")),
            Some(found) => match found.state() {
                State::Running | State::Unknown => (found.id, false),
                State::Paused => (found.id, true),
                State::Created | State::Stopped | State::Dead => return Ok(()),
                _ => return Ok(()),
            },
        };
        let politely = async {
            // It would not answer, and the engine lets go on what it kills.
            if is_paused {
                return Err(self.paused("stop sandbox"));
            }
            let guest = self.guest("stop sandbox").await?;
            guest.shutdown(grace).await
        };
        let told = politely.await;
        if let Err(error) = &told {
            tracing::debug!(%error, sandbox = %self.name, "the guest cannot be asked to end");
        }
        let patience = if told.is_ok() { grace + HALT_MARGIN } else { Duration::ZERO };
        if self.is_over(&id, patience).await? {
            return Ok(());
        }
        match self.shared.engine.kill(&id).await {
            Err(failure) if !matches!(failure.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => {
                return Err(failure.with_context("sandbox", &self.name));
            }
            _ => {}
        }
        if self.is_over(&id, HALT_MARGIN).await? {
            return Ok(());
        }
        Err(self.error(ErrorKind::Timeout, "stop sandbox", "the engine does not end it"))
    }

    /// Waits until a container does not run any more.
    pub(crate) async fn is_over(&self, id: &ContainerId, patience: Duration) -> Result<bool> {
        let (deadline, mut pause) = (Instant::now() + patience, MIN_PAUSE);
        loop {
            let inspect = absent_is_none(self.shared.engine.inspect(id).await)?;
            let state = inspect.and_then(|inspect| inspect.state).map(|state| info::state(&state));
            if !matches!(state, Some(State::Running | State::Paused)) {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// Frees the ports of the host that led inside.
    pub(crate) async fn close_ports(&self) {
        let ports = self.bound().ports.take();
        if let Some(ports) = ports {
            ports.close().await;
        }
    }

    /// Removes the container, running or not, and what is ours of it on this machine.
    pub(crate) async fn remove_now(&self) -> Result<()> {
        let known = self.bound().id.clone();
        let id = match known {
            Some(id) => Some(id),
            None => self.find().await?.map(|found| found.id),
        };
        if let Some(id) = &id {
            self.shared.engine.remove(id).await.map_err(|error| error.with_context("sandbox", &self.name))?;
        }
        self.close_ports().await;
        let (run_id, guest) = {
            let mut bound = self.bound();
            bound.owned = None;
            bound.prepared = None;
            bound.lease = None;
            (bound.run_id.clone(), bound.guest.take())
        };
        if let Some(guest) = guest {
            guest.client().close();
        }
        if let Some(run_id) = run_id {
            let dirs = RunDir::list(&self.shared.key)?;
            for dir in dirs.iter().filter(|dir| dir.run_id() == run_id) {
                end_survivor(dir).await;
                dir.remove(&self.name);
            }
        }
        Ok(())
    }
}

/// Ends a guest that lives though its container is gone: an engine that is killed while it starts one forgets that it
/// did. Everywhere else nobody listens any more.
pub(crate) async fn end_survivor(dir: &RunDir) {
    let Ok(guest) = dir.connect_control().await else { return };
    if let Err(error) = guest.shutdown(Duration::ZERO).await {
        tracing::debug!(%error, run_id = dir.run_id(), "a guest that its engine has lost lives on");
    }
}
