//! File work, in a process of its own: blocking calls, data on stdin or stdout, answers on stderr.
//!
//! Links in the middle of a path are followed: they cannot lead out of the sandbox, which is all that there is. What
//! a path ends in is never waited for, and never more than what the caller asked for.

mod directory;
#[cfg(feature = "fuzzing")]
pub mod fuzz;
mod pack;
mod regular;
mod remove;
mod tar;
mod unpack;

use std::ffi::CString;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, splice};

use crate::protocol::{Failure, FailureCode, FromGuest, MAX_DATA, Request, WINDOW};

/// Makes a failure of an error number.
pub(crate) fn failure(errno: Errno, what: &str) -> Failure {
    let code = match errno {
        Errno::NOENT => FailureCode::NotFound,
        Errno::EXIST => FailureCode::AlreadyExists,
        Errno::ACCESS | Errno::PERM => FailureCode::PermissionDenied,
        Errno::NOTDIR => FailureCode::NotDirectory,
        Errno::ISDIR => FailureCode::IsDirectory,
        Errno::NOTEMPTY => FailureCode::NotEmpty,
        Errno::ROFS => FailureCode::ReadOnly,
        Errno::LOOP | Errno::NXIO | Errno::NODEV => FailureCode::NotRegular,
        Errno::NOSPC
        | Errno::DQUOT
        | Errno::NOMEM
        | Errno::AGAIN
        | Errno::MFILE
        | Errno::NFILE
        | Errno::FBIG => FailureCode::Exhausted,
        Errno::INVAL | Errno::NAMETOOLONG => FailureCode::Invalid,
        _ => FailureCode::Other,
    };
    let source = std::io::Error::from(errno);
    Failure::new(code, errno.raw_os_error().cast_unsigned(), format!("{what}: {source}"))
}

/// For `map_err`: what was being done.
fn doing(what: &'static str) -> impl Fn(Errno) -> Failure {
    move |errno| failure(errno, what)
}

fn refused(code: FailureCode, message: &str) -> Failure {
    Failure::new(code, 0, message)
}

/// Sends a frame to the init.
pub(crate) fn answer(frame: &FromGuest) {
    let mut bytes = Vec::new();
    frame.encode(0, &mut bytes);
    write_all(rustix::stdio::stderr(), &bytes).ok();
}

/// Does what is asked for.
pub(crate) fn perform(request: &Request) -> Result<(), Failure> {
    match request {
        Request::Open { path } => regular::read(path),
        Request::Write { path, mode, parents } => regular::write(path, *mode, *parents),
        Request::Metadata { path } => directory::metadata(path),
        Request::ReadDir { path } => directory::read(path),
        Request::CreateDir { path, recursive } => directory::create(path, *recursive),
        Request::RemovePath { path, recursive } => remove::remove(path, *recursive),
        Request::Pack { path } => pack::pack(path),
        Request::Unpack { path } => unpack::unpack(path),
        Request::Spawn(_)
        | Request::Attach { .. }
        | Request::Commands
        | Request::Connect { .. }
        | Request::Listen { .. }
        | Request::Stats => Err(refused(FailureCode::Invalid, "this is no file work")),
    }
}

/// The directory that a path's last name is in, and that name.
struct Place {
    parent: OwnedFd,
    name: CString,
}

/// Opens the parent of a path. The root has none.
fn place(path: &[u8]) -> Result<Place, Failure> {
    let (parent, name) =
        split(path).ok_or_else(|| refused(FailureCode::Invalid, "the path names no entry"))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = openat(CWD, parent, flags, Mode::empty()).map_err(doing("opening the parent directory"))?;
    let name = CString::new(name).map_err(|_| refused(FailureCode::Invalid, "the path has a NUL"))?;
    Ok(Place { parent, name })
}

/// Splits off the last name, which must be one.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = path.iter().rposition(|byte| *byte != b'/')? + 1;
    let path = path.get(..end)?;
    let begin = path.iter().rposition(|byte| *byte == b'/')? + 1;
    let (parent, name) = path.split_at_checked(begin)?;
    (name != b"." && name != b"..").then_some((parent, name))
}

/// Reads from stdin until the buffer is full or the end.
fn read_full(buffer: &mut [u8]) -> Result<usize, Failure> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match rustix::io::read(rustix::stdio::stdin(), rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(failure(errno, "reading what the host sends")),
        }
    }
    Ok(filled)
}

/// Moves stdin into a file until the end, at most so many bytes, and returns how many it was.
fn receive(file: &OwnedFd, most: u64) -> Result<u64, Failure> {
    let mut moved = 0;
    while moved < most {
        let part = usize::try_from(most - moved).unwrap_or(usize::MAX).min(WINDOW as usize);
        match splice(rustix::stdio::stdin(), None, file, None, part, SpliceFlags::MOVE) {
            Ok(0) => break,
            Ok(count) => moved += count as u64,
            Err(Errno::INTR) => {}
            // A file system that cannot, or a filter that does not know the call.
            Err(Errno::INVAL | Errno::NOSYS | Errno::PERM) => return copy(file, most, moved),
            Err(errno) => return Err(failure(errno, "writing the file")),
        }
    }
    Ok(moved)
}

fn copy(file: &OwnedFd, most: u64, mut moved: u64) -> Result<u64, Failure> {
    let mut buffer = chunk();
    while moved < most {
        let part = usize::try_from(most - moved).unwrap_or(usize::MAX).min(buffer.len());
        let part = buffer.get_mut(..part).unwrap_or_default();
        let count = read_full(part)?;
        write_all(file, part.get(..count).unwrap_or_default()).map_err(doing("writing the file"))?;
        moved += count as u64;
        if count < part.len() {
            break;
        }
    }
    Ok(moved)
}

/// Waits for the init's word that the end of stdin was the end of the data: where the init dies, its end of the pipe
/// is closed before we are killed.
fn confirmed() -> Result<(), Failure> {
    loop {
        match rustix::io::read(rustix::stdio::stdout(), &mut [0u8; 1]) {
            Ok(1..) => return Ok(()),
            Err(Errno::INTR) => {}
            Ok(_) | Err(_) => return Err(refused(FailureCode::Canceled, "the data did not come to its end")),
        }
    }
}

fn write_all(fd: impl std::os::fd::AsFd, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(&fd, bytes) {
            Ok(0) => return Err(Errno::NOSPC),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Sends data to the host.
fn send(bytes: &[u8]) -> Result<(), Failure> {
    write_all(rustix::stdio::stdout(), bytes).map_err(doing("sending to the host"))
}

fn chunk() -> Vec<u8> {
    vec![0; MAX_DATA]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_name_is_split_off() {
        assert_eq!(split(b"/a/b"), Some((b"/a/".as_slice(), b"b".as_slice())));
        assert_eq!(split(b"/a/b//"), Some((b"/a/".as_slice(), b"b".as_slice())));
        assert_eq!(split(b"/a"), Some((b"/".as_slice(), b"a".as_slice())));
        for path in [b"/".as_slice(), b"", b"//", b"/.", b"/a/..", b"a"] {
            assert_eq!(split(path), None);
        }
    }
}
