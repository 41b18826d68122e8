//! What root inside a container can try against the guest and against what stands between it and the host.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test says so by failing"
)]
#[path = "support/guest.rs"]
mod guest;
#[path = "support/real.rs"]
mod real;

use std::sync::Arc;

use agentkernel_core::{Backend, Lifetime, Mount, Sandbox, SandboxExt, WriteOptions};
use real::{engine, name, sandbox};

/// A sandbox whose commands are root and have this machine's own programs.
async fn attacker() -> Option<Arc<dyn Sandbox>> {
    let backend = engine().await?;
    let mut config = sandbox();
    config.user = Some("0:0".into());
    config.mounts = ["/usr", "/lib", "/lib64"]
        .map(|path| Mount {
            source: std::fs::canonicalize(path).unwrap(),
            target: path.into(),
            read_only: true,
        })
        .to_vec();
    let attacker = backend.sandbox(name("attacker"));
    attacker.start(&config).await.unwrap();
    Some(attacker)
}

/// Runs a script that must fail, and then a command that must work.
async fn is_refused(sandbox: &dyn Sandbox, script: &str) {
    let tried = sandbox.exec(&["sh", "-c", script]).await.unwrap();
    assert_ne!(tried.exit_code, 0, "`{script}` worked: {tried:?}");
    assert_eq!(sandbox.exec(&["echo", "alive"]).await.unwrap().stdout, "alive\n", "after `{script}`");
}

#[tokio::test]
async fn root_inside_cannot_freeze_the_guest_by_its_limits() {
    let Some(sandbox) = attacker().await else { return };
    is_refused(&*sandbox, "/usr/bin/prlimit --pid 1 --nofile=4:4").await;
    is_refused(&*sandbox, "/usr/bin/prlimit --pid 1 --cpu=1:1").await;
}

#[tokio::test]
async fn root_inside_cannot_signal_the_guest() {
    let Some(sandbox) = attacker().await else { return };
    for signal in ["STOP", "KILL", "TERM", "CHLD"] {
        is_refused(&*sandbox, &format!("kill -{signal} 1")).await;
    }
}

#[tokio::test]
async fn root_inside_cannot_signal_what_holds_its_command() {
    let Some(sandbox) = attacker().await else { return };
    // The parent of the command is the guest's stub.
    is_refused(&*sandbox, "kill -KILL $PPID").await;
    is_refused(&*sandbox, "/usr/bin/prlimit --pid $PPID --nofile=1:1").await;
}

#[tokio::test]
async fn root_inside_cannot_trace_the_guest_or_read_it() {
    let Some(sandbox) = attacker().await else { return };
    // Opening `mem` needs what ptrace(2) needs to attach (proc_pid_mem(5)).
    for file in ["mem", "environ", "fd/0", "root/etc/passwd", "cwd/etc/passwd", "maps"] {
        is_refused(&*sandbox, &format!("head -c 1 /proc/1/{file} | grep -q .")).await;
    }
    let intruder = std::fs::read(guest::built().join("agentkernel-intruder")).unwrap();
    let options = WriteOptions { mode: Some(0o755), ..WriteOptions::default() };
    sandbox.write(&"/intruder".parse().unwrap(), &options, &mut intruder.as_slice()).await.unwrap();
    for process in ["1", "$PPID"] {
        is_refused(&*sandbox, &format!("/intruder seize {process}")).await;
    }
    let own_child = "sleep 1000 & /intruder seize $!; seized=$?; kill -KILL $!; exit $seized";
    assert_eq!(sandbox.exec(&["sh", "-c", own_child]).await.unwrap().exit_code, 0);
}

#[tokio::test]
async fn what_stands_between_host_and_guest_cannot_be_replaced() {
    let Some(sandbox) = attacker().await else { return };
    for script in [
        "rm -f /.agentkernel/boot",
        "mv /.agentkernel/boot /tmp/b",
        "ln -sf /tmp/x /.agentkernel/boot",
        "umount /.agentkernel/boot",
        "/usr/bin/mount --bind /tmp /.agentkernel/boot",
        "echo x > /.agentkernel/bin/guest",
        "touch /.agentkernel/bin/new",
    ] {
        is_refused(&*sandbox, script).await;
    }
}

/// The directory that holds the mounts may be moved, with them: no path leads from it to anything.
#[tokio::test]
async fn a_planted_guest_is_never_run() {
    let Some(backend) = engine().await else { return };
    let mut config = sandbox();
    config.lifetime = Lifetime::Detached;
    let moved = backend.sandbox(name("moved"));
    moved.start(&config).await.unwrap();
    let plant = "mv /.agentkernel /tmp/ak && mkdir -p /evil/bin && ln -s /evil /.agentkernel \
                 && cp /bin/busybox /evil/bin/guest";
    let planted = moved.exec(&["sh", "-c", plant]).await.unwrap();
    let first = moved.exec(&["cat", "/proc/1/comm"]).await.unwrap().stdout;
    moved.stop().await.unwrap();
    let started = moved.boot().await;
    let second = match &started {
        Ok(()) => moved.exec(&["cat", "/proc/1/comm"]).await.unwrap().stdout,
        // An engine may refuse to mount there; then nothing runs.
        Err(_) => "guest\n".to_owned(),
    };
    moved.remove().await.unwrap();
    assert_eq!(
        (planted.exit_code, first.as_str(), second.as_str()),
        (0, "guest\n", "guest\n"),
        "{started:?}"
    );
}

#[tokio::test]
async fn no_host_directory_is_writable_from_inside() {
    let Some(sandbox) = attacker().await else { return };
    let mounts = sandbox.exec(&["cat", "/proc/self/mounts"]).await.unwrap().stdout;
    // What lies on a disk of the host's is the container's own layer, or it is read-only.
    let memory = ["proc", "tmpfs", "devpts", "sysfs", "cgroup", "cgroup2", "mqueue"];
    let writable = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter(|fields| !memory.contains(&fields[2]) && fields[1] != "/")
        .filter(|fields| !fields[3].split(',').any(|option| option == "ro"))
        .map(|fields| fields[1].to_owned())
        // The engine's own `/etc/hostname` is a file of its own, as much disk as the layer is.
        .filter(|target| target != "/etc/hostname")
        .collect::<Vec<_>>();
    assert!(mounts.contains("/.agentkernel/boot"), "{mounts}");
    assert_eq!(writable, Vec::<String>::new());
}

#[tokio::test]
async fn a_command_has_no_descriptors_but_its_own_three() {
    let Some(sandbox) = attacker().await else { return };
    // Of a command that lists nothing itself: to list is to open a directory.
    let script = "sleep 100 & while ! ls /proc/$!/fd 2>/dev/null | grep -q 2; do :; done; ls /proc/$!/fd";
    let listed = sandbox.exec(&["sh", "-c", script]).await.unwrap();
    assert_eq!(listed.stdout, "0\n1\n2\n");
}
