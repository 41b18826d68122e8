//! Removing: a path, or a tree of any depth with one descriptor per step and no link followed.
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, fstat, openat, unlinkat};
use rustix::io::Errno;

use super::{Place, doing, place, refused};
use crate::protocol::{Failure, FailureCode};

/// Removes a path, and with `recursive` all below it.
pub(super) fn remove(path: &[u8], recursive: bool) -> Result<(), Failure> {
    let Place { parent, name } = place(path)?;
    match unlinkat(&parent, &name, AtFlags::empty()) {
        // POSIX says EPERM for a directory, Linux EISDIR.
        Err(Errno::ISDIR | Errno::PERM) => {}
        result => return result.map_err(doing("removing the path")),
    }
    if recursive {
        let top = open_below(&parent, &name).map_err(doing("opening the directory"))?;
        empty(top)?;
    }
    match unlinkat(&parent, &name, AtFlags::REMOVEDIR) {
        // It was no directory: then the first answer was the true one.
        Err(Errno::NOTDIR) => Err(super::failure(Errno::PERM, "removing the path")),
        result => result.map_err(doing("removing the directory")),
    }
}

fn open_below(parent: &OwnedFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

/// A directory that was gone down through: how to find it again, and what to remove in it then.
struct Level {
    identity: (u64, u64),
    child: CString,
}

fn identity(directory: &OwnedFd) -> Result<(u64, u64), Failure> {
    let stat = fstat(directory).map_err(doing("looking at a directory"))?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Removes everything in a directory. It is read from the start each time, since what was read is gone.
fn empty(top: OwnedFd) -> Result<(), Failure> {
    let (mut current, mut above) = (top, Vec::<Level>::new());
    loop {
        if let Some(child) = unlink_files(&current)? {
            let below = open_below(&current, &child).map_err(doing("opening a directory"))?;
            above.push(Level { identity: identity(&current)?, child });
            current = below;
            continue;
        }
        let Some(level) = above.pop() else { return Ok(()) };
        let parent = open_below(&current, c"..").map_err(doing("opening a directory"))?;
        // Somebody may have moved the tree meanwhile: nothing elsewhere is touched.
        if identity(&parent)? != level.identity {
            return Err(refused(FailureCode::Other, "the tree was moved while it was removed"));
        }
        match unlinkat(&parent, &level.child, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(super::failure(errno, "removing a directory")),
        }
        current = parent;
    }
}

/// Removes what is no directory; stops at the first directory.
fn unlink_files(directory: &OwnedFd) -> Result<Option<CString>, Failure> {
    rustix::fs::seek(directory, rustix::fs::SeekFrom::Start(0)).map_err(doing("reading a directory"))?;
    let mut space = [MaybeUninit::uninit(); 8192];
    let mut entries = RawDir::new(directory, &mut space);
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(doing("reading a directory"))?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if entry.file_type() == FileType::Directory {
            return Ok(Some(name.to_owned()));
        }
        match unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => return Ok(Some(name.to_owned())),
            Err(errno) => return Err(super::failure(errno, "removing an entry")),
        }
    }
    Ok(None)
}
