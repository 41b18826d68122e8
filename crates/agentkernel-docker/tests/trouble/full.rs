//! An engine whose disk is full.
use std::process::{Child, Command, Stdio};

use agentkernel_core::{Backend, ErrorKind, Filter, ImageRef, SandboxExt};
use futures_util::StreamExt;

use crate::{
    daemon::{Daemon, Options, until},
    detached, image, owned,
};

/// Larger than what is left on the disk when images come, in bytes.
const BALLAST: usize = 24 << 20;

#[tokio::test]
async fn a_full_disk_is_told_as_such_and_nothing_half_made_stays() {
    let Some(daemon) = Daemon::start(Options { disk: 48, ..Options::default() }).await else { return };
    let backend = daemon.backend().await;
    let one = backend.sandbox("full".parse().unwrap());
    one.start(&detached()).await.unwrap();
    one.write_file("/tmp/file", b"old").await.unwrap();
    one.exec(&["dd", "if=/dev/zero", "of=/tmp/large", "bs=1M", "count=8"]).await.unwrap();
    let stopped = backend.sandbox("stopped".parse().unwrap());
    stopped.start(&detached()).await.unwrap();
    stopped.halt(std::time::Duration::ZERO).await.unwrap();
    let images = backend.images().unwrap();
    let name: ImageRef = "agentkernel-new".parse().unwrap();
    let before = images.list().await.unwrap();

    // No room for an image: what of it came is gone again, so that there is as much room as before.
    let mut archive = image::with_ballast(2 * BALLAST);
    for _ in 0..2 {
        let error = images.import(&mut archive.as_slice(), &name).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "import: {error:?}");
        assert!(error.hint().is_some(), "import: {error:?}");
    }
    archive.clear();

    daemon.fill();
    let new = backend.sandbox("new".parse().unwrap());
    for config in [owned(), detached()] {
        let error = new.start(&config).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "start: {error:?}");
        assert_eq!(new.inspect().await.unwrap_err().kind(), ErrorKind::NotFound);
    }
    let error = images.commit(one.name(), &name).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "commit: {error:?}");
    let error = one.write_file("/tmp/file", &[b'n'; 1 << 20]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "write: {error:?}");
    assert_eq!(one.read_file("/tmp/file").await.unwrap(), b"old");
    let error = one.unpack(&"/tmp/tree".parse().unwrap(), &mut image::root().as_slice()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "unpack: {error:?}");
    // What runs goes on, and what is to go goes.
    assert_eq!(one.exec(&["echo", "on"]).await.unwrap().stdout, "on\n");
    assert_eq!(images.list().await.unwrap(), before);
    let mut names = backend.list(&Filter::default()).await.unwrap();
    names.retain(|info| !["full", "stopped"].contains(&&*info.name));
    assert!(names.is_empty(), "{names:?}");
    stopped.remove().await.unwrap();

    daemon.empty();
    one.write_file("/tmp/file", b"new").await.unwrap();
    new.start(&owned()).await.unwrap();
    new.stop().await.unwrap();
    images.commit(one.name(), &name).await.unwrap();
    images.remove(&name).await.unwrap();
    one.remove().await.unwrap();
    daemon.assert_nothing_is_left().await;
}

/// A registry in the engine's network, which has loopback only.
struct Registry {
    child: Child,
    _dir: tempfile::TempDir,
}

impl Registry {
    fn start(daemon: &Daemon) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"127.0.0.1:5000\"}}\n",
            dir.path().join("data").display()
        );
        let file = dir.path().join("config.yml");
        std::fs::write(&file, config).unwrap();
        if Command::new("docker-registry").arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!("skipped: docker-registry is not installed (apt-get install docker-registry)");
            return None;
        }
        let mut command = daemon.inside("docker-registry");
        command.arg("serve").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        Some(Self { child: command.spawn().unwrap(), _dir: dir })
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It ends with the engine's namespaces; this ends our wait for it.
        let _dead = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[tokio::test]
async fn a_pull_onto_a_full_disk_is_told_as_such_and_leaves_nothing() {
    let Some(daemon) = Daemon::start(Options { disk: 96, ..Options::default() }).await else { return };
    let Some(_registry) = Registry::start(&daemon) else { return };
    let backend = daemon.backend().await;
    let images = backend.images().unwrap();
    let remote: ImageRef = "127.0.0.1:5000/large:1".parse().unwrap();
    images.import(&mut image::with_ballast(BALLAST).as_slice(), &remote).await.unwrap();
    until("it is pushed", async || daemon.docker(&["push", remote.as_str()]).is_ok()).await;
    images.remove(&remote).await.unwrap();
    let before = images.list().await.unwrap();

    daemon.fill();
    let last = images.pull(&remote).await.unwrap().collect::<Vec<_>>().await.pop().unwrap();
    let error = last.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error:?}");
    assert!(error.hint().is_some(), "{error:?}");
    assert_eq!(images.list().await.unwrap(), before);

    daemon.empty();
    let last = images.pull(&remote).await.unwrap().collect::<Vec<_>>().await.pop().unwrap();
    last.unwrap();
}
