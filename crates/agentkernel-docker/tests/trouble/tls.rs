//! An engine that speaks TLS itself, which is Go's and not ours.
use std::{
    fs::File,
    io,
    net::{Shutdown, TcpListener, TcpStream},
    os::fd::AsFd,
    path::Path,
    sync::Arc,
    thread,
};

use agentkernel_core::{Backend, Error, ErrorKind, SandboxExt};
use agentkernel_docker::{DockerBackend, DockerConfig, TlsFiles};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

use crate::{
    authority::{Authority, put},
    daemon::{Daemon, Options, until},
    guest, owned,
};

/// An engine with a port for TLS, the authority of its certificate and of its clients', and the port as it is reached from
/// here.
async fn engine() -> Option<(Daemon, Authority, String)> {
    let mut daemon = Daemon::start(Options::default()).await?;
    let authority = Authority::new("ours");
    daemon.kill();
    daemon.speak_tls(|files| put(files, &authority, &authority.issue("127.0.0.1", 4000)));
    daemon.run();
    let address = daemon.reach(2376);
    Some((daemon, authority, address))
}

fn client(authority: &Authority, signed_by: &Authority) -> TempDir {
    let files = tempfile::tempdir().unwrap();
    put(files.path(), authority, &signed_by.issue("client", 4000));
    files
}

fn config(address: &str, files: &Path) -> DockerConfig {
    guest::config().with_endpoint(format!("https://{address}")).with_tls(TlsFiles::in_dir(files))
}

async fn refused(config: DockerConfig) -> Error {
    DockerBackend::connect(config).await.unwrap().health().await.unwrap_err()
}

#[tokio::test]
async fn a_sandbox_works_and_ends_with_its_owner() {
    let Some((_daemon, authority, address)) = engine().await else { return };
    let files = client(&authority, &authority);
    let backend: Arc<dyn Backend> = DockerBackend::connect(config(&address, files.path())).await.unwrap();
    let one = backend.sandbox("tls".parse().unwrap());
    one.start(&owned()).await.unwrap();
    let told = one.exec(&["sh", "-c", "echo out; echo err >&2; exit 3"]).await.unwrap();
    assert_eq!((told.exit_code, &*told.stdout, &*told.stderr), (3, "out\n", "err\n"));
    let content = vec![b'x'; 5 << 20];
    one.write_file("/tmp/big", &content).await.unwrap();
    assert!(one.read_file("/tmp/big").await.unwrap() == content);
    let reference = backend.sandbox(one.name().clone());
    assert_eq!(reference.exec(&["true"]).await.unwrap().exit_code, 0);
    drop(one);
    until(
        "the sandbox is gone",
        async || matches!(reference.inspect().await, Err(error) if error.kind() == ErrorKind::NotFound),
    )
    .await;
}

#[tokio::test]
async fn a_certificate_of_a_stranger_and_none_are_refused_by_the_engine() {
    let Some((_daemon, authority, address)) = engine().await else { return };
    let stranger = client(&authority, &Authority::new("theirs"));
    let error = refused(config(&address, stranger.path())).await;
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    let none = TlsFiles::new(stranger.path().join("ca.pem"));
    let error = refused(config(&address, stranger.path()).with_tls(none)).await;
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
}

#[tokio::test]
async fn without_tls_the_engine_says_that_it_wants_it() {
    let Some((_daemon, _, address)) = engine().await else { return };
    let error = refused(guest::config().with_endpoint(format!("tcp://{address}"))).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.hint().unwrap().contains("DOCKER_TLS_VERIFY"), "{error:?}");
}

impl Daemon {
    /// Listens on this machine's loopback for a port of the engine's, until the process ends.
    fn reach(&self, port: u16) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let network = File::open(self.network()).unwrap();
        thread::spawn(move || {
            // What this thread opens from here on is in the engine's network; the listener stays in ours.
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            for stream in listener.incoming().flatten() {
                let Ok(engine) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let (from, to) = (stream.try_clone().unwrap(), engine.try_clone().unwrap());
                thread::spawn(move || carry(from, to));
                thread::spawn(move || carry(engine, stream));
            }
        });
        address
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    let _ended = io::copy(&mut from, &mut to);
    let _closed = to.shutdown(Shutdown::Write);
}
