//! A tree out, as tar. Each directory is read twice: first what is no directory, then the names of those that are,
//! so that neither descriptors nor memory grow with more than the depth.
use std::ffi::CString;
use std::os::fd::OwnedFd;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, fstatfs, openat, openat2, readlinkat, seek,
    statat,
};
use rustix::io::Errno;

use super::directory::entries;
use super::tar::{BLOCK, Entry, Kind, encode, padding};
use super::{answer, chunk, doing, place, refused, send};
use crate::protocol::{Failure, FailureCode, FromGuest};

/// File systems that show the kernel, not files (statfs(2)): /proc, /sys, the two kinds of cgroups.
const SHOWN: [i64; 4] = [0x9fa0, 0x6265_6572, 0x0027_e0eb, 0x6367_7270];

/// Sends a tree; names are relative to the path's parent.
pub(super) fn pack(path: &[u8]) -> Result<(), Failure> {
    if path.iter().all(|byte| *byte == b'/') {
        let root = open_directory(rustix::fs::CWD, c"/").map_err(doing("opening the directory"))?;
        answer(&FromGuest::Started { id: 0 });
        let stat = fstat(&root).map_err(doing("looking at the directory"))?;
        header(b".".to_vec(), Kind::Directory, Vec::new(), &stat)?;
        tree(root, Vec::new())?;
        return finish();
    }
    let place = place(path)?;
    let stat = statat(&place.parent, &place.name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(doing("looking at the path"))?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if !matches!(kind, FileType::RegularFile | FileType::Directory | FileType::Symlink) {
        return Err(refused(FailureCode::NotRegular, "it is no file, directory or link"));
    }
    let name = place.name.as_bytes().to_vec();
    if kind == FileType::Directory {
        let directory = open_directory(&place.parent, &place.name).map_err(doing("opening the directory"))?;
        answer(&FromGuest::Started { id: 0 });
        header(name.clone(), Kind::Directory, Vec::new(), &stat)?;
        tree(directory, name)?;
    } else {
        // Opened first, so that a file that may not be read is a failure and not an empty archive.
        let opened =
            (kind == FileType::RegularFile).then(|| open_file(&place.parent, &place.name)).transpose();
        opened.map_err(doing("opening the file"))?;
        answer(&FromGuest::Started { id: 0 });
        leaf(&place.parent, &place.name, name)?;
    }
    finish()
}

fn finish() -> Result<(), Failure> {
    send(&[0; 2 * BLOCK])
}

fn open_directory(parent: impl std::os::fd::AsFd, name: &std::ffi::CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

fn open_file(parent: &OwnedFd, name: &CString) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match openat2(parent, name, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        Err(Errno::NOSYS | Errno::PERM) => openat(parent, name, flags, Mode::empty()),
        result => result,
    }
}

/// A directory that was gone down through.
struct Level {
    identity: (u64, u64),
    /// The length of its own name.
    path: usize,
    /// Its directories that are still to be packed.
    left: Vec<CString>,
}

fn tree(top: OwnedFd, mut path: Vec<u8>) -> Result<(), Failure> {
    let (mut current, mut levels) = (top, Vec::<Level>::new());
    levels.push(level(&current, &path)?);
    while let Some(top) = levels.last_mut() {
        path.truncate(top.path);
        if let Some(name) = top.left.pop() {
            let below = match open_directory(&current, &name) {
                Ok(below) => below,
                // Gone meanwhile, or no directory any more.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(errno) => return Err(super::failure(errno, "opening a directory")),
            };
            join(&mut path, name.as_bytes());
            let stat = fstat(&below).map_err(doing("looking at a directory"))?;
            header(path.clone(), Kind::Directory, Vec::new(), &stat)?;
            let other = stat.st_dev != top.identity.0;
            if other && fstatfs(&below).is_ok_and(|it| SHOWN.contains(&it.f_type)) {
                continue;
            }
            current = below;
            levels.push(level(&current, &path)?);
            continue;
        }
        levels.pop();
        let Some(above) = levels.last() else { break };
        let parent = open_directory(&current, c"..").map_err(doing("opening a directory"))?;
        let stat = fstat(&parent).map_err(doing("looking at a directory"))?;
        if (stat.st_dev, stat.st_ino) != above.identity {
            return Err(refused(FailureCode::Other, "the tree was moved while it was packed"));
        }
        current = parent;
    }
    Ok(())
}

/// Packs what is no directory and remembers the directories.
fn level(directory: &OwnedFd, path: &[u8]) -> Result<Level, Failure> {
    let stat = fstat(directory).map_err(doing("looking at a directory"))?;
    let mut left = Vec::new();
    seek(directory, rustix::fs::SeekFrom::Start(0)).map_err(doing("reading a directory"))?;
    entries(directory, |name, kind| {
        let Ok(entry) = CString::new(name) else { return Ok(()) };
        if kind == FileType::Directory {
            left.push(entry);
            return Ok(());
        }
        let mut path = path.to_vec();
        join(&mut path, name);
        leaf(directory, &entry, path)
    })?;
    Ok(Level { identity: (stat.st_dev, stat.st_ino), path: path.len(), left })
}

fn join(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

/// Packs a file or a link; anything else is left out.
fn leaf(parent: &OwnedFd, name: &CString, path: Vec<u8>) -> Result<(), Failure> {
    let stat = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(super::failure(errno, "looking at an entry")),
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => match readlinkat(parent, name, Vec::new()) {
            Ok(target) => header(path, Kind::Symlink, target.into_bytes(), &stat),
            Err(Errno::NOENT | Errno::INVAL) => Ok(()),
            Err(errno) => Err(super::failure(errno, "reading a link")),
        },
        FileType::RegularFile => {
            let file = match open_file(parent, name) {
                Ok(file) => file,
                Err(Errno::NOENT | Errno::LOOP) => return Ok(()),
                Err(errno) => return Err(super::failure(errno, "opening a file")),
            };
            let stat = fstat(&file).map_err(doing("looking at a file"))?;
            if !FileType::from_raw_mode(stat.st_mode).is_file() {
                return Ok(());
            }
            content(&file, path, &stat)
        }
        _ => Ok(()),
    }
}

fn header(path: Vec<u8>, kind: Kind, target: Vec<u8>, stat: &Stat) -> Result<(), Failure> {
    let size = if kind == Kind::File { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 };
    let entry = Entry {
        kind,
        path,
        target,
        size,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        modified: stat.st_mtime,
    };
    send(&encode(&entry))
}

/// Sends exactly as much as the header said: what a file loses meanwhile is zeros, what it gains is left out.
fn content(file: &OwnedFd, path: Vec<u8>, stat: &Stat) -> Result<(), Failure> {
    header(path, Kind::File, Vec::new(), stat)?;
    let mut left = u64::try_from(stat.st_size).unwrap_or(0);
    let (mut buffer, pad) = (chunk(), padding(left));
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let part = buffer.get_mut(..most).unwrap_or_default();
        let count = match rustix::io::read(file, &mut *part) {
            Ok(0) => {
                part.fill(0);
                most
            }
            Ok(count) => count,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(super::failure(errno, "reading a file")),
        };
        send(part.get(..count).unwrap_or_default())?;
        left -= count as u64;
    }
    send([0; BLOCK].get(..pad).unwrap_or_default())
}
