//! Who listens on a socket: the first thing that is asked of an engine, and the cheapest.
use std::{io, path::Path, time::Duration};

use bollard::BollardRequest;
use hyper::Request;
use tokio::{net::UnixStream, time::timeout};

use crate::{EngineKind, transport};

/// Every answer of Podman's has this header.
const LIBPOD: &str = "libpod-api-version";

/// Who listens on a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Greeting {
    /// What answered; `None` if nothing that can be read came in time.
    pub kind: Option<EngineKind>,
    /// The process that listens, if it can be seen from here (unix(7), `SO_PEERCRED`).
    pub pid: Option<i32>,
}

/// Connects and asks for a sign of life (`/_ping`), which no engine thinks about.
///
/// # Errors
/// Only what connecting gives: an engine that accepts and stays silent is still one.
pub(crate) async fn greet(socket: &Path, patience: Duration) -> io::Result<Greeting> {
    let stream = UnixStream::connect(socket).await?;
    let pid = stream.peer_cred()?.pid().filter(|pid| *pid > 0);
    let kind = timeout(patience, ask(stream)).await.ok().flatten();
    Ok(Greeting { kind, pid })
}

async fn ask(stream: UnixStream) -> Option<EngineKind> {
    let request: BollardRequest =
        Request::get("/_ping").body(bollard::body_full(bytes::Bytes::new())).ok()?;
    let response = transport::send_over(stream, request).await.ok()?;
    let is_podman = response.headers().contains_key(LIBPOD);
    Some(if is_podman { EngineKind::Podman } else { EngineKind::Docker })
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
        let (greeting, _) = tokio::join!(greet(&path, Duration::from_millis(200)), server);
        greeting.unwrap()
    }

    #[tokio::test]
    async fn podman_is_known_by_its_header() {
        let podman =
            greeting(b"HTTP/1.1 200 OK\r\nLibpod-Api-Version: 4.3.1\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(podman.kind, Some(EngineKind::Podman));
        let docker = greeting(b"HTTP/1.1 200 OK\r\nServer: Docker/20.10\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(docker.kind, Some(EngineKind::Docker));
    }

    #[tokio::test]
    async fn silence_and_nonsense_are_no_answer_and_the_peer_is_known() {
        for nothing in [&b""[..], b"\x00\xff\r\n\r\n"] {
            let greeting = greeting(nothing).await;
            assert_eq!((greeting.kind, greeting.pid.is_some()), (None, true));
        }
    }

    #[tokio::test]
    async fn a_socket_that_nobody_serves_is_an_error() {
        let gone = greet(Path::new("/nonexistent/s"), Duration::from_secs(1)).await;
        assert_eq!(gone.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
