//! A pipe in memory: 64 KiB, any number of readers and writers, end-of-file and broken as the kernel has them.
use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much it holds (pipe(7)).
pub(super) const CAPACITY: usize = 64 << 10;

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Bytes>,
    length: usize,
    readers: usize,
    writers: usize,
    wakers: Vec<Waker>,
}

type Shared = Arc<Mutex<State>>;

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wakes everybody who waits; called with the lock released.
fn wake(shared: &Shared) {
    let wakers = std::mem::take(&mut lock(shared).wakers);
    wakers.into_iter().for_each(Waker::wake);
}

/// Nobody reads any more.
#[derive(Debug)]
pub(super) struct Broken;

/// The end that gives.
#[derive(Debug)]
pub(super) struct PipeReader(Shared);

/// The end that takes.
#[derive(Debug)]
pub(super) struct PipeWriter(Shared);

/// Makes a pipe.
pub(super) fn pipe() -> (PipeReader, PipeWriter) {
    let shared = Shared::default();
    {
        let mut state = lock(&shared);
        (state.readers, state.writers) = (1, 1);
    }
    (PipeReader(Arc::clone(&shared)), PipeWriter(shared))
}

/// Makes a writer that nobody reads.
pub(super) fn broken() -> PipeWriter {
    pipe().1
}

impl PipeReader {
    /// Returns at most so many bytes, `None` at end-of-file.
    pub(super) fn poll_take(&self, context: &mut Context<'_>, most: usize) -> Poll<Option<Bytes>> {
        let mut state = lock(&self.0);
        let Some(front) = state.queue.front_mut() else {
            if state.writers == 0 {
                return Poll::Ready(None);
            }
            state.wakers.push(context.waker().clone());
            return Poll::Pending;
        };
        let taken = front.split_to(most.min(front.len()));
        if front.is_empty() {
            state.queue.pop_front();
        }
        state.length -= taken.len();
        drop(state);
        wake(&self.0);
        Poll::Ready(Some(taken))
    }

    pub(super) async fn take(&self, most: usize) -> Option<Bytes> {
        poll_fn(|context| self.poll_take(context, most)).await
    }
}

impl PipeWriter {
    /// Takes the front of the bytes; ready when all of them are taken.
    fn poll_give(&self, context: &mut Context<'_>, bytes: &mut Bytes) -> Poll<Result<(), Broken>> {
        let mut state = lock(&self.0);
        if state.readers == 0 {
            return Poll::Ready(Err(Broken));
        }
        let room = CAPACITY - state.length;
        if room == 0 {
            state.wakers.push(context.waker().clone());
            return Poll::Pending;
        }
        let taken = bytes.split_to(room.min(bytes.len()));
        state.length += taken.len();
        if !taken.is_empty() {
            state.queue.push_back(taken);
        }
        if !bytes.is_empty() {
            state.wakers.push(context.waker().clone());
        }
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        if bytes.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    pub(super) async fn give(&self, mut bytes: Bytes) -> Result<(), Broken> {
        poll_fn(|context| self.poll_give(context, &mut bytes)).await
    }
}

impl Clone for PipeReader {
    fn clone(&self) -> Self {
        lock(&self.0).readers += 1;
        Self(Arc::clone(&self.0))
    }
}

impl Clone for PipeWriter {
    fn clone(&self) -> Self {
        lock(&self.0).writers += 1;
        Self(Arc::clone(&self.0))
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        lock(&self.0).readers -= 1;
        wake(&self.0);
    }
}

impl Drop for PipeWriter {
    fn drop(&mut self) {
        lock(&self.0).writers -= 1;
        wake(&self.0);
    }
}

impl AsyncRead for PipeReader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_take(context, buffer.remaining()).map(|taken| {
            buffer.put_slice(&taken.unwrap_or_default());
            Ok(())
        })
    }
}

/// The end that takes, for callers: shutting it down closes it.
#[derive(Debug)]
pub(super) struct Input(pub(super) Option<PipeWriter>);

impl AsyncWrite for Input {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let Some(writer) = &self.0 else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        let length = buffer.len().min(CAPACITY);
        let mut bytes = Bytes::copy_from_slice(&buffer[..length]);
        match writer.poll_give(context, &mut bytes) {
            Poll::Ready(Err(Broken)) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            _ if bytes.len() < length || length == 0 => Poll::Ready(Ok(length - bytes.len())),
            _ => Poll::Pending,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0 = None;
        Poll::Ready(Ok(()))
    }
}
