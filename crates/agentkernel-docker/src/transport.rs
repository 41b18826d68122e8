//! One connection to the engine's socket per request, with a bound on what an answer may weigh.
use std::{
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bollard::{BollardRequest, errors::Error};
use hyper::{
    Response, Uri,
    body::{Body, Incoming},
    client::conn::http1,
    header::{HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::address::{Address, Stream};

/// The longest answer that is read, in bytes. Answers that are streams by nature have no bound: nothing of them is kept.
const MAX_ANSWER: u64 = 32 << 20;

/// Marks an error as one of connecting, before anything was sent.
#[derive(Debug)]
pub(crate) struct NotConnected(pub io::Error);

impl fmt::Display for NotConnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection was not made")
    }
}

impl std::error::Error for NotConnected {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// Sends one request over a connection of its own: cheap on this machine, and nothing is left of one that was dropped.
pub(crate) async fn send(address: Address, request: BollardRequest) -> Result<Response<Incoming>, Error> {
    let (stream, _) = address
        .connect()
        .await
        .map_err(|error| Error::IOError { err: io::Error::new(error.kind(), NotConnected(error)) })?;
    send_over(stream, request).await
}

/// Sends one request over a connection that was just made.
pub(crate) async fn send_over(
    stream: Box<dyn Stream>,
    mut request: BollardRequest,
) -> Result<Response<Incoming>, Error> {
    let path = request.uri().path();
    let endless = ["/wait", "/logs", "/attach", "/start"].iter().any(|end| path.ends_with(end))
        || matches!(path, "/images/create" | "/images/load");
    let left = if endless { u64::MAX } else { MAX_ANSWER };
    if let Some(path_and_query) = request.uri().path_and_query().cloned() {
        *request.uri_mut() = Uri::from(path_and_query);
    }
    request.headers_mut().insert(HOST, HeaderValue::from_static("docker"));
    let (mut sender, connection) = http1::handshake(TokioIo::new(Bounded { stream, left })).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "the connection to the engine ended");
        }
    });
    Ok(sender.send_request(request).await?)
}

/// Reads an answer to its end: its length is bounded by the connection's.
pub(crate) async fn collect(mut body: Incoming) -> Result<Vec<u8>, Error> {
    let mut all = Vec::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        if let Ok(data) = frame?.into_data() {
            all.extend_from_slice(&data);
        }
    }
    Ok(all)
}

/// A stream that fails after so many bytes were read.
struct Bounded {
    stream: Box<dyn Stream>,
    left: u64,
}

impl AsyncRead for Bounded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let read = (buffer.filled().len() - before) as u64;
        match self.left.checked_sub(read) {
            Some(left) => self.left = left,
            None => return Poll::Ready(Err(io::Error::other("the answer is longer than 32 MiB"))),
        }
        polled
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
