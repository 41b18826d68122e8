//! What the tests share: the real engine if it is there, and the guest's program.
#![allow(dead_code, reason = "each test program uses a part of it")]
pub mod scripted;

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use agentkernel_core::{Backend, SandboxConfig, SandboxName};
use agentkernel_docker::{DockerBackend, DockerConfig};

/// The fixture image, made by `cargo xtask provision`.
pub const IMAGE: &str = "agentkernel-test";

/// Returns the guest's program: `AGENTKERNEL_GUEST`, or the one of this build, built if it is not there.
pub fn guest() -> &'static Path {
    static GUEST: OnceLock<PathBuf> = OnceLock::new();
    GUEST.get_or_init(|| {
        if let Some(named) = std::env::var_os("AGENTKERNEL_GUEST") {
            return named.into();
        }
        let mut command = Command::new(env!("CARGO"));
        // The lock of the build directory is free while tests run.
        let built = command.args(["build", "--quiet", "--package", "agentkernel-guest"]).status().unwrap();
        assert!(built.success(), "the guest does not build");
        let test = std::env::current_exe().unwrap();
        let dir = test.ancestors().find(|dir| dir.join("agentkernel-guest").is_file());
        dir.expect("the guest is built beside the tests").join("agentkernel-guest")
    })
}

/// Returns the configuration of the tests.
pub fn config() -> DockerConfig {
    DockerConfig::default().with_guest(guest())
}

/// Returns the engine; `None` with a printed reason if there is none and none is required.
pub async fn engine() -> Option<Arc<DockerBackend>> {
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
pub fn name(prefix: &str) -> SandboxName {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}-{}-{number}", std::process::id()).parse().unwrap()
}

/// Returns the smallest config.
pub fn sandbox() -> SandboxConfig {
    SandboxConfig::new(IMAGE)
}

/// Runs the docker command and returns its stdout.
pub fn docker(args: &[&str]) -> Result<String, String> {
    let output = Command::new("docker").args(args).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}
