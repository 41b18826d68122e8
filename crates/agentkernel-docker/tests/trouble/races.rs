//! Several that remove, stop and start one sandbox at once, the engine's own removal among them.
use std::{sync::Arc, time::Duration};

use agentkernel_core::{Backend, Error, ErrorKind, ExecOptions, ExecSpec, Sandbox, SandboxExt};

use crate::{
    daemon::{Daemon, Options},
    detached, owned,
};

/// How often each race is run.
const ROUNDS: u64 = 6;

/// Asserts that a call succeeded, or found nothing.
fn fine<T>(what: &str, result: Result<T, Error>) {
    if let Err(error) = result {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{what}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_loses_a_race_of_removals_hears_of_success_or_of_nothing_there() {
    let Some(daemon) = Daemon::start(Options::default()).await else { return };
    let backend = daemon.backend().await;
    for (kind, config) in [("owned", owned()), ("detached", detached())] {
        for round in 0..ROUNDS {
            let name = format!("{kind}-{round}");
            let handle = || backend.sandbox(name.parse().unwrap());
            let one = handle();
            one.start(&config).await.unwrap();
            let (two, three) = (handle(), handle());
            two.inspect().await.unwrap();
            let outside = tokio::task::spawn_blocking({
                let (endpoint, full) = (daemon.endpoint(), format!("agentkernel-{name}"));
                move || {
                    std::process::Command::new("docker")
                        .args(["--host", &endpoint, "rm", "--force", &full])
                        .output()
                }
            });
            let (first, second, halted, third) =
                tokio::join!(one.remove(), two.remove(), three.halt(Duration::ZERO), two.stop());
            // Removing an absent one succeeds, whoever removed it.
            first.unwrap();
            second.unwrap();
            fine("halt", halted);
            third.unwrap();
            outside.await.unwrap().unwrap();
            fine("inspect", one.inspect().await);
            one.remove().await.unwrap();
        }
    }
    daemon.assert_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_loses_to_a_removal_finds_nothing_there() {
    let Some(daemon) = Daemon::start(Options::default()).await else { return };
    let backend = daemon.backend().await;
    for (kind, config) in [("owned", owned()), ("detached", detached())] {
        for round in 0..ROUNDS {
            let one: Arc<dyn Sandbox> = backend.sandbox(format!("{kind}-{round}").parse().unwrap());
            let spec = config.resolve(one.capabilities().await.unwrap(), one.host()).unwrap();
            one.create(&spec).await.unwrap();
            let other = backend.sandbox(one.name().clone());
            let late = async {
                tokio::time::sleep(Duration::from_millis(round * 25)).await;
                other.remove().await
            };
            let (booted, removed) = tokio::join!(one.boot(), late);
            removed.unwrap();
            match booted {
                // It began, and who ended it cannot be told: the engine removes by itself what ends.
                Err(error) if kind == "owned" && error.kind() == ErrorKind::Disconnected => {}
                booted => fine("boot", booted),
            }
            assert_eq!(one.inspect().await.unwrap_err().kind(), ErrorKind::NotFound);
            assert_eq!(one.exec(&["true"]).await.unwrap_err().kind(), ErrorKind::NotFound);
        }
    }
    // A stopped one that is booted again.
    for round in 0..ROUNDS {
        let one = backend.sandbox(format!("again-{round}").parse().unwrap());
        one.start(&detached()).await.unwrap();
        one.halt(Duration::ZERO).await.unwrap();
        let other = backend.sandbox(one.name().clone());
        let late = async {
            tokio::time::sleep(Duration::from_millis(round * 25)).await;
            other.remove().await
        };
        let (booted, removed) = tokio::join!(one.boot(), late);
        removed.unwrap();
        fine("boot again", booted);
        assert_eq!(one.inspect().await.unwrap_err().kind(), ErrorKind::NotFound);
    }
    daemon.assert_nothing_is_left().await;
}

/// The engine removes an owned sandbox by itself once its first process has ended.
#[tokio::test(flavor = "multi_thread")]
async fn the_engines_own_removal_is_no_error_of_a_stop() {
    let Some(daemon) = Daemon::start(Options::default()).await else { return };
    let backend = daemon.backend().await;
    for round in 0..ROUNDS * 2 {
        let one = backend.sandbox("itself".parse().unwrap());
        // The name is free again as soon as the last one is gone.
        let main = ExecSpec::new(["sh", "-c", "exit 3"], ExecOptions::default()).unwrap();
        let session = one.run(&owned(), main).await.unwrap();
        assert_eq!(session.collect().await.unwrap().status.code(), 3);
        tokio::time::sleep(Duration::from_millis(round * 5)).await;
        match round % 4 {
            0 => one.stop().await.unwrap(),
            1 => one.remove().await.unwrap(),
            2 => fine("halt", one.halt(Duration::ZERO).await),
            _ => fine("inspect", one.inspect().await),
        }
    }
    daemon.assert_nothing_is_left().await;
}
