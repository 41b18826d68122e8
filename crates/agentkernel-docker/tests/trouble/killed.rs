//! An engine that is killed with SIGKILL, and started again.
use std::{
    process::{Command, Stdio},
    time::Duration,
};

use agentkernel_core::{
    Backend, ErrorKind, ExecOptions, ExecSession, ExecSpec, ExitStatus, Filter, Reap, Sandbox, SandboxExt,
    State,
};
use agentkernel_docker::DockerBackend;

use crate::{
    daemon::{Daemon, ORDER, Options, until},
    detached, guest, owned,
};

async fn spawn(one: &dyn Sandbox, script: &str) -> ExecSession {
    one.spawn(&ExecSpec::new(["sh", "-c", script], ExecOptions::default()).unwrap()).await.unwrap()
}

/// Asserts that a session ends as one of a command that was ended: the connection breaks, unless the guest had the time
/// to say by which signal.
async fn assert_was_ended(session: ExecSession) {
    let collected = tokio::time::timeout(Duration::from_secs(20), session.collect()).await;
    match collected.expect("a session ends") {
        Err(error) => assert_eq!(error.kind(), ErrorKind::Disconnected, "{error:?}"),
        Ok(output) => assert!(matches!(output.status, ExitStatus::Signal(_)), "{output:?}"),
    }
}

/// Without live-restore a starting engine ends what its predecessor left running.
#[tokio::test]
async fn after_a_restart_the_truth_is_told_and_no_session_ends_as_if_all_were_well() {
    let Some(mut daemon) = Daemon::start(Options::default()).await else { return };
    let backend = daemon.backend().await;
    let ends = backend.sandbox("ends".parse().unwrap());
    ends.start(&owned()).await.unwrap();
    let stays = backend.sandbox("stays".parse().unwrap());
    stays.start(&detached()).await.unwrap();
    stays.write_file("/tmp/kept", b"kept").await.unwrap();
    // A guest connects before the engine has noted its start.
    assert!(ends.is_running().await.unwrap() && stays.is_running().await.unwrap());
    let sessions = [spawn(&*ends, "sleep 100").await, spawn(&*stays, "sleep 100").await];

    daemon.kill();
    // Nobody answers, and what runs still does.
    for error in [
        backend.list(&Filter::default()).await.map(drop).unwrap_err(),
        stays.inspect().await.map(drop).unwrap_err(),
        backend.sandbox("new".parse().unwrap()).start(&owned()).await.unwrap_err(),
        stays.remove().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(error.hint().is_some(), "{error:?}");
    }
    assert_eq!(stays.exec(&["echo", "on"]).await.unwrap().stdout, "on\n");

    daemon.run();
    for session in sessions {
        assert_was_ended(session).await;
    }
    let other = daemon.backend().await;
    for backend in [&backend, &other] {
        let [ends, stays] = ["ends", "stays"].map(|name| backend.sandbox(name.parse().unwrap()));
        until(
            "the owned one is gone",
            async || matches!(ends.inspect().await, Err(error) if error.kind() == ErrorKind::NotFound),
        )
        .await;
        assert_eq!(stays.inspect().await.unwrap().state, State::Stopped);
        assert_eq!(stays.exec(&["true"]).await.unwrap_err().kind(), ErrorKind::NotRunning);
    }
    assert_eq!(ends.exec(&["true"]).await.unwrap_err().kind(), ErrorKind::NotFound);
    ends.stop().await.unwrap();
    stays.boot().await.unwrap();
    assert_eq!(stays.read_file("/tmp/kept").await.unwrap(), b"kept");
    stays.remove().await.unwrap();
    daemon.assert_nothing_is_left().await;
}

/// The owner is this test program in another process: it makes sandboxes, says so, and waits to be killed.
#[tokio::test]
async fn what_a_dead_owner_left_on_a_dead_engine_goes_with_the_next_reaping() {
    const ROLE: &str = "AGENTKERNEL_TEST_ENGINE";
    if let Some(endpoint) = std::env::var_os(ROLE) {
        let config = guest::config().with_endpoint(endpoint.to_str().unwrap()).with_boot_timeout(ORDER);
        let backend = DockerBackend::connect(config).await.unwrap();
        let (booted, created) =
            (backend.sandbox("booted".parse().unwrap()), backend.sandbox("made".parse().unwrap()));
        booted.start(&owned()).await.unwrap();
        let spec = owned().resolve(created.capabilities().await.unwrap(), created.host()).unwrap();
        created.create(&spec).await.unwrap();
        std::future::pending::<()>().await;
    }
    let Some(mut daemon) = Daemon::start(Options::default()).await else { return };
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed::what_a_dead_owner_left_on_a_dead_engine_goes_with_the_next_reaping"])
        .env(ROLE, daemon.endpoint())
        .env("AGENTKERNEL_GUEST", guest::guest())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let backend = daemon.backend().await;
    until("both are made", async || {
        let all = backend.list(&Filter::default()).await.unwrap();
        let is_running = all.iter().any(|info| info.state == State::Running);
        all.len() == 2
            && is_running
            && backend.sandbox("booted".parse().unwrap()).exec(&["true"]).await.is_ok()
    })
    .await;
    daemon.kill();
    owner.kill().unwrap();
    owner.wait().unwrap();
    daemon.run();
    backend.reap(Reap::Remove).await.unwrap();
    until("both are gone", async || daemon.containers().is_empty()).await;
    daemon.assert_nothing_is_left().await;
}

/// With live-restore a starting engine takes over what its predecessor left running; it removes what removes itself.
#[tokio::test]
async fn with_live_restore_a_detached_sandbox_goes_on_while_its_engine_is_away() {
    let Some(mut daemon) = Daemon::start(Options { live_restore: true, ..Options::default() }).await else {
        return;
    };
    let backend = daemon.backend().await;
    let stays = backend.sandbox("stays".parse().unwrap());
    stays.start(&detached()).await.unwrap();
    let ends = backend.sandbox("ends".parse().unwrap());
    ends.start(&owned()).await.unwrap();
    assert!(ends.is_running().await.unwrap() && stays.is_running().await.unwrap());
    let of_owned = spawn(&*ends, "sleep 100").await;
    let session = spawn(&*stays, "while ! [ -e /tmp/go ]; do sleep 0.1; done; echo done; exit 7").await;

    daemon.kill();
    assert_eq!(stays.exec(&["echo", "on"]).await.unwrap().stdout, "on\n");
    let reconnected = daemon.backend().await.sandbox("stays".parse().unwrap());
    assert_eq!(reconnected.exec(&["echo", "on"]).await.unwrap().stdout, "on\n");
    assert_eq!(reconnected.inspect().await.unwrap_err().kind(), ErrorKind::Unavailable);

    daemon.run();
    assert!(stays.is_running().await.unwrap() && reconnected.is_running().await.unwrap());
    stays.write_file("/tmp/go", b"").await.unwrap();
    let output = session.collect().await.unwrap();
    assert_eq!((output.status.code(), &*output.stdout), (7, &b"done\n"[..]));
    // The engine's own rule, not ours; the session says so.
    assert_was_ended(of_owned).await;
    until("the owned one is gone", async || !ends.is_running().await.unwrap()).await;
    ends.stop().await.unwrap();

    stays.halt(Duration::from_secs(1)).await.unwrap();
    assert_eq!(reconnected.inspect().await.unwrap().state, State::Stopped);
    reconnected.remove().await.unwrap();
    daemon.assert_nothing_is_left().await;
}

/// As one that is killed while it starts something: it forgets that, and what it started lives on.
#[tokio::test]
async fn what_an_engine_has_lost_ends_all_the_same() {
    let Some(mut daemon) = Daemon::start(Options::default()).await else { return };
    let backend = daemon.backend().await;
    let [ends, removed, reaped] =
        ["ends", "removed", "reaped"].map(|name| backend.sandbox(name.parse().unwrap()));
    ends.start(&owned()).await.unwrap();
    for one in [&removed, &reaped] {
        one.start(&detached()).await.unwrap();
    }
    let mut sessions = Vec::new();
    for one in [&ends, &removed, &reaped] {
        assert!(one.is_running().await.unwrap());
        sessions.push(spawn(&**one, "sleep 100").await);
    }

    daemon.kill();
    daemon.forget_containers();
    daemon.run();
    assert!(backend.list(&Filter::default()).await.unwrap().is_empty());
    assert_eq!(removed.exec(&["echo", "on"]).await.unwrap().stdout, "on\n");
    ends.stop().await.unwrap();
    removed.remove().await.unwrap();
    backend.reap(Reap::Remove).await.unwrap();
    for session in sessions {
        assert_was_ended(session).await;
    }
    for one in [&ends, &removed, &reaped] {
        assert_eq!(one.exec(&["true"]).await.unwrap_err().kind(), ErrorKind::NotFound);
        assert!(!one.is_running().await.unwrap());
    }
    daemon.assert_nothing_is_left().await;
}
