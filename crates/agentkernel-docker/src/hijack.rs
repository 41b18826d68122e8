//! Connections to the engine that become streams of their own: a container's stdin, and a command of the engine's.
use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use agentkernel_core::{Error, ErrorKind, Result};
use bollard::{BollardRequest, errors::Error as EngineError};
use bytes::Bytes;
use hyper::{
    Request,
    header::{CONNECTION, CONTENT_TYPE, UPGRADE},
    upgrade::Upgraded,
};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncRead, ReadBuf};

use crate::{engine::Engine, id::ContainerId, transport};

/// The longest text that is kept of what a relay says on its stderr, in bytes.
const MAX_WORDS: usize = 512;

/// A stream that the engine has handed over.
pub(crate) type Hijacked = TokioIo<Upgraded>;

impl Engine {
    /// Attaches to the stdin of a container's first process. When the result is dropped, its stdin ends, if it was made
    /// so.
    pub(crate) async fn attach_stdin(&self, id: &ContainerId) -> Result<Hijacked> {
        let address = format!("/containers/{id}/attach?stream=1&stdin=1");
        self.ask("boot sandbox", self.hijack(&address, Bytes::new())).await
    }

    /// Starts a command of the engine's in a running container, with its stdin and its two outputs in one stream.
    pub(crate) async fn exec(&self, id: &ContainerId, argv: &[String], user: &str) -> Result<Hijacked> {
        let operation = "reach the sandbox";
        let options = bollard::models::ExecConfig {
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(false),
            cmd: Some(argv.to_vec()),
            user: Some(user.to_owned()),
            working_dir: Some("/".to_owned()),
            ..Default::default()
        };
        let made = self.ask(operation, self.docker().create_exec(id.as_str(), options)).await?;
        // Its form is a container id's.
        let exec = ContainerId::read(&made.id)?;
        let body = json!({"Detach": false, "Tty": false}).to_string();
        self.order(operation, self.hijack(&format!("/exec/{exec}/start"), body.into())).await
    }

    async fn hijack(&self, address: &str, body: Bytes) -> Result<Hijacked, EngineError> {
        let request: BollardRequest = Request::post(format!("http://docker{address}"))
            .header(CONTENT_TYPE, "application/json")
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "tcp")
            .body(bollard::body_full(body))?;
        let response = transport::send(self.endpoint().address.clone(), request).await?;
        let status_code = response.status().as_u16();
        if status_code == 101 {
            return Ok(TokioIo::new(hyper::upgrade::on(response).await?));
        }
        let text = transport::collect(response.into_body()).await?;
        let words = serde_json::from_slice::<serde_json::Value>(&text).ok();
        let message = words.and_then(|words| words["message"].as_str().map(str::to_owned));
        let message = message.unwrap_or_else(|| String::from_utf8_lossy(&text).into_owned());
        Err(EngineError::DockerResponseServerError { status_code, message })
    }
}

/// Takes apart what the engine sends of a command: frames of 8 bytes of header, each of one output. Nothing is kept but
/// the beginning of stderr.
pub(crate) struct Outputs<R> {
    from: R,
    header: [u8; 8],
    filled: usize,
    /// What is left of the frame, and whether it is stdout.
    left: u64,
    is_stdout: bool,
    words: Words,
}

/// What a command said on its stderr.
#[derive(Debug, Clone, Default)]
pub(crate) struct Words(Arc<Mutex<Vec<u8>>>);

impl Words {
    pub(crate) fn text(&self) -> String {
        let words = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&words);
        text.chars().map(|it| if it.is_control() { ' ' } else { it }).collect::<String>().trim().to_owned()
    }

    fn add(&self, bytes: &[u8]) {
        let mut words = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MAX_WORDS - words.len();
        words.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

impl<R> Outputs<R> {
    pub(crate) fn new(from: R) -> (Self, Words) {
        let words = Words::default();
        let outputs =
            Self { from, header: [0; 8], filled: 0, left: 0, is_stdout: true, words: words.clone() };
        (outputs, words)
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Outputs<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.left == 0 {
                let mut part = ReadBuf::new(&mut this.header[this.filled..]);
                ready!(Pin::new(&mut this.from).poll_read(context, &mut part))?;
                match (part.filled().len(), this.filled) {
                    (0, 0) => return Poll::Ready(Ok(())),
                    (0, _) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                    (count, _) => this.filled += count,
                }
                if this.filled < this.header.len() {
                    continue;
                }
                this.filled = 0;
                let [kind, _, _, _, length @ ..] = this.header;
                this.is_stdout = match kind {
                    1 => true,
                    2 => false,
                    _ => return Poll::Ready(Err(io::Error::other("the engine sent a frame of no output"))),
                };
                this.left = u64::from(u32::from_be_bytes(length));
                continue;
            }
            let most = usize::try_from(this.left).unwrap_or(usize::MAX);
            if this.is_stdout {
                let room = buffer.remaining().min(most);
                let mut part = ReadBuf::new(buffer.initialize_unfilled_to(room));
                ready!(Pin::new(&mut this.from).poll_read(context, &mut part))?;
                let count = part.filled().len();
                if count == 0 && room > 0 {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                buffer.advance(count);
                this.left -= count as u64;
                return Poll::Ready(Ok(()));
            }
            let mut words = [0; MAX_WORDS];
            let mut part = ReadBuf::new(&mut words[..most.min(MAX_WORDS)]);
            ready!(Pin::new(&mut this.from).poll_read(context, &mut part))?;
            let said = part.filled();
            if said.is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            this.left -= said.len() as u64;
            this.words.add(said);
        }
    }
}

/// Makes an error say what the relay said.
pub(crate) fn with_words(error: Error, words: &Words) -> Error {
    let text = words.text();
    if text.is_empty() || error.kind() == ErrorKind::Unsupported {
        error
    } else {
        error.with_context("relay", text)
    }
}
