//! The suite that every backend passes, on this machine's Podman.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test says so by failing")]
#[path = "support/guest.rs"]
mod guest;

use std::{process::ExitCode, sync::Arc};

use agentkernel_conformance::Kit;
use agentkernel_core::Backend;
use agentkernel_docker::{DockerBackend, EngineKind};

fn main() -> ExitCode {
    let kit = Kit::new("podman", || async {
        guest::built();
        let config = guest::config().with_kind(EngineKind::Podman);
        let backend: Arc<dyn Backend> = DockerBackend::connect(config).await?;
        Ok(backend)
    });
    let test = std::env::current_exe().unwrap();
    let programs = test.ancestors().nth(2).unwrap();
    kit.with_intruder(programs.join("agentkernel-intruder")).main()
}
