//! A tree out: what the script tells of it, made an archive here.
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use agentkernel_core::{Error, ErrorKind, Reader, Result, SandboxPath};
use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader, ReadBuf},
    process::ChildStdout,
    sync::mpsc,
    time::timeout,
};

use super::{
    Place, Talk,
    archive::{BLOCK, Entry, Kind, headers, padding},
    fault, script, split,
};
use crate::error;

/// How much goes at once.
const CHUNK: usize = 64 << 10;
/// The longest line of numbers.
const MAX_LINE: u64 = 96;
/// The longest name, target or failure.
const MAX_NAME: u64 = 8 << 10;

type Sender = mpsc::Sender<Result<Bytes>>;

/// Packs a tree. Nothing is lost however slow the reader is: the script ends when everything has been read.
pub(super) async fn pack(place: &Place, path: &SandboxPath) -> Result<Reader> {
    let (parent, name) = split(path)?;
    let name = if name.is_empty() { ".".to_owned() } else { name };
    let mut talk = Talk::start(place, "pack tree", path, script::GIVE, &[&parent, &name])?;
    let pid = talk.begin().await?;
    talk.runs(&pid, Duration::ZERO);
    let stdout = talk.stdout.take().ok_or_else(|| fault::broken(talk.operation, path))?;
    let (sender, receiver) = mpsc::channel(4);
    let records = Records { talk, stdout: BufReader::with_capacity(CHUNK, stdout), path: Vec::new() };
    tokio::spawn(async move {
        tokio::select! {
            () = sender.closed() => {}
            () = records.carry(&sender) => {}
        }
    });
    Ok(Box::pin(Packed { receiver, chunk: Bytes::new(), is_over: false }))
}

/// The archive on its way. An empty part is its end.
struct Packed {
    receiver: mpsc::Receiver<Result<Bytes>>,
    chunk: Bytes,
    is_over: bool,
}

impl AsyncRead for Packed {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.chunk.is_empty() && !this.is_over {
            match ready!(this.receiver.poll_recv(context)) {
                Some(Ok(chunk)) => {
                    this.is_over = chunk.is_empty();
                    this.chunk = chunk;
                }
                Some(Err(error)) => return Poll::Ready(Err(error.into())),
                None => {
                    let gone =
                        Error::new(ErrorKind::Disconnected, "pack tree", "the runtime is shutting down");
                    return Poll::Ready(Err(gone.into()));
                }
            }
        }
        let length = this.chunk.len().min(into.remaining());
        into.put_slice(this.chunk.get(..length).unwrap_or_default());
        this.chunk.advance(length);
        Poll::Ready(Ok(()))
    }
}

/// Nobody reads any more.
struct Gone;

/// What the script tells.
struct Records {
    talk: Talk,
    stdout: BufReader<ChildStdout>,
    /// Where it is.
    path: Vec<Vec<u8>>,
}

impl Records {
    async fn carry(mut self, sender: &Sender) {
        loop {
            let part = match self.record(sender).await {
                Ok(Ok(true)) => continue,
                Ok(Ok(false)) => {
                    self.talk.over();
                    let end = Bytes::from(vec![0; 2 * BLOCK]);
                    let _gone = sender.send(Ok(end)).await;
                    Ok(Bytes::new())
                }
                Ok(Err(Gone)) => return,
                Err(error) => Err(error),
            };
            let _gone = sender.send(part).await;
            return;
        }
    }

    /// Carries one record and returns whether there are more.
    async fn record(&mut self, sender: &Sender) -> Result<Result<bool, Gone>> {
        let line = self.until(b'\n', MAX_LINE).await?;
        let line = String::from_utf8(line).map_err(|_| self.garbled())?;
        let (kind, numbers) = line.split_once(' ').unwrap_or((&line, ""));
        let numbers = numbers.split(' ').collect::<Vec<_>>();
        let mode = |text: &str| u32::from_str_radix(text, 8).ok().map(|mode| mode & 0o7777);
        // Before 1970 is 1970.
        let time = |text: &str| text.parse::<i64>().ok().map(|time| u64::try_from(time).unwrap_or_default());
        let (kind, mode, size, modified) = match (kind, &*numbers) {
            ("D", [bits, modified]) => (Kind::Directory, mode(bits), Some(0), time(modified)),
            ("F", [bits, size, modified]) => (Kind::File, mode(bits), size.parse().ok(), time(modified)),
            ("L", [modified]) => (Kind::Symlink, Some(0o777), Some(0), time(modified)),
            ("U", _) => {
                self.path.pop().ok_or_else(|| self.garbled())?;
                return Ok(Ok(true));
            }
            ("E", _) if self.path.is_empty() => return Ok(Ok(false)),
            ("X", _) => {
                let text = self.until(0, MAX_NAME).await?;
                let text = String::from_utf8_lossy(&text).into_owned();
                return Err(fault::refused(self.talk.operation, &self.talk.path, &text));
            }
            _ => return Err(self.garbled()),
        };
        let (Some(mode), Some(size), Some(modified)) = (mode, size, modified) else {
            return Err(self.garbled());
        };
        let name = self.until(0, MAX_NAME).await?;
        if name.is_empty() || name.contains(&b'/') || name == b".." {
            return Err(self.garbled());
        }
        let target = if kind == Kind::Symlink { self.until(0, MAX_NAME).await? } else { Vec::new() };
        let mut path = self.path.iter().flat_map(|step| [step.as_slice(), b"/"]).collect::<Vec<_>>().concat();
        path.extend_from_slice(&name);
        if kind == Kind::Directory {
            path.push(b'/');
            self.path.push(name);
        }
        if path.len() > 4096 {
            return Err(self.garbled());
        }
        let entry = Entry { kind, path, target, mode, size, modified };
        if sender.send(Ok(headers(&entry).into())).await.is_err() {
            return Ok(Err(Gone));
        }
        self.content(sender, size).await
    }

    async fn content(&mut self, sender: &Sender, size: u64) -> Result<Result<bool, Gone>> {
        let mut left = size;
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let mut part = vec![0; length];
            let read = timeout(self.talk.patience(), self.stdout.read_exact(&mut part)).await;
            self.is_whole(&read.map(|read| read.is_ok()))?;
            left -= u64::try_from(length).unwrap_or(left);
            if sender.send(Ok(part.into())).await.is_err() {
                return Ok(Err(Gone));
            }
        }
        let padding = padding(size);
        if padding > 0 && sender.send(Ok(vec![0; padding].into())).await.is_err() {
            return Ok(Err(Gone));
        }
        Ok(Ok(true))
    }

    /// Reads up to an end, which is left out.
    async fn until(&mut self, end: u8, most: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut limited = (&mut self.stdout).take(most);
        let read = timeout(self.talk.patience(), limited.read_until(end, &mut bytes)).await;
        let has_end = bytes.pop() == Some(end);
        self.is_whole(&read.map(|read| read.is_ok() && has_end))?;
        Ok(bytes)
    }

    fn is_whole<T>(&self, read: &Result<bool, T>) -> Result<()> {
        match read {
            Ok(true) => Ok(()),
            Ok(false) => Err(fault::broken(self.talk.operation, &self.talk.path)),
            Err(_) => Err(error::timed_out(self.talk.operation)),
        }
    }

    fn garbled(&self) -> Error {
        fault::garbled(self.talk.operation, &self.talk.path)
    }
}
