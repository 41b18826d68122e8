//! A file out: its content, and after it how it ended, without which it is no success.
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use agentkernel_core::{Error, Reader, Result, SandboxPath};
use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, ReadBuf},
    process::ChildStdout,
    time::{Instant, Sleep, sleep},
};

use super::{Place, Talk, fault, script, text};
use crate::error;

/// How much is read at once.
const CHUNK: usize = 64 << 10;

/// Opens a file. Nothing is lost however slow the reader is: the script ends when everything has been read.
pub(crate) async fn open(place: &Place, path: &SandboxPath) -> Result<Reader> {
    let mut talk = Talk::start(place, "open file", path, script::READ, &[&text(path)?])?;
    let told = talk.begin().await?;
    let (pid, size) = told.split_once(' ').ok_or_else(|| fault::garbled(talk.operation, path))?;
    talk.runs(pid, Duration::ZERO);
    let size = size.parse().map_err(|_| fault::garbled(talk.operation, path))?;
    let Some(stdout) = talk.stdout.take() else { return Err(fault::broken(talk.operation, path)) };
    let tail = Tail::new(&talk.nonce, size);
    let patience = Box::pin(sleep(talk.patience()));
    let buffer = vec![0; CHUNK];
    Ok(Box::pin(Content { talk, stdout, tail, buffer, patience, waits: false, is_over: false }))
}

/// The content on its way.
struct Content {
    talk: Talk,
    stdout: ChildStdout,
    tail: Tail,
    buffer: Vec<u8>,
    /// Runs out while it waits for the sandbox, not while the caller does something else.
    patience: Pin<Box<Sleep>>,
    waits: bool,
    is_over: bool,
}

impl AsyncRead for Content {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.tail.give(into) || this.is_over || into.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let mut chunk = ReadBuf::new(&mut this.buffer);
            match Pin::new(&mut this.stdout).poll_read(context, &mut chunk) {
                Poll::Ready(read) => read?,
                Poll::Pending => {
                    if !this.waits {
                        this.waits = true;
                        this.patience.as_mut().reset(Instant::now() + this.talk.patience());
                    }
                    ready!(this.patience.as_mut().poll(context));
                    return Poll::Ready(Err(error::timed_out(this.talk.operation).into()));
                }
            }
            this.waits = false;
            this.is_over = chunk.filled().is_empty() || this.tail.push(chunk.filled());
            if this.is_over {
                this.talk.over();
                if let Err(what) = this.tail.finish() {
                    return Poll::Ready(Err(this.fault(what).into()));
                }
            }
        }
    }
}

impl Content {
    fn fault(&self, what: Fault) -> Error {
        match what {
            Fault::Cut => fault::broken(self.talk.operation, &self.talk.path),
            Fault::Failed => {
                fault::refused(self.talk.operation, &self.talk.path, "the content could not be read")
            }
        }
    }
}

/// Why content is not whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Cut,
    Failed,
}

/// Keeps back the last bytes, which may be how it ended.
#[derive(Debug)]
struct Tail {
    nonce: Vec<u8>,
    held: BytesMut,
    given: u64,
    /// How long the file was when it was opened.
    size: u64,
    end: Option<(bool, u64)>,
}

impl Tail {
    fn new(nonce: &str, size: u64) -> Self {
        Self { nonce: nonce.as_bytes().to_vec(), held: BytesMut::new(), given: 0, size, end: None }
    }

    /// Takes bytes and returns whether they are the last.
    fn push(&mut self, bytes: &[u8]) -> bool {
        self.held.extend_from_slice(bytes);
        let at = self.held.len().saturating_sub(script::TRAILER);
        let last = self.held.get(at..).unwrap_or_default();
        self.end = trailer(last, &self.nonce);
        if self.end.is_some() {
            self.held.truncate(at);
        }
        self.end.is_some()
    }

    /// Gives what is content for sure, and returns whether that was anything.
    fn give(&mut self, into: &mut ReadBuf<'_>) -> bool {
        let kept = if self.end.is_some() { 0 } else { script::TRAILER };
        let length = self.held.len().saturating_sub(kept).min(into.remaining());
        into.put_slice(self.held.get(..length).unwrap_or_default());
        self.held.advance(length);
        self.given = self.given.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        length > 0
    }

    /// Says whether everything came. A file that is written to meanwhile has any length between the two, and one of
    /// `/proc` more than it says.
    fn finish(&self) -> Result<(), Fault> {
        let held = u64::try_from(self.held.len()).unwrap_or(u64::MAX);
        match self.end {
            Some((true, size)) if self.given.saturating_add(held) >= size.min(self.size) => Ok(()),
            Some((false, _)) => Err(Fault::Failed),
            _ => Err(Fault::Cut),
        }
    }
}

/// Reads whether all was read, and how long the file is then.
fn trailer(bytes: &[u8], nonce: &[u8]) -> Option<(bool, u64)> {
    let rest = bytes.strip_prefix(nonce).filter(|_| bytes.len() == script::TRAILER)?;
    let (code, size) = std::str::from_utf8(rest.strip_prefix(b" ")?).ok()?.split_once(' ')?;
    Some((code.parse::<u8>().ok()? == 0, size.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &str = "0123456789abcdef";

    fn through(content: &[u8], size: u64, end: &str, step: usize) -> (Vec<u8>, Result<(), Fault>) {
        let mut tail = Tail::new(NONCE, size);
        let (mut all, mut space) = (Vec::new(), [0; 7]);
        let whole = [content, end.as_bytes()].concat();
        for chunk in whole.chunks(step) {
            let is_over = tail.push(chunk);
            loop {
                let mut into = ReadBuf::new(&mut space);
                if !tail.give(&mut into) {
                    break;
                }
                all.extend_from_slice(into.filled());
            }
            if is_over {
                break;
            }
        }
        (all, tail.finish())
    }

    #[test]
    fn the_end_is_told_from_content_however_it_is_cut() {
        let end = format!("{NONCE} 000 00000000000000000005");
        for step in [1, 2, 40, 41, 42, 100] {
            let content = format!("{NONCE} 000 x").into_bytes();
            assert_eq!(through(&content, 5, &end, step), (content, Ok(())), "{step}");
        }
    }

    #[test]
    fn what_is_cut_or_failed_is_no_success() {
        let end = format!("{NONCE} 000 00000000000000000005");
        assert_eq!(through(b"1234", 5, &end, 100).1, Err(Fault::Cut));
        assert_eq!(through(b"12345", 5, "", 100).1, Err(Fault::Cut));
        let failed = format!("{NONCE} 001 00000000000000000005");
        assert_eq!(through(b"12345", 5, &failed, 100).1, Err(Fault::Failed));
        let shrunk = format!("{NONCE} 000 00000000000000000002");
        assert_eq!(through(b"123", 5, &shrunk, 100).1, Ok(()));
    }
}
