//! A thread that writes, so that a reader who is slow or stopped holds back only the bytes, and never our signals.
//!
//! Our stdout may be shared with others: making it non-blocking would change it under them.
use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd},
    thread,
};

use bytes::Bytes;
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    stdio::{stderr, stdout},
};
use tokio::sync::{mpsc, oneshot};

/// How many chunks wait for the writer; with one in its hands, writing and receiving overlap.
const AHEAD: usize = 4;

/// Where a chunk goes.
#[derive(Debug)]
pub(crate) enum To {
    Stdout,
    Stderr,
    File(File),
}

/// The sending side. Dropping it lets the thread write what is left and end.
#[derive(Debug)]
pub(crate) struct Sink {
    chunks: Option<mpsc::Sender<(usize, Bytes)>>,
    done: oneshot::Receiver<io::Result<()>>,
}

impl Sink {
    /// Starts the thread; a chunk names its target by its place among `targets`.
    pub(crate) fn start(targets: Vec<To>) -> io::Result<Self> {
        let (chunks, mut queue) = mpsc::channel::<(usize, Bytes)>(AHEAD);
        let (ended, done) = oneshot::channel();
        thread::Builder::new().name("output".to_owned()).spawn(move || {
            let mut write = || {
                while let Some((target, bytes)) = queue.blocking_recv() {
                    match &targets[target] {
                        To::Stdout => write_all(stdout(), &bytes)?,
                        To::Stderr => write_all(stderr(), &bytes)?,
                        To::File(file) => (&mut &*file).write_all(&bytes)?,
                    }
                }
                Ok(())
            };
            let result = write();
            // Nobody waits any more when we are on our way out.
            let _gone = ended.send(result);
        })?;
        Ok(Self { chunks: Some(chunks), done })
    }

    /// Waits until a chunk can be put. Cancel-safe.
    pub(crate) async fn ready(&mut self) -> io::Result<()> {
        match &self.chunks {
            Some(chunks) if chunks.reserve().await.is_ok() => Ok(()),
            _ => self.finish().await,
        }
    }

    /// Puts a chunk, after [`ready`](Self::ready).
    pub(crate) fn put(&mut self, target: usize, bytes: Bytes) {
        if let Some(chunks) = &self.chunks {
            // Full cannot be after `ready`; a writer that failed is told by the next `ready`.
            let _failed = chunks.try_send((target, bytes));
        }
    }

    /// Waits until all is written. Cancel-safe.
    pub(crate) async fn finish(&mut self) -> io::Result<()> {
        self.chunks = None;
        (&mut self.done).await.unwrap_or_else(|_| Err(io::Error::other("the writer is gone")))
    }
}

/// Writes everything, also where someone else has made the descriptor non-blocking.
fn write_all(target: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(target, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                poll(&mut [PollFd::from_borrowed_fd(target.as_fd(), PollFlags::OUT)], None)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
