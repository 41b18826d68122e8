//! Regular files: read as they are, written whole or not at all.
use std::ffi::CString;
use std::os::fd::OwnedFd;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, fchmod, fstat, openat, openat2, renameat, statat,
    unlinkat,
};
use rustix::io::Errno;

use super::{Place, answer, chunk, confirmed, directory, doing, place, receive, refused, send, split};
use crate::protocol::{Failure, FailureCode, FromGuest};

/// Sends a file's content.
pub(super) fn read(path: &[u8]) -> Result<(), Failure> {
    let file = open(path)?;
    answer(&FromGuest::Started { id: 0 });
    let mut buffer = chunk();
    loop {
        match rustix::io::read(&file, buffer.as_mut_slice()) {
            Ok(0) => return Ok(()),
            Ok(count) => send(buffer.get(..count).unwrap_or_default())?,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(super::failure(errno, "reading the file")),
        }
    }
}

fn open(path: &[u8]) -> Result<OwnedFd, Failure> {
    // Looked at before it is opened as well: opening a device can do something.
    let stat = statat(CWD, path, AtFlags::empty()).map_err(doing("opening the file"))?;
    check_regular(FileType::from_raw_mode(stat.st_mode))?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS) {
        // An old kernel, or a filter that does not know the call.
        Err(Errno::NOSYS | Errno::PERM) => openat(CWD, path, flags, Mode::empty()),
        result => result,
    }
    .map_err(doing("opening the file"))?;
    let stat = fstat(&file).map_err(doing("looking at the file"))?;
    check_regular(FileType::from_raw_mode(stat.st_mode))?;
    Ok(file)
}

fn check_regular(kind: FileType) -> Result<(), Failure> {
    match kind {
        FileType::RegularFile => Ok(()),
        FileType::Directory => Err(refused(FailureCode::IsDirectory, "it is a directory")),
        _ => Err(refused(FailureCode::NotRegular, "it is no regular file")),
    }
}

/// Takes a file's content and puts it in place.
pub(super) fn write(path: &[u8], mode: Option<u32>, parents: bool) -> Result<(), Failure> {
    if parents && let Some((parent, _)) = split(path) {
        directory::create(parent, true)?;
    }
    if path.last() == Some(&b'/') {
        return Err(refused(FailureCode::IsDirectory, "the path names a directory"));
    }
    let Place { parent, name } = place(path)?;
    let replaced = match statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Some(stat.st_mode & 0o777),
            // The link is replaced, not what it leads to.
            FileType::Symlink => None,
            FileType::Directory => return Err(refused(FailureCode::IsDirectory, "it is a directory")),
            _ => return Err(refused(FailureCode::NotRegular, "it is no regular file")),
        },
        Err(Errno::NOENT) => None,
        Err(errno) => return Err(super::failure(errno, "looking at the path")),
    };
    let (file, temporary) = temporary(&parent)?;
    let result = fill(&file, mode.or(replaced).unwrap_or(0o644)).and_then(|()| {
        renameat(&parent, &temporary, &parent, &name).map_err(doing("putting the file in place"))
    });
    if result.is_err() {
        unlinkat(&parent, &temporary, AtFlags::empty()).ok();
    }
    result
}

/// Makes a file that nobody else has, beside where it will be.
fn temporary(parent: &OwnedFd) -> Result<(OwnedFd, CString), Failure> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let pid = rustix::process::getpid().as_raw_nonzero();
    for attempt in 0..100 {
        let name = CString::new(format!(".agentkernel-{pid}-{attempt}")).unwrap_or_default();
        match openat(parent, &name, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => return Ok((file, name)),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(super::failure(errno, "making the file")),
        }
    }
    Err(refused(FailureCode::AlreadyExists, "there is no free name for the file"))
}

fn fill(file: &OwnedFd, mode: u32) -> Result<(), Failure> {
    receive(file, u64::MAX)?;
    confirmed()?;
    fchmod(file, Mode::from_raw_mode(mode)).map_err(doing("setting the file's mode"))
}
