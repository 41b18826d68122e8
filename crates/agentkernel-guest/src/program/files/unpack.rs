//! A tar stream in, strictly below one directory: every name is walked step by step, and no link is ever followed.
use std::ffi::CString;
use std::os::fd::OwnedFd;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, fchmod, futimens, linkat, mkdirat, openat,
    statat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::tar::{BLOCK, Entry, Input, Kind, bad, next, padding};
use super::{chunk, directory, doing, failure, read_full, receive, refused};
use crate::protocol::{Failure, FailureCode, MAX_PATH};

/// Modes of directories that would hinder unpacking are set at the end; at most for so many.
const MOST_LATER: usize = 64 << 10;

struct Stdin;

impl Input for Stdin {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        read_full(buffer)
    }
}

/// Unpacks what the host sends.
pub(super) fn unpack(path: &[u8]) -> Result<(), Failure> {
    directory::create(path, true)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, path, flags, Mode::empty()).map_err(doing("opening the directory"))?;
    let mut unpacker = Unpacker { root, cached: None, later: Vec::new() };
    while let Some(entry) = next(&mut Stdin)? {
        unpacker.entry(&entry)?;
    }
    unpacker.finish()?;
    // What follows the end mark is padding.
    let mut rest = chunk();
    while read_full(&mut rest)? > 0 {}
    Ok(())
}

struct Unpacker {
    root: OwnedFd,
    /// The last parent that was walked to.
    cached: Option<(Vec<CString>, OwnedFd)>,
    /// Directories and their modes.
    later: Vec<(Vec<CString>, u32)>,
}

/// Cuts a name into its steps; one that leads elsewhere is refused.
pub(super) fn steps(path: &[u8]) -> Result<Vec<CString>, Failure> {
    if path.first() == Some(&b'/') || path.len() > 64 * MAX_PATH {
        return Err(bad("a name is absolute or too long"));
    }
    let mut steps = Vec::new();
    for step in path.split(|byte| *byte == b'/') {
        match step {
            b"" | b"." => {}
            b".." => return Err(bad("a name leads upwards")),
            step => steps.push(CString::new(step).map_err(|_| bad("a name has a NUL"))?),
        }
    }
    Ok(steps)
}

impl Unpacker {
    fn entry(&mut self, entry: &Entry) -> Result<(), Failure> {
        let mut steps = steps(&entry.path)?;
        let Some(name) = steps.pop() else {
            // The directory itself.
            return if entry.kind == Kind::Directory { Ok(()) } else { Err(bad("an entry has no name")) };
        };
        let parent = self.walk(&steps, true)?;
        match entry.kind {
            Kind::File => self.file(&parent, &name, entry)?,
            Kind::Directory => self.directory(&parent, &name, &steps, entry.mode)?,
            Kind::Symlink => {
                clear(&parent, &name)?;
                let target = entry.target.as_slice();
                symlinkat(target, &parent, &name).map_err(doing("making a link"))?;
            }
            Kind::Link => self.link(&parent, &name, &entry.target)?,
        }
        self.cached = Some((steps, parent));
        Ok(())
    }

    /// Opens a directory below the root, step by step; makes what is missing if it may.
    fn walk(&mut self, steps: &[CString], make: bool) -> Result<OwnedFd, Failure> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (known, mut current) = match self.cached.take() {
            Some((cached, fd)) if steps.starts_with(&cached) => (cached.len(), fd),
            _ => {
                let root = openat(&self.root, c".", flags, Mode::empty());
                (0, root.map_err(doing("opening the directory"))?)
            }
        };
        for step in steps.iter().skip(known) {
            let open = || openat(&current, step, flags, Mode::empty());
            let next = match open() {
                Err(Errno::NOENT) if make => {
                    match mkdirat(&current, step, Mode::from_raw_mode(0o755)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(errno) => return Err(failure(errno, "making a directory")),
                    }
                    open()
                }
                result => result,
            };
            current = match next {
                Ok(next) => next,
                Err(Errno::NOTDIR | Errno::LOOP) if is_link(&current, step) => {
                    return Err(bad("a name leads through a link"));
                }
                Err(errno) => return Err(failure(errno, "opening a directory")),
            };
        }
        Ok(current)
    }

    fn file(&mut self, parent: &OwnedFd, name: &CString, entry: &Entry) -> Result<(), Failure> {
        clear(parent, name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(parent, name, flags, Mode::RUSR | Mode::WUSR).map_err(doing("making a file"))?;
        if receive(&file, entry.size)? < entry.size {
            return Err(bad("the archive is cut off"));
        }
        let mut rest = [0; BLOCK];
        let rest = rest.get_mut(..padding(entry.size)).unwrap_or_default();
        if read_full(rest)? < rest.len() {
            return Err(bad("the archive is cut off"));
        }
        // Never setuid, setgid or sticky.
        fchmod(&file, Mode::from_raw_mode(entry.mode & 0o777)).map_err(doing("setting a mode"))?;
        let modified = Timespec { tv_sec: entry.modified, tv_nsec: 0 };
        // Times that the file system cannot hold are no reason to fail.
        futimens(&file, &Timestamps { last_access: modified, last_modification: modified }).ok();
        Ok(())
    }

    fn directory(
        &mut self,
        parent: &OwnedFd,
        name: &CString,
        above: &[CString],
        mode: u32,
    ) -> Result<(), Failure> {
        let mode = mode & 0o777;
        match mkdirat(parent, name, Mode::from_raw_mode(mode | 0o700)) {
            // One that would hinder unpacking gets its mode at the end.
            Ok(()) if mode & 0o700 != 0o700 && self.later.len() < MOST_LATER => {
                self.later.push((above.iter().cloned().chain([name.clone()]).collect(), mode));
                Ok(())
            }
            // The mask took something.
            Ok(()) if mode & 0o022 != 0 => set_mode(parent, name, mode),
            Ok(()) => Ok(()),
            // One that exists keeps its mode.
            Err(Errno::EXIST) => match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => Ok(()),
                Ok(_) => {
                    Err(refused(FailureCode::NotDirectory, "something else is where a directory belongs"))
                }
                Err(errno) => Err(failure(errno, "making a directory")),
            },
            Err(errno) => Err(failure(errno, "making a directory")),
        }
    }

    fn link(&mut self, parent: &OwnedFd, name: &CString, target: &[u8]) -> Result<(), Failure> {
        let mut steps = steps(target)?;
        let old = steps.pop().ok_or_else(|| bad("a link leads to nothing"))?;
        let directory = self.walk(&steps, false)?;
        clear(parent, name)?;
        // Without AT_SYMLINK_FOLLOW, a link to a link is one itself.
        linkat(&directory, &old, parent, name, AtFlags::empty()).map_err(doing("making a link"))
    }

    /// Sets the modes of directories, the inner ones first.
    fn finish(&mut self) -> Result<(), Failure> {
        self.cached = None;
        while let Some((mut steps, mode)) = self.later.pop() {
            let Some(name) = steps.pop() else { continue };
            let parent = self.walk(&steps, false)?;
            set_mode(&parent, &name, mode)?;
        }
        Ok(())
    }
}

fn set_mode(parent: &OwnedFd, directory: &CString, mode: u32) -> Result<(), Failure> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, directory, flags, Mode::empty())
        .and_then(|directory| fchmod(directory, Mode::from_raw_mode(mode)))
        .map_err(doing("setting a mode"))
}

fn is_link(parent: &OwnedFd, name: &CString) -> bool {
    statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_symlink())
}

/// Removes what is in the way, if it is no directory.
fn clear(parent: &OwnedFd, name: &CString) -> Result<(), Failure> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => Err(refused(FailureCode::IsDirectory, "a directory is where a file belongs")),
        Err(errno) => Err(failure(errno, "replacing an entry")),
    }
}
