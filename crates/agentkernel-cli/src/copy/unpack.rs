//! Unpacks a tree that a sandbox packed. Every name is walked from the target, component by component, following no
//! link; only directories and regular files are made.
use std::{
    cell::Cell,
    ffi::OsStr,
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    rc::Rc,
};

use agentkernel_core::{Error, ErrorKind, Result};
use rustix::{
    fs::{Mode, OFlags, mkdirat, openat},
    io::Errno,
};
use tar::{Archive, Entry, EntryType};

use super::{Part, Skipped};

/// The most that headers between two entries can take: long names are read into memory.
const HEADERS: u64 = 1 << 20;

/// Bounds on what a hostile archive can make of the host's disk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of all files together.
    pub(crate) bytes: u64,
    /// Entries of any kind.
    pub(crate) entries: u64,
    /// Directories below one another.
    pub(crate) depth: usize,
}

/// Unpacks below `root`. The archive's own top directory, if it has one, becomes `root` itself.
pub(crate) fn unpack(
    reader: impl Read,
    root: &OwnedFd,
    top: Option<&[u8]>,
    limits: Limits,
) -> Result<Skipped> {
    let budget = Rc::new(Cell::new(0));
    let mut archive = Archive::new(Metered { reader, budget: Rc::clone(&budget) });
    let mut entries = archive.entries().map_err(broken)?;
    let mut unpacking = Unpacking { root, top, limits, skipped: Skipped::default() };
    for count in 0.. {
        budget.set(HEADERS);
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.map_err(broken)?;
        if count >= limits.entries {
            return Err(hostile("the tree has too many entries").with_context("limit", limits.entries));
        }
        budget.set(u64::MAX);
        unpacking.take(&mut entry)?;
    }
    Ok(unpacking.skipped)
}

struct Unpacking<'a> {
    root: &'a OwnedFd,
    top: Option<&'a [u8]>,
    limits: Limits,
    skipped: Skipped,
}

impl Unpacking<'_> {
    fn take<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<()> {
        let path = entry.path_bytes().into_owned();
        let parts = self.parts(&path)?;
        let mode = entry.header().mode().unwrap_or(0o600);
        let kind = entry.header().entry_type();
        let why = match kind {
            EntryType::Directory => None,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => None,
            EntryType::Symlink => Some("a symbolic link"),
            EntryType::Link => Some("a hard link"),
            EntryType::Fifo => Some("a FIFO"),
            EntryType::Block | EntryType::Char => Some("a device"),
            _ => Some("not a file"),
        };
        if let Some(why) = why {
            self.skipped.add(&path, why);
            return self.copy(entry, &mut io::sink()).map(drop);
        }
        if mode & 0o6000 != 0 {
            self.skipped.add(&path, "its set-user-id or set-group-id bit");
        }
        match parts.split_last() {
            None if kind == EntryType::Directory => Ok(()),
            None => Err(hostile("the tree is not a directory")),
            Some((name, parents)) if kind == EntryType::Directory => {
                let parent = self.directory(parents)?;
                enter(&parent, name, mode).map(drop)
            }
            Some((name, parents)) => {
                let parent = self.directory(parents)?;
                let (part, mut file) = Part::create(&parent, mode).map_err(|error| refused(error, &path))?;
                self.copy(entry, &mut file)?;
                part.commit(OsStr::from_bytes(name)).map_err(|error| refused(error, &path))
            }
        }
    }

    /// Splits a name into components that can only lead down.
    fn parts<'p>(&self, path: &'p [u8]) -> Result<Vec<&'p [u8]>> {
        let fail = |message| Err(hostile(message).with_context("name", String::from_utf8_lossy(path)));
        if path.first() == Some(&b'/') || path.contains(&0) {
            return fail("a name in the tree is absolute or has a NUL byte");
        }
        let mut parts = path
            .split(|byte| *byte == b'/')
            .filter(|part| !part.is_empty() && *part != b".")
            .collect::<Vec<_>>();
        if parts.contains(&b"..".as_slice()) {
            return fail("a name in the tree leads out of it");
        }
        if parts.len() > self.limits.depth {
            return fail("the tree is too deep");
        }
        if let Some(top) = self.top {
            if parts.first() != Some(&top) {
                return fail("a name in the tree does not belong to it");
            }
            parts.remove(0);
        }
        Ok(parts)
    }

    fn directory(&self, parts: &[&[u8]]) -> Result<OwnedFd> {
        let root = self.root.try_clone().map_err(Error::from)?;
        parts.iter().try_fold(root, |parent, name| enter(&parent, name, 0o755))
    }

    fn copy<R: Read>(&mut self, entry: &mut Entry<'_, R>, into: &mut impl io::Write) -> Result<()> {
        let copied = io::copy(&mut entry.take(self.limits.bytes.saturating_add(1)), into).map_err(broken)?;
        match self.limits.bytes.checked_sub(copied) {
            Some(left) => {
                self.limits.bytes = left;
                Ok(())
            }
            None => Err(hostile("the tree is too large").with_hint("if that is right, raise `--max-size`")),
        }
    }
}

/// Makes a directory unless it is there, and opens it; never through a link.
fn enter(parent: impl AsFd, name: &[u8], mode: u32) -> Result<OwnedFd> {
    // Without these bits we could not fill it.
    let mode = Mode::from_raw_mode(((mode & 0o777) | 0o700) as _);
    match mkdirat(&parent, name, mode) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(refused(error, name)),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(&parent, name, flags, Mode::empty()).map_err(|error| refused(error, name))
}

/// Reads on while there is budget.
struct Metered<R> {
    reader: R,
    budget: Rc<Cell<u64>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(into)?;
        let left = self.budget.get().checked_sub(read as u64);
        self.budget.set(left.ok_or_else(|| io::Error::other("the headers of an entry are too long"))?);
        Ok(read)
    }
}

fn broken(error: io::Error) -> Error {
    Error::unexpected("copy tree", "the tree cannot be read or written", error)
}

fn hostile(message: &'static str) -> Error {
    Error::new(ErrorKind::PermissionDenied, "copy tree", message)
}

fn refused(error: Errno, name: &[u8]) -> Error {
    let message = match error {
        Errno::LOOP | Errno::NOTDIR => "a link or a file is in the way on the host",
        Errno::ISDIR => "a directory is in the way on the host",
        _ => "the host refused to make an entry",
    };
    Error::new(ErrorKind::PermissionDenied, "copy tree", message)
        .with_context("name", String::from_utf8_lossy(name))
        .with_source(io::Error::from(error))
}

#[cfg(test)]
mod tests;
