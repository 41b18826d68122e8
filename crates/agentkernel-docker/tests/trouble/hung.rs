//! An engine that accepts connections and never answers: its process is stopped.
use std::time::Duration;

use agentkernel_core::{Backend, ErrorKind, ExecOptions, Filter, ImageRef, LogOptions, Reap, SandboxExt};
use futures_util::StreamExt;

use crate::{
    daemon::{ASK, Daemon, ORDER, Options, until},
    detached, image, owned, times_out,
};

#[tokio::test]
async fn every_call_to_a_hung_engine_ends_with_its_deadline_and_commands_go_on() {
    let Some(daemon) = Daemon::start(Options::default()).await else { return };
    let backend = daemon.backend().await;
    let running = backend.sandbox("running".parse().unwrap());
    running.start(&owned()).await.unwrap();
    let stopped = backend.sandbox("stopped".parse().unwrap());
    stopped.start(&detached()).await.unwrap();
    stopped.halt(Duration::ZERO).await.unwrap();

    daemon.freeze();
    assert_eq!(running.exec(&["echo", "on"]).await.unwrap().stdout, "on\n");
    let other = daemon.backend().await;
    let reference = other.sandbox("running".parse().unwrap());
    assert_eq!(reference.exec(&["echo", "on"]).await.unwrap().stdout, "on\n");
    reference.write_file("/tmp/written", b"while it hung").await.unwrap();
    let options = ExecOptions::default().with_timeout(Duration::from_millis(200));
    assert_eq!(running.exec_with_options(&["sleep", "100"], options).await.unwrap().exit_code, 124);
    let images = backend.images().unwrap();
    let name: ImageRef = "agentkernel-new".parse().unwrap();
    let remote: ImageRef = "127.0.0.1:1/none".parse().unwrap();
    let all = Filter::default();
    let mut archive = &*image::with_ballast(1 << 20);
    tokio::join!(
        times_out("health", ASK, other.health()),
        times_out("list", ASK, backend.list(&all)),
        times_out("reap", ASK, backend.reap(Reap::Remove)),
        times_out("inspect", ASK, running.inspect()),
        times_out("is_running", ASK, stopped.is_running()),
        times_out("boot", ASK, stopped.boot()),
        times_out("halt", ASK, running.halt(Duration::ZERO)),
        times_out("stop", ASK, running.stop()),
        times_out("logs", ASK, async { stopped.logs(&LogOptions::default()).await.map(drop) }),
        times_out("list images", ASK, images.list()),
        times_out("inspect image", ASK, images.inspect(&name)),
        times_out("remove image", ORDER, images.remove(&name)),
        times_out("commit", ORDER, images.commit(running.name(), &name)),
        times_out("import", ORDER, images.import(&mut archive, &name)),
        times_out("pull", ORDER, async { images.pull(&remote).await?.next().await.unwrap() }),
        times_out("list volumes", ASK, backend.volumes().unwrap().list()),
    );
    assert_eq!(running.exec(&["echo", "on"]).await.unwrap().stdout, "on\n");

    daemon.thaw();
    until("it answers", async || backend.list(&Filter::default()).await.is_ok()).await;
    assert_eq!(running.read_file("/tmp/written").await.unwrap(), b"while it hung");
    assert!(running.is_running().await.unwrap());
    running.stop().await.unwrap();
    stopped.boot().await.unwrap();
    assert_eq!(stopped.exec(&["echo", "again"]).await.unwrap().stdout, "again\n");
    stopped.remove().await.unwrap();
    daemon.assert_nothing_is_left().await;
}

/// What a hung engine was told it does later: nobody waits for it any more, and it must not stay.
#[tokio::test]
async fn what_was_begun_with_an_engine_that_hung_is_not_left_half_made() {
    let Some(daemon) = Daemon::start(Options::default()).await else { return };
    let backend = daemon.backend().await;
    backend.health().await.unwrap();
    let handles = |kind: &str| {
        ["create", "boot", "remove"].map(|name| backend.sandbox(format!("{kind}-{name}").parse().unwrap()))
    };
    let both = [("owned", owned()), ("detached", detached())].map(|(kind, config)| (handles(kind), config));
    let mut specs = Vec::new();
    for ([_, boot, remove], config) in &both {
        let spec = config.resolve(boot.capabilities().await.unwrap(), boot.host()).unwrap();
        boot.create(&spec).await.unwrap();
        specs.push(spec);
        remove.start(config).await.unwrap();
    }

    daemon.freeze();
    let attempts = both.iter().zip(&specs).map(async |(([create, boot, remove], _), spec)| {
        tokio::join!(
            times_out("create", ORDER, create.create(spec)),
            // With the attempt to clean up.
            times_out("boot", ORDER * 2, boot.boot()),
            times_out("remove", ORDER, remove.remove()),
        );
    });
    futures_util::future::join_all(attempts).await;

    daemon.thaw();
    // Every handle is still held: it is no owner's death that cleans up.
    until("nothing is left", async || daemon.containers().is_empty()).await;
    for (handles, config) in &both {
        for one in handles {
            assert_eq!(one.inspect().await.unwrap_err().kind(), ErrorKind::NotFound);
        }
        // The name is free.
        handles[0].start(config).await.unwrap();
        handles[0].remove().await.unwrap();
    }
    daemon.assert_nothing_is_left().await;
}
