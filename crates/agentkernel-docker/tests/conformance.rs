//! The suite that every backend passes, on the engine of this machine.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test says so by failing")]
#[path = "support/guest.rs"]
mod guest;

use std::{process::ExitCode, sync::Arc};

use agentkernel_core::Backend;
use agentkernel_docker::DockerBackend;

fn main() -> ExitCode {
    agentkernel_conformance::main("docker", || async {
        let backend: Arc<dyn Backend> = DockerBackend::connect(guest::config()).await?;
        Ok(backend)
    })
}
