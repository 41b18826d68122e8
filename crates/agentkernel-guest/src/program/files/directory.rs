//! Directories and what is known of paths.
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, mkdirat, openat, statat};
use rustix::io::Errno;

use super::{answer, doing, refused, send};
use crate::protocol::{DirectoryEntry, Failure, FailureCode, FileKind, FileMetadata, FromGuest};

/// Tells what a path is; a link itself.
pub(super) fn metadata(path: &[u8]) -> Result<(), Failure> {
    let stat = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).map_err(doing("looking at the path"))?;
    answer(&FromGuest::Metadata(FileMetadata {
        kind: kind(FileType::from_raw_mode(stat.st_mode)),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        modified: stat.st_mtime,
    }));
    Ok(())
}

fn kind(kind: FileType) -> FileKind {
    match kind {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        _ => FileKind::Other,
    }
}

/// Sends a directory's entries, as frames in the data.
pub(super) fn read(path: &[u8]) -> Result<(), Failure> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let directory = openat(CWD, path, flags, Mode::empty()).map_err(doing("opening the directory"))?;
    let mut frames = Vec::new();
    entries(&directory, |name, entry_kind| {
        let entry = DirectoryEntry { name: name.to_vec(), kind: kind(entry_kind) };
        FromGuest::Entry(entry).encode(0, &mut frames);
        if frames.len() > 32 << 10 {
            send(&frames)?;
            frames.clear();
        }
        Ok(())
    })?;
    send(&frames)
}

/// Calls back for each entry but `.` and `..`, holding none.
pub(super) fn entries(
    directory: &OwnedFd,
    mut each: impl FnMut(&[u8], FileType) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut space = [MaybeUninit::uninit(); 8192];
    let mut entries = RawDir::new(directory, &mut space);
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(doing("reading the directory"))?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            // Some file systems do not say it here.
            FileType::Unknown => match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(super::failure(errno, "looking at an entry")),
            },
            kind => kind,
        };
        each(name.to_bytes(), kind)?;
    }
    Ok(())
}

/// Makes a directory, and with `recursive` what is missing above it.
pub(super) fn create(path: &[u8], recursive: bool) -> Result<(), Failure> {
    let mode = Mode::from_raw_mode(0o755);
    if !recursive {
        return mkdirat(CWD, path, mode).map_err(doing("making the directory"));
    }
    let ends = path.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    for end in ends.chain([path.len()]) {
        let part = path.get(..end).unwrap_or_default();
        match mkdirat(CWD, part, mode) {
            Ok(()) => {}
            // On a read-only file system what exists is fine as well.
            Err(errno @ (Errno::EXIST | Errno::ROFS | Errno::ACCESS | Errno::PERM)) => {
                match statat(CWD, part, AtFlags::empty()) {
                    Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => {}
                    Ok(_) => return Err(refused(FailureCode::NotDirectory, "something else is in the way")),
                    Err(_) => return Err(super::failure(errno, "making the directory")),
                }
            }
            Err(errno) => return Err(super::failure(errno, "making the directory")),
        }
    }
    Ok(())
}
