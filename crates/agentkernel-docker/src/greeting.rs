//! Who listens on a socket: the first thing that is asked of an engine, and the cheapest.
use std::{io, time::Duration};

use bollard::BollardRequest;
use hyper::Request;
use tokio::time::timeout;

use crate::{
    EngineKind,
    address::{Address, Stream},
    transport,
};

/// Every answer of Podman's has this header, with its own version.
const LIBPOD: &str = "libpod-api-version";

/// Who listens on a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Greeting {
    /// What answered; `None` if nothing that can be read came in time.
    pub kind: Option<EngineKind>,
    /// The engine's version; only Podman tells it here.
    pub version: Option<String>,
    /// The process that listens, if it can be seen from here.
    pub listener: Option<Listener>,
}

/// Who listens on a unix socket (unix(7), `SO_PEERCRED`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listener {
    pub pid: i32,
    pub uid: u32,
}

/// Connects and asks for a sign of life (`/_ping`), which no engine thinks about.
///
/// # Errors
/// Only what connecting gives: an engine that accepts and stays silent is still one.
pub(crate) async fn greet(address: &Address, patience: Duration) -> io::Result<Greeting> {
    let (stream, listener) = address.connect().await?;
    let (kind, version) = timeout(patience, ask(stream)).await.ok().flatten().unzip();
    Ok(Greeting { kind, version: version.flatten(), listener })
}

async fn ask(stream: Box<dyn Stream>) -> Option<(EngineKind, Option<String>)> {
    let request: BollardRequest =
        Request::get("/_ping").body(bollard::body_full(bytes::Bytes::new())).ok()?;
    let response = transport::send_over(stream, request).await.ok()?;
    let Some(version) = response.headers().get(LIBPOD) else { return Some((EngineKind::Docker, None)) };
    let version = version.to_str().ok().filter(|version| version.len() <= 100);
    Some((EngineKind::Podman, version.map(str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixListener,
    };

    async fn greeting(answer: &'static [u8]) -> Greeting {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_buf(&mut Vec::with_capacity(4096)).await.unwrap();
            stream.write_all(answer).await.unwrap();
            stream
        };
        let address = Address::Unix(path);
        let (greeting, _) = tokio::join!(greet(&address, Duration::from_millis(200)), server);
        greeting.unwrap()
    }

    #[tokio::test]
    async fn podman_is_known_by_its_header_and_tells_its_version() {
        let podman =
            greeting(b"HTTP/1.1 200 OK\r\nLibpod-Api-Version: 4.3.1\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!((podman.kind, podman.version.as_deref()), (Some(EngineKind::Podman), Some("4.3.1")));
        let docker = greeting(b"HTTP/1.1 200 OK\r\nServer: Docker/20.10\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(docker.kind, Some(EngineKind::Docker));
    }

    #[tokio::test]
    async fn silence_and_nonsense_are_no_answer_and_the_peer_is_known() {
        for nothing in [&b""[..], b"\x00\xff\r\n\r\n"] {
            let greeting = greeting(nothing).await;
            let us = rustix::process::getuid().as_raw();
            assert_eq!((greeting.kind, greeting.listener.map(|listener| listener.uid)), (None, Some(us)));
        }
    }

    #[tokio::test]
    async fn a_socket_that_nobody_serves_is_an_error() {
        let gone = greet(&Address::Unix("/nonexistent/s".into()), Duration::from_secs(1)).await;
        assert_eq!(gone.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
