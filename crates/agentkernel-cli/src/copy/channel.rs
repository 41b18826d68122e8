//! Bytes between async code and a thread, with the end told: a side that goes away without it has failed.
use std::{
    io::{self, Read, Write},
    os::fd::AsFd,
    pin::Pin,
    task::{Context, Poll, ready},
};

use agentkernel_core::{Bytes, Error, Reader, Result};
use bytes::{Buf, BytesMut};
use rustix::{buffer::spare_capacity, io::retry_on_intr};
use tokio::{
    io::{AsyncRead, AsyncReadExt, ReadBuf},
    sync::mpsc,
};

const CHUNK: usize = 256 << 10;
const AHEAD: usize = 4;

/// Makes a channel. An empty chunk is the end.
pub(crate) fn channel() -> (mpsc::Sender<Bytes>, mpsc::Receiver<Bytes>) {
    mpsc::channel(AHEAD)
}

/// Sends all that a reader gives, then the end. A receiver that is gone has its own reason to tell.
pub(crate) async fn feed(mut reader: Reader, to: mpsc::Sender<Bytes>) -> Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        let is_end = reader.read_buf(&mut buffer).await.map_err(Error::from)? == 0;
        if to.send(buffer.split().freeze()).await.is_err() || is_end {
            return Ok(());
        }
    }
}

/// The receiving end for a thread.
#[derive(Debug)]
pub(crate) struct SyncReader {
    queue: mpsc::Receiver<Bytes>,
    current: Bytes,
    is_ended: bool,
}

impl SyncReader {
    pub(crate) fn new(queue: mpsc::Receiver<Bytes>) -> Self {
        Self { queue, current: Bytes::new(), is_ended: false }
    }
}

impl Read for SyncReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.current.is_empty() && !self.is_ended {
            self.current = self.queue.blocking_recv().ok_or_else(called_off)?;
            self.is_ended = self.current.is_empty();
        }
        let length = into.len().min(self.current.len());
        self.current.copy_to_slice(&mut into[..length]);
        Ok(length)
    }
}

/// The sending end for a thread.
#[derive(Debug)]
pub(crate) struct SyncWriter(pub(crate) mpsc::Sender<Bytes>);

impl SyncWriter {
    /// Tells that this was all.
    pub(crate) fn end(self) -> io::Result<()> {
        self.0.blocking_send(Bytes::new()).map_err(|_| called_off())
    }
}

/// Sends all that a file gives, then the end. A receiver that is gone has its own reason to tell.
pub(crate) fn send(file: impl AsFd, to: &SyncWriter) -> io::Result<()> {
    let mut is_end = false;
    while !is_end {
        let mut chunk = Vec::with_capacity(CHUNK);
        is_end = retry_on_intr(|| rustix::io::read(&file, spare_capacity(&mut chunk)))? == 0;
        if to.0.blocking_send(chunk.into()).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

impl Write for SyncWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !bytes.is_empty() {
            self.0.blocking_send(Bytes::copy_from_slice(bytes)).map_err(|_| called_off())?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The receiving end for async code.
#[derive(Debug)]
pub(crate) struct AsyncEnd {
    queue: mpsc::Receiver<Bytes>,
    current: Bytes,
    is_ended: bool,
}

impl AsyncEnd {
    pub(crate) fn new(queue: mpsc::Receiver<Bytes>) -> Self {
        Self { queue, current: Bytes::new(), is_ended: false }
    }
}

impl AsyncRead for AsyncEnd {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.current.is_empty() && !self.is_ended {
            self.current = ready!(self.queue.poll_recv(context)).ok_or_else(called_off)?;
            self.is_ended = self.current.is_empty();
        }
        let length = into.remaining().min(self.current.len());
        into.put_slice(&self.current.split_to(length));
        Poll::Ready(Ok(()))
    }
}

fn called_off() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the other side ended before its end")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_is_not_told_is_a_failure() {
        for (is_told, expected) in [(true, true), (false, false)] {
            let (sender, queue) = channel();
            let mut writer = SyncWriter(sender);
            writer.write_all(b"abc").unwrap();
            if is_told {
                writer.end().unwrap();
            } else {
                drop(writer);
            }
            let mut read = Vec::new();
            assert_eq!(SyncReader::new(queue).read_to_end(&mut read).is_ok(), expected);
            assert_eq!(read, b"abc");
        }
    }
}
