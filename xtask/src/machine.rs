//! What this machine has of what the suites need.
use std::path::Path;

use crate::process::{command, read, succeeds};

/// Why the Docker suites cannot run here; `None` if they can.
pub(crate) fn no_docker() -> Option<&'static str> {
    if !succeeds(&mut command("docker", ["info", "--format", "{{.ServerVersion}}"])) {
        return Some("no Docker Engine answers: run `cargo xtask provision` as root");
    }
    if !succeeds(&mut command(
        "docker",
        ["image", "inspect", "agentkernel-test", "agentkernel-empty", "busybox"],
    )) {
        return Some("the fixture images are missing: run `cargo xtask provision`");
    }
    None
}

/// Why some tests of the guest skip themselves; `None` if they run.
pub(crate) fn not_root() -> Option<&'static str> {
    (!is_root()).then_some("only root can make process id namespaces here")
}

/// Why the tests of pulling skip themselves; `None` if they run.
pub(crate) fn no_registry() -> Option<&'static str> {
    (!Path::new("/usr/bin/docker-registry").exists()).then_some("docker-registry is not installed")
}

/// Names the kernel and its cgroups, as far as they decide what a backend can do.
pub(crate) fn kernel() -> String {
    let name = read(&mut command("uname", ["-sr"])).unwrap_or_default();
    let release = name.trim().splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
    match (Path::new("/sys/fs/cgroup/cgroup.controllers").exists(), Path::new("/sys/fs/cgroup").exists()) {
        (true, _) => format!("{release}, cgroup v2"),
        (false, true) => format!("{release}, cgroup v1"),
        (false, false) => release,
    }
}

/// Returns whether this process is root.
pub(crate) fn is_root() -> bool {
    read(&mut command("id", ["-u"])).is_ok_and(|id| id.trim() == "0")
}

/// Returns whether a backend must be tested: a machine without it then fails.
pub(crate) fn requires(backend: &str) -> bool {
    let required = std::env::var("AGENTKERNEL_REQUIRE_BACKENDS").unwrap_or_default();
    required.split(',').any(|name| name.trim() == backend)
}
