//! What is particular to Podman; all else is in the kit.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test says so by failing, or that it is skipped"
)]
#[path = "support/guest.rs"]
mod guest;

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use agentkernel_core::{Backend, BackendType, ErrorKind, Filter, ImageStore};
use agentkernel_docker::{DockerBackend, EngineKind};

/// A service of its own, in directories of its own, with this OCI runtime.
struct Service {
    process: Child,
    dir: tempfile::TempDir,
}

impl Service {
    /// Starts one; `None` with a printed reason where there is no podman, or no root, and neither is required.
    fn start(runtime: &str) -> Option<Self> {
        let required = std::env::var("AGENTKERNEL_REQUIRE_BACKENDS")
            .is_ok_and(|names| names.split(',').any(|name| name.trim() == "podman"));
        let there = Command::new("podman").arg("--version").output().is_ok();
        if !there || !rustix::process::getuid().is_root() {
            assert!(!required, "podman is required, as root");
            eprintln!("skipped: it takes root and the podman command");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let process = podman(dir.path())
            .args(["--runtime", runtime, "system", "service", "--time=0", &address(dir.path())])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let begin = Instant::now();
        while !dir.path().join("podman.sock").exists() {
            assert!(begin.elapsed() < Duration::from_secs(30), "the service does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Self { process, dir })
    }

    fn list(&self, what: &[&str]) -> String {
        let output = podman(self.dir.path()).args(what).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        // Its storage is mounted on itself.
        let _gone = Command::new("umount").arg(self.dir.path().join("root/overlay")).output();
    }
}

fn podman(dir: &Path) -> Command {
    let mut command = Command::new("podman");
    command.arg("--root").arg(dir.join("root")).arg("--runroot").arg(dir.join("run"));
    command
}

fn address(dir: &Path) -> String {
    format!("unix://{}", dir.join("podman.sock").display())
}

#[tokio::test]
async fn a_service_whose_runtime_starts_nothing_is_unavailable_and_keeps_nothing_of_the_probe() {
    let Some(service) = Service::start("/bin/false") else { return };
    let config = guest::config().with_endpoint(address(service.dir.path()));
    let backend = DockerBackend::connect(config).await.unwrap();
    assert_eq!(backend.backend_type(), BackendType::Podman);
    let error = backend.probe().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.to_string().contains("starts nothing") && error.hint().is_some(), "{error:?}");
    assert_eq!(service.list(&["ps", "--all", "--quiet"]), "");
    assert_eq!(service.list(&["images", "--all", "--quiet"]), "");
}

#[tokio::test]
async fn a_probe_that_succeeds_keeps_nothing_either() {
    let Some(service) = Service::start("runc") else { return };
    let config = guest::config().with_endpoint(address(service.dir.path())).with_kind(EngineKind::Podman);
    let backend = DockerBackend::connect(config).await.unwrap();
    backend.probe().await.unwrap();
    assert_eq!(service.list(&["ps", "--all", "--quiet"]), "");
    assert_eq!(service.list(&["images", "--all", "--quiet"]), "");
    assert!(backend.list(&Filter::default()).await.unwrap().is_empty());
    let images: &dyn ImageStore = backend.images().unwrap();
    assert!(images.list().await.unwrap().is_empty());
}
