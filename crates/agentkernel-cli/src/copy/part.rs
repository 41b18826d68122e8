//! A file of the host that is there as a whole or not at all.
use std::{
    ffi::{OsStr, OsString},
    fs::File,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, openat, renameat, statat, unlinkat},
    io::{Errno, Result},
};

use crate::config::random;

/// A file under another name until it is complete; dropped before that, it is removed.
#[derive(Debug)]
pub(crate) struct Part {
    directory: OwnedFd,
    name: Option<OsString>,
}

impl Part {
    /// Makes the file, which only its owner can read until it is complete.
    pub(crate) fn create(directory: impl AsFd, mode: u32) -> Result<(Self, File)> {
        let directory = directory
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::MFILE))?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let name = OsString::from(format!(".agentkernel-{:08x}.part", random()));
        let file = openat(&directory, &name, flags, Mode::from_raw_mode((mode & 0o777) as _))?;
        Ok((Self { directory, name: Some(name) }, file.into()))
    }

    /// Gives the file its name. A regular file of this name is replaced; a link or anything else is refused.
    pub(crate) fn commit(mut self, name: &OsStr) -> Result<()> {
        match statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
            Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => {}
                FileType::Directory => return Err(Errno::ISDIR),
                FileType::Symlink => return Err(Errno::LOOP),
                _ => return Err(Errno::EXIST),
            },
        }
        if let Some(part) = &self.name {
            renameat(&self.directory, part, &self.directory, name)?;
        }
        self.name = None;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(part) = &self.name {
            // There is nobody to tell; the first error is on its way.
            let _kept = unlinkat(&self.directory, part, AtFlags::empty());
        }
    }
}
