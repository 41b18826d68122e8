//! A channel's two directions as byte streams.
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use agentkernel_guest::protocol::{FromGuest, ToGuest};
use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    channel::{Channel, Frame},
    failure,
};

/// What says that all was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Only that the request was done: a file that breaks off is no shorter file.
    Done,
    /// That the other side of a connection sends no more, too.
    HalfClose,
}

/// Bytes from inside.
pub(crate) struct ChannelReader {
    channel: Arc<Channel>,
    operation: &'static str,
    end: End,
    current: Bytes,
    ended: bool,
}

impl ChannelReader {
    pub(crate) fn new(channel: Arc<Channel>, operation: &'static str, end: End) -> Self {
        Self { channel, operation, end, current: Bytes::new(), ended: false }
    }
}

impl AsyncRead for ChannelReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.current.is_empty() && !self.ended {
            let error = match ready!(self.channel.poll_next(context)) {
                Ok(Frame::Stdout(bytes)) => {
                    self.current = bytes;
                    continue;
                }
                Ok(Frame::Other(FromGuest::Done)) => {
                    self.ended = true;
                    continue;
                }
                Ok(Frame::Other(FromGuest::Eof)) if self.end == End::HalfClose => {
                    self.ended = true;
                    continue;
                }
                Ok(Frame::Other(FromGuest::Failed(failed))) => failure::refused(self.operation, &failed),
                Ok(_) => failure::out_of_place(self.operation),
                Err(error) => error.with_operation(self.operation),
            };
            return Poll::Ready(Err(error.into()));
        }
        let count = self.current.len().min(buffer.remaining());
        buffer.put_slice(self.current.get(..count).unwrap_or_default());
        self.current.advance(count);
        Poll::Ready(Ok(()))
    }
}

/// Bytes to the inside. Shutting it down or dropping it is end-of-file, once; a channel that ended takes no more.
pub(crate) struct ChannelWriter {
    channel: Arc<Channel>,
    ended: bool,
}

impl ChannelWriter {
    pub(crate) fn new(channel: Arc<Channel>) -> Self {
        Self { channel, ended: false }
    }

    fn end(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            self.channel.send(&ToGuest::Eof);
        }
    }
}

impl AsyncWrite for ChannelWriter {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.channel.poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end();
        Poll::Ready(Ok(()))
    }
}

impl Drop for ChannelWriter {
    fn drop(&mut self) {
        self.end();
    }
}
