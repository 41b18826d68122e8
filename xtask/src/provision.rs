//! Makes a Debian or Ubuntu machine ready for the suites: packages, a running Docker Engine and Podman service,
//! fixture images in both.
use std::{
    env,
    fs::{self, File},
    path::Path,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    fixture,
    machine::{PODMAN_SOCKET, is_root, podman_answers},
    process::{command, run, say, succeeds},
};

/// Packages, each with a file that shows it is there already.
const PACKAGES: [(&str, &str); 6] = [
    ("docker.io", "/usr/sbin/dockerd"),
    ("podman", "/usr/bin/podman"),
    ("busybox-static", "/usr/share/doc/busybox-static"),
    ("hyperfine", "/usr/bin/hyperfine"),
    ("docker-registry", "/usr/bin/docker-registry"),
    ("btrfs-progs", "/usr/sbin/mkfs.btrfs"),
];
const ENGINE_START: Duration = Duration::from_secs(90);

/// Installs and starts what is missing; what is there is left alone.
pub(crate) fn provision() -> Result<()> {
    install()?;
    start_engine()?;
    fixture::build("docker")?;
    start_podman()?;
    fixture::build("podman")
}

fn install() -> Result<()> {
    let missing = PACKAGES
        .iter()
        .filter(|(package, witness)| !Path::new(witness).exists() && !is_elsewhere(package))
        .map(|(package, _)| *package)
        .collect::<Vec<_>>();
    if missing.is_empty() {
        return Ok(());
    }
    if !is_root() || !Path::new("/usr/bin/apt-get").exists() {
        bail!(
            "these packages are missing: {}; run this as root on Debian or Ubuntu, or install them",
            missing.join(" ")
        );
    }
    let apt = |args: &[&str]| {
        run(command("apt-get", args).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()))
    };
    apt(&["-qq", "update"])?;
    let mut args = vec!["-qq", "install", "--yes", "--no-install-recommends"];
    args.extend(missing);
    apt(&args)
}

/// An engine from elsewhere (docker-ce, a remote one) serves as well as the package.
fn is_elsewhere(package: &str) -> bool {
    package == "docker.io" && engine_answers()
}

fn engine_answers() -> bool {
    succeeds(&mut command("docker", ["info", "--format", "{{.ServerVersion}}"]))
}

fn start_engine() -> Result<()> {
    if engine_answers() {
        return Ok(());
    }
    if !is_root() {
        bail!("no Docker Engine answers, and only root can start one");
    }
    if Path::new("/run/systemd/system").exists() {
        run(&mut command("systemctl", ["start", "docker"]))?;
        return wait_for("the Docker Engine", engine_answers, "see `journalctl -u docker`");
    }
    let log = env::temp_dir().join("agentkernel-dockerd.log");
    mount_cgroups()?;
    // What a killed engine left behind keeps the next one from starting; a process that is dead and not reaped has no
    // executable any more.
    for stale in ["/var/run/docker.pid", "/var/run/docker/containerd/containerd.pid"] {
        let lives = |pid: String| Path::new("/proc").join(pid.trim()).join("exe").exists();
        if !fs::read_to_string(stale).is_ok_and(lives) {
            let _absent = fs::remove_file(stale);
        }
    }
    detached(&["dockerd"], &log)?;
    wait_for("the Docker Engine", engine_answers, &format!("see {}", log.display()))
}

/// A container without a cgroup mount is what many CI machines are.
fn mount_cgroups() -> Result<()> {
    let root = Path::new("/sys/fs/cgroup");
    let is_mounted = fs::read_dir(root).is_ok_and(|mut entries| entries.next().is_some());
    if is_mounted {
        Ok(())
    } else {
        run(&mut command("mount", ["-t", "cgroup2", "cgroup2", "/sys/fs/cgroup"]))
    }
}

/// Starts a server that outlives this terminal and its Ctrl-C: in a session of its own.
fn detached(words: &[&str], log: &Path) -> Result<()> {
    say(&format!("$ {} (detached)", words.join(" ")));
    let output = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    command("setsid", words)
        // What it starts needs a working directory that stays: a checkout may go.
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .with_context(|| format!("{} did not start", words[0]))
        .map(drop)
}

/// Starts Podman's service. With runc: crun takes no machine that has both kinds of cgroups mounted.
fn start_podman() -> Result<()> {
    if podman_answers() {
        return Ok(());
    }
    if !is_root() {
        bail!("no service of Podman answers, and only root can start one for the suites");
    }
    let socket = Path::new(PODMAN_SOCKET.trim_start_matches("unix://"));
    if let Some(dir) = socket.parent() {
        fs::create_dir_all(dir)?;
    }
    // One that a killed service left behind keeps the next one from listening.
    let _absent = fs::remove_file(socket);
    let log = env::temp_dir().join("agentkernel-podman.log");
    detached(&["podman", "--runtime", "runc", "system", "service", "--time=0", PODMAN_SOCKET], &log)?;
    wait_for("Podman's service", podman_answers, &format!("see {}", log.display()))
}

fn wait_for(what: &str, answers: fn() -> bool, advice: &str) -> Result<()> {
    let deadline = Instant::now() + ENGINE_START;
    while Instant::now() < deadline {
        if answers() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(200));
    }
    bail!("{what} does not answer after {} s: {advice}", ENGINE_START.as_secs())
}
