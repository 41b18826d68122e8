//! Reaching the guest of a sandbox.
use agentkernel_core::{BackendType, Error, ErrorKind, Result, State};
use agentkernel_host::{GuestSandbox, RunDir};

use crate::sandbox::LinuxSandbox;

impl LinuxSandbox {
    /// Returns a connection to the guest: this handle's own, or a new one through the control socket.
    pub(crate) async fn guest(&self, operation: &'static str) -> Result<GuestSandbox> {
        let cached = self.bound().guest.clone();
        if let Some(guest) = cached.filter(|guest| !guest.client().is_closed()) {
            return Ok(guest);
        }
        let found = self.require(operation)?;
        let dir = RunDir::open(self.shared.key(), &found.labels.run_id)?;
        match dir.connect_control().await {
            Ok(client) => {
                let guest = GuestSandbox::new(client, self.name.clone(), BackendType::Linux);
                self.bound().guest = Some(guest.clone());
                Ok(guest)
            }
            Err(error) => Err(self.explain(operation, error)),
        }
    }

    /// Says why the guest does not answer.
    pub(crate) fn explain(&self, operation: &'static str, error: Error) -> Error {
        match self.find() {
            Ok(None) => self.absent(operation),
            Ok(Some(found)) if found.dir.state() == State::Running => {
                error.with_operation(operation).with_context("sandbox", &self.name)
            }
            Ok(Some(found)) => self
                .error(ErrorKind::NotRunning, operation, "it does not run")
                .with_context("state", found.dir.state())
                .with_hint(format!("start it: agentkernel start {}", self.name)),
            Err(failure) => failure.with_operation(operation).with_context("guest", error),
        }
    }
}
