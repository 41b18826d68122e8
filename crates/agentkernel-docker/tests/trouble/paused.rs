//! A sandbox that somebody paused with the engine's own command.
use std::time::{Duration, Instant};

use agentkernel_core::{Backend, ErrorKind, ExecOptions, ExecSpec, SandboxExt, State};

use crate::{
    daemon::{Daemon, Options},
    detached, owned,
};

fn sleep(options: ExecOptions) -> ExecSpec {
    ExecSpec::new(["sleep", "1"], options).unwrap()
}

#[tokio::test]
async fn a_paused_sandbox_says_so_and_goes_on_when_it_may() {
    let Some(daemon) = Daemon::start(Options::default()).await else { return };
    let backend = daemon.backend().await;
    let one = backend.sandbox("paused".parse().unwrap());
    one.start(&detached()).await.unwrap();
    let waits = one.spawn(&sleep(ExecOptions::default())).await.unwrap();
    let deadline = ExecOptions::default().with_timeout(Duration::from_millis(1500));
    let overdue = one.spawn(&ExecSpec::new(["sleep", "100"], deadline).unwrap()).await.unwrap();
    daemon.docker(&["pause", "agentkernel-paused"]).unwrap();
    assert_eq!(one.inspect().await.unwrap().state, State::Paused);
    assert!(!one.is_running().await.unwrap());

    // A new connection, and one that was there before: both at once, since the second takes its time.
    let other = daemon.backend().await.sandbox("paused".parse().unwrap());
    let begin = Instant::now();
    let (new, old, overdue) = tokio::join!(other.exec(&["true"]), one.exec(&["true"]), overdue.collect());
    for error in [new.unwrap_err(), old.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
        assert!(error.hint().unwrap().contains("unpause"), "{error:?}");
    }
    // Its guest stands still and cannot end it: we do not wait for ever.
    assert_eq!(overdue.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(begin.elapsed() < Duration::from_secs(35), "{:?}", begin.elapsed());
    assert_eq!(one.boot().await.unwrap_err().kind(), ErrorKind::Conflict);

    daemon.docker(&["unpause", "agentkernel-paused"]).unwrap();
    assert_eq!(waits.collect().await.unwrap().status.code(), 0);
    assert_eq!(one.exec(&["echo", "on"]).await.unwrap().stdout, "on\n");
    assert_eq!(other.exec(&["echo", "on"]).await.unwrap().stdout, "on\n");
    one.remove().await.unwrap();
    daemon.assert_nothing_is_left().await;
}

#[tokio::test]
async fn a_paused_sandbox_stops_and_goes_without_waiting_for_it() {
    let Some(daemon) = Daemon::start(Options::default()).await else { return };
    let backend = daemon.backend().await;
    for (name, config) in [("owned", owned()), ("detached", detached())] {
        let [halted, stopped, removed] = ["halted", "stopped", "removed"]
            .map(|how| backend.sandbox(format!("{name}-{how}").parse().unwrap()));
        for one in [&halted, &stopped, &removed] {
            one.start(&config).await.unwrap();
            daemon.docker(&["pause", &format!("agentkernel-{}", one.name())]).unwrap();
        }
        let begin = Instant::now();
        halted.halt(Duration::from_secs(5)).await.unwrap();
        stopped.stop().await.unwrap();
        removed.remove().await.unwrap();
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
        for one in [&halted, &stopped, &removed] {
            assert!(!one.is_running().await.unwrap());
            one.remove().await.unwrap();
        }
    }
    // An owner's death ends a paused one with the next reaping, at the latest.
    let dropped = backend.sandbox("dropped".parse().unwrap());
    dropped.start(&owned()).await.unwrap();
    daemon.docker(&["pause", "agentkernel-dropped"]).unwrap();
    drop(dropped);
    daemon.docker(&["unpause", "agentkernel-dropped"]).unwrap();
    daemon.assert_nothing_is_left().await;
}
