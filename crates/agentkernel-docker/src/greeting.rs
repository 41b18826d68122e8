//! Who listens on a socket: the first thing that is asked of an engine, and the cheapest.
use std::{io, path::Path, time::Duration};

use bollard::BollardRequest;
use hyper::{HeaderMap, Request};
use tokio::{net::UnixStream, time::timeout};

use crate::{EngineKind, transport};

/// Every answer of Podman's has this header, with its own version.
const LIBPOD: &str = "libpod-api-version";

/// Who listens on a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Greeting {
    /// What answered; `None` if nothing that can be read came in time.
    pub answer: Option<Answer>,
    /// The user of the process that listens (unix(7), `SO_PEERCRED`).
    pub uid: u32,
    /// That process, if it can be seen from here.
    pub pid: Option<i32>,
}

/// What an engine says of itself in every answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub kind: EngineKind,
    /// The engine's version; only Podman tells it here.
    pub version: Option<String>,
}

/// Connects and asks for a sign of life (`/_ping`), which no engine thinks about.
///
/// # Errors
/// Only what connecting gives: an engine that accepts and stays silent is still one.
pub(crate) async fn greet(socket: &Path, patience: Duration) -> io::Result<Greeting> {
    let stream = UnixStream::connect(socket).await?;
    let peer = stream.peer_cred()?;
    let answer = timeout(patience, ask(stream)).await.ok().flatten();
    Ok(Greeting { answer, uid: peer.uid(), pid: peer.pid().filter(|pid| *pid > 0) })
}

async fn ask(stream: UnixStream) -> Option<Answer> {
    let request: BollardRequest =
        Request::get("/_ping").body(bollard::body_full(bytes::Bytes::new())).ok()?;
    let response = transport::send_over(stream, request).await.ok()?;
    Some(read(response.headers()))
}

fn read(headers: &HeaderMap) -> Answer {
    match headers.get(LIBPOD) {
        None => Answer { kind: EngineKind::Docker, version: None },
        Some(version) => {
            let version = version.to_str().ok().filter(|version| version.len() <= 100);
            Answer { kind: EngineKind::Podman, version: version.map(str::to_owned) }
        }
    }
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
    async fn podman_is_known_by_its_header_and_tells_its_version() {
        let podman =
            greeting(b"HTTP/1.1 200 OK\r\nLibpod-Api-Version: 4.3.1\r\nContent-Length: 0\r\n\r\n").await;
        let version = Some("4.3.1".to_owned());
        assert_eq!(podman.answer, Some(Answer { kind: EngineKind::Podman, version }));
        let docker = greeting(b"HTTP/1.1 200 OK\r\nServer: Docker/20.10\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(docker.answer, Some(Answer { kind: EngineKind::Docker, version: None }));
    }

    #[tokio::test]
    async fn silence_and_nonsense_are_no_answer_and_the_peer_is_known() {
        for nothing in [&b""[..], b"\x00\xff\r\n\r\n"] {
            let greeting = greeting(nothing).await;
            assert_eq!((greeting.answer, greeting.uid), (None, rustix::process::getuid().as_raw()));
            assert!(greeting.pid.is_some());
        }
    }

    #[tokio::test]
    async fn a_socket_that_nobody_serves_is_an_error() {
        let gone = greet(Path::new("/nonexistent/s"), Duration::from_secs(1)).await;
        assert_eq!(gone.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
