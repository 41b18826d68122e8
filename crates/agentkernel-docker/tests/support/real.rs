//! The real engine, if it is there.
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use agentkernel_core::{Backend, SandboxConfig, SandboxName};
use agentkernel_docker::DockerBackend;

use crate::guest::config;

/// The fixture image, made by `cargo xtask provision`.
pub(crate) const IMAGE: &str = "agentkernel-test";

/// Returns the engine; `None` with a printed reason if there is none and none is required.
pub(crate) async fn engine() -> Option<Arc<DockerBackend>> {
    let required = std::env::var("AGENTKERNEL_REQUIRE_BACKENDS")
        .is_ok_and(|names| names.split([',', ' ']).any(|name| name == "docker"));
    let reached = async {
        let backend = DockerBackend::connect(config()).await?;
        backend.health().await?;
        Ok::<_, agentkernel_core::Error>(backend)
    };
    match reached.await {
        Ok(backend) => Some(backend),
        Err(error) if !required => {
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("docker is required: {error:?}"),
    }
}

/// Returns a name that no other test has.
pub(crate) fn name(prefix: &str) -> SandboxName {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}-{}-{number}", std::process::id()).parse().unwrap()
}

/// Returns the smallest config.
pub(crate) fn sandbox() -> SandboxConfig {
    SandboxConfig::new(IMAGE)
}
