//! What this machine has of what the suites need.
use std::path::Path;

use crate::{
    fixture,
    process::{command, read, succeeds},
};

/// Why the Docker suites cannot run here; `None` if they can.
pub(crate) fn no_docker() -> Option<&'static str> {
    if !succeeds(&mut command("docker", ["info", "--format", "{{.ServerVersion}}"])) {
        return Some("no Docker Engine answers: run `cargo xtask provision` as root");
    }
    no_images("docker")
}

/// Why the Podman suites cannot run here; `None` if they can.
pub(crate) fn no_podman() -> Option<&'static str> {
    if !podman_answers() {
        return Some("no service of Podman answers: run `cargo xtask provision` as root");
    }
    no_images("podman")
}

/// The command itself needs no service, so it is told to use it.
pub(crate) fn podman_answers() -> bool {
    succeeds(&mut command("podman", ["--url", PODMAN_SOCKET, "version", "--format", "{{.Server.Version}}"]))
}

/// Where provisioning makes Podman listen: where root's always does.
pub(crate) const PODMAN_SOCKET: &str = "unix:///run/podman/podman.sock";

/// Returns whether the embedded backend can be tested both as root and as an ordinary user.
pub(crate) fn is_linux_root() -> bool {
    std::env::consts::OS == "linux" && not_root().is_none()
}

/// Returns whether the Apple backend is tested on the stand-in, and not on the real `container`.
pub(crate) fn has_stand_in() -> bool {
    std::env::var_os("AGENTKERNEL_CONTAINER").is_none() && std::env::consts::OS != "macos"
}

/// Why the Apple suites cannot run here; `None` if they can.
pub(crate) fn no_apple() -> Option<&'static str> {
    if !has_stand_in() {
        return None;
    }
    not_root().map(|_| "the stand-in for `container` needs root").or_else(|| {
        (!Path::new("/bin/busybox").exists()).then_some("the stand-in for `container` needs busybox-static")
    })
}

fn no_images(engine: &str) -> Option<&'static str> {
    let there =
        fixture::IMAGES.iter().all(|image| succeeds(&mut command(engine, ["image", "inspect", image])));
    (!there).then_some("the fixture images are missing: run `cargo xtask provision`")
}

/// Why a backend cannot be tested here; `None` if it can.
pub(crate) fn no_backend(name: &str) -> Option<&'static str> {
    match name {
        "docker" => no_docker(),
        "podman" => no_podman(),
        "apple" => no_apple(),
        _ => None,
    }
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
