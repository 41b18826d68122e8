//! Streams that break: the connection to the guest, or the sandbox under it.
use std::{
    os::unix::net::{SocketAddr, UnixStream},
    time::Duration,
};

use agentkernel_core::{Backend, ErrorKind, ExecEvent, ExecOptions, ExecSpec, Replay, SandboxExt};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use tokio::io::AsyncReadExt;

use crate::{
    daemon::{Daemon, Options, until},
    detached, owned,
};

/// Breaks every connection of this process to a guest of the engine's, and returns how many there were.
fn cut(daemon: &Daemon) -> usize {
    let us = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    let of_engine = |address: Result<SocketAddr, _>| {
        let path = address.ok().and_then(|address: SocketAddr| address.as_pathname().map(ToOwned::to_owned));
        path.is_some_and(|path| {
            path.starts_with("/run/agentkernel") && path.to_string_lossy().contains(&daemon.key())
        })
    };
    let mut count = 0;
    for entry in std::fs::read_dir("/proc/self/fd").unwrap().flatten() {
        let is_socket =
            std::fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"));
        let number = entry.file_name().to_string_lossy().parse().unwrap();
        let copy = is_socket.then(|| pidfd_getfd(&us, number, PidfdGetfdFlags::empty()));
        let Some(Ok(copy)) = copy else { continue };
        let stream = UnixStream::from(copy);
        if of_engine(stream.peer_addr()) || of_engine(stream.local_addr()) {
            // A listener cannot be shut down both ways, and is none of ours to break.
            count += usize::from(stream.shutdown(std::net::Shutdown::Both).is_ok());
        }
    }
    count
}

fn script(script: &str) -> ExecSpec {
    ExecSpec::new(["sh", "-c", script], ExecOptions::default()).unwrap()
}

#[tokio::test]
async fn a_broken_connection_is_never_an_end_of_the_command() {
    let Some(daemon) = Daemon::start(Options::default()).await else { return };
    let backend = daemon.backend().await;
    let one = backend.sandbox("lost".parse().unwrap());
    one.start(&detached()).await.unwrap();
    one.exec(&["dd", "if=/dev/zero", "of=/tmp/large", "bs=1M", "count=8"]).await.unwrap();
    one.write_file("/tmp/file", b"old").await.unwrap();

    // What is under way: a command, a detached one, a file and a tree on their ways out, and a file on its way in.
    let mut command = one.spawn(&script("echo begun; sleep 100; echo never")).await.unwrap();
    assert!(matches!(command.next_event().await, Some(Ok(ExecEvent::Stdout(_)))));
    let waits = "echo begun; while ! [ -e /tmp/go ]; do sleep 0.1; done; echo ended; exit 9";
    let mut outlives = one.spawn(&script(waits).detached()).await.unwrap();
    assert!(matches!(outlives.next_event().await, Some(Ok(ExecEvent::Stdout(_)))));
    let id = outlives.id().clone();
    let mut file = one.open(&"/tmp/large".parse().unwrap()).await.unwrap();
    let mut tree = one.pack(&"/tmp".parse().unwrap()).await.unwrap();
    let (mut source, sink) = tokio::io::duplex(1024);
    let write = {
        let one = std::sync::Arc::clone(&one);
        tokio::spawn(async move {
            one.write(&"/tmp/file".parse().unwrap(), &Default::default(), &mut source).await
        })
    };
    let mut sink = sink;
    tokio::io::AsyncWriteExt::write_all(&mut sink, b"new, and more to come").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;

    assert_eq!(cut(&daemon), 1);
    for session in [command, outlives] {
        assert_eq!(session.collect().await.unwrap_err().kind(), ErrorKind::Disconnected);
    }
    for reader in [&mut file, &mut tree] {
        let error = reader.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(agentkernel_core::Error::from(error).kind(), ErrorKind::Disconnected);
    }
    drop(sink);
    assert_eq!(write.await.unwrap().unwrap_err().kind(), ErrorKind::Disconnected);

    // A client that comes anew, by another way and by the same, finds the truth.
    let other = daemon.backend().await.sandbox("lost".parse().unwrap());
    assert_eq!(other.read_file("/tmp/file").await.unwrap(), b"old");
    until("what was not detached is gone", async || {
        let commands = other.commands().await.unwrap();
        commands.iter().filter(|command| command.running).count() == 1
    })
    .await;
    let attached = other.attach(&id, Replay::Kept).await.unwrap();
    one.write_file("/tmp/go", b"").await.unwrap();
    let output = attached.collect().await.unwrap();
    assert_eq!((output.status.code(), &*output.stdout), (9, &b"begun\nended\n"[..]));
    // Also after its end, and again.
    let output = one.attach(&id, Replay::Kept).await.unwrap().collect().await.unwrap();
    assert_eq!((output.status.code(), &*output.stdout), (9, &b"begun\nended\n"[..]));
    one.remove().await.unwrap();
    daemon.assert_nothing_is_left().await;
}

#[tokio::test]
async fn a_sandbox_that_goes_under_a_command_is_never_an_end_of_the_command() {
    let Some(daemon) = Daemon::start(Options::default()).await else { return };
    let backend = daemon.backend().await;
    type Trouble = fn(&Daemon);
    let troubles: [(&str, Trouble); 4] = [
        ("lease", |daemon| assert_eq!(cut(daemon), 1)),
        ("kill", |daemon| drop(daemon.docker(&["kill", "agentkernel-kill"]).unwrap())),
        ("stop", |daemon| drop(daemon.docker(&["stop", "agentkernel-stop"]).unwrap())),
        ("remove", |daemon| drop(daemon.docker(&["rm", "--force", "agentkernel-remove"]).unwrap())),
    ];
    for (name, trouble) in troubles {
        let one = backend.sandbox(name.parse().unwrap());
        one.start(&owned()).await.unwrap();
        let mut session = one.spawn(&script("trap '' TERM; echo begun; sleep 100")).await.unwrap();
        assert!(matches!(session.next_event().await, Some(Ok(ExecEvent::Stdout(_)))), "{name}");
        trouble(&daemon);
        match session.collect().await {
            Err(error) => assert_eq!(error.kind(), ErrorKind::Disconnected, "{name}: {error:?}"),
            // The guest had time to end it, and to say how.
            Ok(output) => assert_eq!((name, output.status.code()), ("stop", 137)),
        }
        until("it is gone", async || !one.is_running().await.unwrap()).await;
        let error = one.exec(&["true"]).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotRunning), "{name}: {error:?}");
        one.stop().await.unwrap();
    }
    daemon.assert_nothing_is_left().await;
}
