//! The suite that every backend passes, on this machine's Docker as if it were elsewhere: behind tcp.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test says so by failing")]
#[path = "support/front.rs"]
mod front;
#[path = "support/guest.rs"]
mod guest;

use std::{
    process::ExitCode,
    sync::{Arc, LazyLock},
};

use agentkernel_conformance::Kit;
use agentkernel_core::Backend;
use agentkernel_docker::{DockerBackend, EngineKind};

static FRONT: LazyLock<String> = LazyLock::new(|| front::front(EngineKind::Docker));

fn main() -> ExitCode {
    let kit = Kit::new("docker", || async {
        guest::built();
        let config = guest::config().with_kind(EngineKind::Docker).with_endpoint(FRONT.as_str());
        let backend: Arc<dyn Backend> = DockerBackend::connect(config).await?;
        Ok(backend)
    });
    let test = std::env::current_exe().unwrap();
    let programs = test.ancestors().nth(2).unwrap();
    kit.with_intruder(programs.join("agentkernel-intruder")).main()
}
