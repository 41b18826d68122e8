//! An engine behind TLS: it works as any other, and whoever is not it is refused before it is told anything.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test says so by failing"
)]
#[path = "support/authority.rs"]
mod authority;
#[path = "support/guest.rs"]
mod guest;
#[path = "support/real.rs"]
mod real;
#[path = "support/tls_front.rs"]
mod tls_front;

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use agentkernel_core::{Backend, Error, ErrorKind, SandboxExt};
use agentkernel_docker::{DockerBackend, TlsFiles};
use authority::{Authority, put};
use real::{engine, name, sandbox};
use tempfile::TempDir;
use tls_front::Front;
use tokio_rustls::rustls::{
    SupportedProtocolVersion,
    version::{TLS12, TLS13},
};

const BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
const HOST: &str = "127.0.0.1";
const LONG: i32 = 4000;

/// An authority, and the files of a client of its.
fn ours() -> (Authority, TempDir) {
    let authority = Authority::new("ours");
    let files = tempfile::tempdir().unwrap();
    put(files.path(), &authority, &authority.issue("client", LONG));
    (authority, files)
}

async fn connect(address: &str, files: TlsFiles) -> Result<Arc<DockerBackend>, Error> {
    let config = guest::config().with_endpoint(format!("tcp://{address}")).with_tls(files);
    DockerBackend::connect(config).await
}

/// Tries to use the engine there.
async fn refused(address: &str, files: TlsFiles) -> Error {
    match connect(address, files).await {
        Ok(backend) => backend.health().await.unwrap_err(),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_sandbox_works_over_either_version_of_tls() {
    if engine().await.is_none() {
        return;
    }
    for version in BOTH {
        let (authority, files) = ours();
        let front = Front::start(&authority.issue(HOST, LONG), &authority, &[version]);
        let backend = connect(&front.address, TlsFiles::in_dir(files.path())).await.unwrap();
        let one = backend.sandbox(name("tls"));
        one.start(&sandbox()).await.unwrap();
        let told = one.exec(&["sh", "-c", "echo out; echo err >&2; exit 3"]).await.unwrap();
        assert_eq!((told.exit_code, &*told.stdout, &*told.stderr), (3, "out\n", "err\n"), "{version:?}");
        // More than any buffer between holds.
        let content = (0..5 << 20).map(|at| u8::try_from(at % 251).unwrap()).collect::<Vec<_>>();
        one.write_file("/tmp/big", &content).await.unwrap();
        assert!(one.read_file("/tmp/big").await.unwrap() == content, "{version:?}");
        one.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_sandbox_ends_when_its_owner_is_dropped() {
    if engine().await.is_none() {
        return;
    }
    let (authority, files) = ours();
    let front = Front::start(&authority.issue(HOST, LONG), &authority, &BOTH);
    let backend = connect(&front.address, TlsFiles::in_dir(files.path())).await.unwrap();
    let one = backend.sandbox(name("tls-dropped"));
    one.start(&sandbox()).await.unwrap();
    let reference = backend.sandbox(one.name().clone());
    assert_eq!(reference.exec(&["true"]).await.unwrap().exit_code, 0);
    drop(one);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !matches!(reference.inspect().await, Err(error) if error.kind() == ErrorKind::NotFound) {
        assert!(Instant::now() < deadline, "it does not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn whoever_is_not_the_engine_is_told_nothing() {
    let (authority, files) = ours();
    for (identity, words) in [
        (Authority::new("theirs").issue(HOST, LONG), "another authority"),
        // As an authority that was made anew is.
        (Authority::new("ours").issue(HOST, LONG), "another authority"),
        (authority.issue("localhost", LONG), "another name"),
        (authority.issue("127.0.0.2", LONG), "another name"),
        (authority.issue(HOST, 2001), "has expired"),
    ] {
        let front = Front::start(&identity, &authority, &BOTH);
        let error = refused(&front.address, TlsFiles::in_dir(files.path())).await;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{words}: {error:?}");
        assert!(error.message().contains(words) && error.hint().is_some(), "{words}: {error:?}");
        assert!(error.to_string().contains(&front.address), "{error}");
        assert_eq!(front.shaken(), 0, "{words}");
    }
}

#[tokio::test]
async fn a_port_without_tls_is_told_as_such() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _hello = stream.read(&mut [0; 4096]);
            let _closed = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
        }
    });
    let (_, files) = ours();
    let error = refused(&address, TlsFiles::in_dir(files.path())).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.message().contains("does not speak TLS"), "{error:?}");
    assert!(error.hint().unwrap().contains("DOCKER_TLS_VERIFY"), "{error:?}");
}

#[tokio::test]
async fn an_engine_that_does_not_accept_our_certificate_is_closed_to_us() {
    let (authority, files) = ours();
    let strangers = tempfile::tempdir().unwrap();
    put(strangers.path(), &authority, &Authority::new("theirs").issue("client", LONG));
    let late = tempfile::tempdir().unwrap();
    put(late.path(), &authority, &authority.issue("client", 2001));
    for version in BOTH {
        let front = Front::start(&authority.issue(HOST, LONG), &authority, &[version]);
        for (files, which) in [
            (TlsFiles::new(files.path().join("ca.pem")), "none"),
            (TlsFiles::in_dir(strangers.path()), "a stranger's"),
            (TlsFiles::in_dir(late.path()), "one that has expired"),
        ] {
            let error = refused(&front.address, files).await;
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{version:?}, {which}: {error:?}");
            assert!(error.hint().unwrap().contains("cert.pem"), "{error:?}");
        }
        assert_eq!(front.shaken(), 0);
    }
}

#[tokio::test]
async fn files_that_are_missing_broken_or_do_not_fit_are_named() {
    let (authority, files) = ours();
    let other = authority.issue("other", LONG);
    let path = |name: &str| files.path().join(name);
    let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    for (name, content, words) in [
        ("key.pem", Some(&*other.key), "does not fit"),
        ("key.pem", Some(locked), "no key"),
        ("key.pem", None, "no such file"),
        ("cert.pem", None, "no such file"),
        ("cert.pem", Some("nonsense"), "no certificate"),
        ("ca.pem", Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "cannot be read"),
        ("ca.pem", Some("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"), "not PEM"),
        ("ca.pem", None, "no such file"),
    ] {
        put(files.path(), &authority, &authority.issue("client", LONG));
        match content {
            Some(content) => fs::write(path(name), content).unwrap(),
            None => fs::remove_file(path(name)).unwrap(),
        }
        let error = connect("127.0.0.1:1", TlsFiles::in_dir(files.path())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{name}: {error:?}");
        assert!(error.message().contains(words), "{name}: {error:?}");
        assert!(error.to_string().contains(path(name).to_str().unwrap()), "{name}: {error}");
        assert!(error.hint().is_some(), "{name}");
    }
}

#[tokio::test]
async fn no_certificate_of_ours_need_be_there_unless_it_was_named() {
    let (authority, _) = ours();
    let neither = tempfile::tempdir().unwrap();
    fs::write(neither.path().join("ca.pem"), &authority.certificate).unwrap();
    assert!(connect("127.0.0.1:1", TlsFiles::in_dir(neither.path())).await.is_ok());
    let (certificate, key) = (neither.path().join("cert.pem"), neither.path().join("key.pem"));
    let named = TlsFiles::new(neither.path().join("ca.pem")).with_client(certificate, key);
    assert_eq!(connect("127.0.0.1:1", named).await.unwrap_err().kind(), ErrorKind::InvalidConfig);
}
