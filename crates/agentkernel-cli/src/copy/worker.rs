//! A thread for work on the host's files. When its waiter is called off, the thread is waited for, so that it can undo
//! what is half done before the process ends.
use std::{io, thread};

use agentkernel_core::{Error, ErrorKind, Result};
use tokio::sync::oneshot;

#[derive(Debug)]
pub(crate) struct Worker<T> {
    result: oneshot::Receiver<Result<T>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl<T: Send + 'static> Worker<T> {
    /// Starts the work. Keep the worker before the channel it works on, so that the channel is closed first.
    pub(crate) fn start(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<Self> {
        let (done, result) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("files".to_owned())
            .spawn(move || {
                // Nobody waits any more when we are on our way out.
                let _gone = done.send(work());
            })
            .map_err(|error| {
                Error::new(ErrorKind::ResourceExhausted, "start", "there is no room for a thread")
                    .with_source(error)
            })?;
        Ok(Self { result, thread: Some(thread) })
    }

    /// Waits for the result.
    pub(crate) async fn finish(mut self) -> Result<T> {
        (&mut self.result).await.unwrap_or_else(|_| {
            Err(Error::unexpected(
                "copy",
                "the work on the host's files broke off",
                io::Error::other("panic"),
            ))
        })
    }
}

impl<T> Drop for Worker<T> {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // A panic was told by its hook.
            let _panicked = thread.join();
        }
    }
}
