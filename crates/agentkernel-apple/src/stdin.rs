//! The stdin of a call: the caller's until the call is over, closed when dropped and when shut down.
use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use tokio::{io::AsyncWrite, process::ChildStdin};

/// Who may close it: the caller, or the call once the command has ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Input(Arc<Mutex<Option<ChildStdin>>>);

impl Input {
    pub(crate) fn new(stdin: Option<ChildStdin>) -> Self {
        Self(Arc::new(Mutex::new(stdin)))
    }

    pub(crate) fn close(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn with<T>(&self, use_it: impl FnOnce(Option<Pin<&mut ChildStdin>>) -> T) -> T {
        let mut stdin = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        use_it(stdin.as_mut().map(Pin::new))
    }
}

/// The caller's hold on it.
#[derive(Debug)]
pub(crate) struct Stdin(pub(crate) Input);

impl Stdin {
    pub(crate) fn new(stdin: ChildStdin) -> Self {
        Self(Input::new(Some(stdin)))
    }
}

impl Drop for Stdin {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl AsyncWrite for Stdin {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.with(|stdin| match stdin {
            Some(stdin) => stdin.poll_write(context, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        })
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.with(|stdin| stdin.map_or(Poll::Ready(Ok(())), |stdin| stdin.poll_flush(context)))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed =
            self.0.with(|stdin| stdin.map_or(Poll::Ready(Ok(())), |stdin| stdin.poll_flush(context)));
        if flushed.is_pending() {
            return Poll::Pending;
        }
        self.0.close();
        Poll::Ready(Ok(()))
    }
}
