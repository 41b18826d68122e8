//! The suite that every backend passes, on the engine of this machine.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test says so by failing")]
#[path = "support/guest.rs"]
mod guest;

use std::{process::ExitCode, sync::Arc};

use agentkernel_conformance::Kit;
use agentkernel_core::Backend;
use agentkernel_docker::{DockerBackend, EngineKind};

fn main() -> ExitCode {
    let kit = Kit::new("docker", || async {
        guest::built();
        let backend: Arc<dyn Backend> =
            DockerBackend::connect(guest::config().with_kind(EngineKind::Docker)).await?;
        Ok(backend)
    });
    // Known before it is built: a list of the trials needs no build.
    let test = std::env::current_exe().unwrap();
    let programs = test.ancestors().nth(2).unwrap();
    kit.with_intruder(programs.join("agentkernel-intruder")).main()
}
