//! Files inside a sandbox, and byte streams in and out.
use std::{fmt, pin::Pin};

use bytes::Bytes;
use futures_core::Stream;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::Result;

/// Bytes from inside. Its `io::Error` carries an [`Error`](crate::Error): `Error::from(io_error)` gets it back.
pub type Reader = Pin<Box<dyn AsyncRead + Send>>;
/// Bytes to the inside. Its `io::Error` carries an [`Error`](crate::Error).
pub type Writer = Pin<Box<dyn AsyncWrite + Send>>;
/// Content of the caller's, borrowed.
pub type Source<'a> = &'a mut (dyn AsyncRead + Send + Unpin);
/// A stream of events that ends after the last one, or with the first error.
pub type Events<T> = Pin<Box<dyn Stream<Item = Result<T>> + Send>>;

/// A connection: closing the writer is end-of-file for the other side, which may go on sending.
pub struct Duplex {
    /// What the other side sends.
    pub reader: Reader,
    /// What is sent to the other side; shutting it down or dropping it closes this half only.
    pub writer: Writer,
}

impl fmt::Debug for Duplex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Duplex").finish_non_exhaustive()
    }
}

/// What a directory entry is.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FileType {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A FIFO, socket or device.
    Other,
}

/// What is known of a path; of a link itself, not of what it names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Metadata {
    /// What it is.
    pub file_type: FileType,
    /// Size in bytes.
    pub size: u64,
    /// Permission bits, 0o7777 at most.
    pub mode: u32,
    /// Owner inside.
    pub uid: u32,
    /// Group inside.
    pub gid: u32,
    /// Last change of the content, in seconds since 1970.
    pub modified: i64,
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Its name: bytes, one component.
    pub name: Bytes,
    /// What it is.
    pub file_type: FileType,
}

/// How a file is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Permission bits, 0o777 at most; by default those of the file replaced, else 0o644.
    pub mode: Option<u32>,
    /// Makes missing parent directories, 0o755.
    pub parents: bool,
}

/// Whether an operation goes below the path named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The path alone: its parent must exist, a directory must be empty.
    One,
    /// Missing parents too, or all that is below.
    Recursive,
}
