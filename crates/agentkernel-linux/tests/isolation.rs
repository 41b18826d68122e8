//! What a sandbox must not have of the host, where the kit cannot look: it takes a mount of the host's own.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test says so by failing")]
#[path = "support/program.rs"]
mod program;

use std::{path::Path, process::Command, sync::Arc};

use agentkernel_core::{Backend, Mount, SandboxConfig, SandboxExt};
use agentkernel_linux::{LinuxBackend, LinuxConfig};

/// A file system of the host's whose later mounts are passed on to its copies, as systemd makes all of them.
struct Shared(tempfile::TempDir);

impl Shared {
    /// `None`, with the reason printed, without root.
    #[expect(clippy::print_stderr, reason = "whoever runs the tests should know what was not tested")]
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not run: mounting takes root");
            return None;
        }
        let shared = Self(tempfile::tempdir().unwrap());
        run(Command::new("mount").args(["-t", "tmpfs", "agentkernel-test"]).arg(shared.0.path()));
        run(Command::new("mount").arg("--make-shared").arg(shared.0.path()));
        Some(shared)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _gone = Command::new("umount").arg("--recursive").arg(self.0.path()).status();
    }
}

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}

#[tokio::test]
async fn what_the_host_mounts_later_does_not_come_along() {
    let Some(shared) = Shared::new() else { return };
    let data = tempfile::tempdir().unwrap();
    let guest = program::built().join("agentkernel-guest");
    let config = LinuxConfig::default().with_guest(guest).with_data(data.path());
    let backend: Arc<dyn Backend> = LinuxBackend::connect(config).await.unwrap();
    let sandbox = backend.sandbox("shared".parse().unwrap());
    let mut config = SandboxConfig::default();
    config.mounts = vec![Mount { source: shared.path().into(), target: "/shown".into(), read_only: true }];
    sandbox.start(&config).await.unwrap();
    let later = shared.path().join("later");
    std::fs::create_dir(&later).unwrap();
    run(Command::new("mount").args(["-t", "tmpfs", "agentkernel-test"]).arg(&later));
    std::fs::write(later.join("secret"), "x").unwrap();
    let seen = sandbox.exec(&["ls", "-A", "/shown/later"]).await.unwrap();
    assert_eq!((seen.exit_code, &*seen.stdout), (0, ""), "{seen:?}");
    let mounts = sandbox.exec(&["cat", "/proc/self/mountinfo"]).await.unwrap().stdout;
    assert!(
        mounts.contains("/shown") && !mounts.contains(" shared:") && !mounts.contains(" master:"),
        "{mounts}"
    );
    sandbox.stop().await.unwrap();
}
