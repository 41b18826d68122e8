//! Regular files: read as they are, written whole or not at all.
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, fchmod, fstat, linkat, openat, openat2, renameat,
    sendfile, statat, unlinkat,
};
use rustix::io::Errno;

use super::{Place, answer, chunk, confirmed, directory, doing, place, receive, refused, send, split};
use crate::protocol::{Failure, FailureCode, FromGuest, WINDOW};

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
            FileType::RegularFile => Some(Some(stat.st_mode & 0o777)),
            // The link is replaced, not what it leads to.
            FileType::Symlink => Some(None),
            FileType::Directory => return Err(refused(FailureCode::IsDirectory, "it is a directory")),
            _ => return Err(refused(FailureCode::NotRegular, "it is no regular file")),
        },
        Err(Errno::NOENT) => None,
        Err(errno) => return Err(super::failure(errno, "looking at the path")),
    };
    let draft = Draft::new(&parent)?;
    let filled = fill(draft.file(), mode.or(replaced.flatten()).unwrap_or(0o644));
    match filled {
        Ok(()) => draft.publish(&parent, &name, replaced.is_none()),
        Err(failure) => {
            draft.discard(&parent);
            Err(failure)
        }
    }
}

/// A file that is not yet where it will be.
enum Draft {
    /// Without a name: nothing is left of it if we are killed.
    Nameless(OwnedFd),
    /// Beside where it will be, on file systems that cannot do without a name.
    Named(OwnedFd, CString),
}

impl Draft {
    fn new(parent: &OwnedFd) -> Result<Self, Failure> {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        match openat(parent, c".", flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => Ok(Self::Nameless(file)),
            Err(_) => Self::named(parent),
        }
    }

    /// Makes a file that nobody else has.
    fn named(parent: &OwnedFd) -> Result<Self, Failure> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (name, file) = with_free_name(|name| openat(parent, name, flags, Mode::RUSR | Mode::WUSR))
            .map_err(doing("making the file"))?;
        Ok(Self::Named(file, name))
    }

    fn file(&self) -> &OwnedFd {
        match self {
            Self::Nameless(file) | Self::Named(file, _) => file,
        }
    }

    fn discard(&self, parent: &OwnedFd) {
        if let Self::Named(_, name) = self {
            unlinkat(parent, name, AtFlags::empty()).ok();
        }
    }

    /// Puts it in place, whole or not at all. A name that is free needs no other one before it.
    fn publish(self, parent: &OwnedFd, name: &CStr, is_free: bool) -> Result<(), Failure> {
        let named = match self {
            Self::Named(_, _) => self,
            Self::Nameless(file) => {
                if is_free && link(&file, parent, name).is_ok() {
                    return Ok(());
                }
                match with_free_name(|name| link(&file, parent, name)) {
                    Ok((temporary, ())) => Self::Named(file, temporary),
                    // What can be made without a name can mostly be given one, but no rule says so.
                    Err(_) => copy_named(&file, parent)?,
                }
            }
        };
        let Self::Named(_, temporary) = &named else { return Ok(()) };
        let placed = renameat(parent, temporary, parent, name).map_err(doing("putting the file in place"));
        if placed.is_err() {
            named.discard(parent);
        }
        placed
    }
}

/// Gives a file without a name one. The other way to do that, `AT_EMPTY_PATH`, is for the privileged.
fn link(file: &OwnedFd, parent: &OwnedFd, name: &CStr) -> rustix::io::Result<()> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(CWD, path, parent, name, AtFlags::SYMLINK_FOLLOW)
}

fn copy_named(file: &OwnedFd, parent: &OwnedFd) -> Result<Draft, Failure> {
    let draft = Draft::named(parent)?;
    let copied = fstat(file).and_then(|stat| {
        let (mut from, size) = (0, stat.st_size.cast_unsigned());
        while from < size {
            if sendfile(draft.file(), file, Some(&mut from), WINDOW as usize)? == 0 {
                return Err(Errno::IO);
            }
        }
        fchmod(draft.file(), Mode::from_raw_mode(stat.st_mode & 0o777))
    });
    if copied.is_err() {
        draft.discard(parent);
    }
    copied.map(|()| draft).map_err(doing("writing the file"))
}

/// Tries names that nobody has a reason to take.
fn with_free_name<T>(
    mut make: impl FnMut(&CStr) -> rustix::io::Result<T>,
) -> rustix::io::Result<(CString, T)> {
    let pid = rustix::process::getpid().as_raw_nonzero();
    for attempt in 0..100 {
        let name = CString::new(format!(".agentkernel-{pid}-{attempt}")).unwrap_or_default();
        match make(&name) {
            Ok(made) => return Ok((name, made)),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::EXIST)
}

fn fill(file: &OwnedFd, mode: u32) -> Result<(), Failure> {
    receive(file, u64::MAX)?;
    confirmed()?;
    fchmod(file, Mode::from_raw_mode(mode)).map_err(doing("setting the file's mode"))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;

    struct Directory(tempfile::TempDir, OwnedFd);

    impl Directory {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd = openat(CWD, directory.path(), flags, Mode::empty()).unwrap();
            Self(directory, fd)
        }

        fn target(&self) -> PathBuf {
            self.0.path().join("target")
        }

        fn names(&self) -> Vec<String> {
            let name =
                |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
            fs::read_dir(self.0.path()).unwrap().map(name).collect()
        }
    }

    type Make = fn(&OwnedFd) -> Result<Draft, Failure>;
    const WAYS: [Make; 2] = [Draft::new, Draft::named];

    /// Every way leads to the same: the one file, with its content and mode.
    #[test]
    fn a_draft_replaces_what_is_there_and_leaves_nothing_else() {
        for (way, is_free) in WAYS.iter().flat_map(|way| [(way, true), (way, false)]) {
            let directory = Directory::new();
            if !is_free {
                fs::write(directory.target(), "old").unwrap();
            }
            let draft = way(&directory.1).unwrap();
            rustix::io::write(draft.file(), b"new").unwrap();
            draft.publish(&directory.1, c"target", is_free).unwrap();
            assert_eq!(directory.names(), ["target"]);
            assert_eq!(fs::read(directory.target()).unwrap(), b"new");
        }
    }

    #[test]
    fn a_name_that_is_taken_meanwhile_is_replaced() {
        let directory = Directory::new();
        let draft = Draft::new(&directory.1).unwrap();
        fs::write(directory.target(), "theirs").unwrap();
        draft.publish(&directory.1, c"target", true).unwrap();
        assert_eq!(directory.names(), ["target"]);
        assert_eq!(fs::read(directory.target()).unwrap(), b"");
    }

    #[test]
    fn what_cannot_be_given_a_name_is_copied() {
        let directory = Directory::new();
        let Draft::Nameless(file) = Draft::new(&directory.1).unwrap() else { return };
        let content = vec![7; WINDOW as usize + 5];
        let mut rest = content.as_slice();
        while !rest.is_empty() {
            rest = &rest[rustix::io::write(&file, rest).unwrap()..];
        }
        fchmod(&file, Mode::from_raw_mode(0o640)).unwrap();
        let copy = copy_named(&file, &directory.1).unwrap();
        assert_eq!(directory.names().len(), 1);
        copy.publish(&directory.1, c"target", false).unwrap();
        assert_eq!(directory.names(), ["target"]);
        assert!(fs::read(directory.target()).unwrap() == content);
        let mode = fs::metadata(directory.target()).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&mode) & 0o777, 0o640);
    }

    #[test]
    fn what_is_not_put_in_place_is_gone() {
        for way in WAYS {
            let directory = Directory::new();
            way(&directory.1).unwrap().discard(&directory.1);
            assert_eq!(directory.names(), [""; 0]);
            fs::create_dir(directory.target()).unwrap();
            way(&directory.1).unwrap().publish(&directory.1, c"target", false).unwrap_err();
            assert_eq!(directory.names(), ["target"]);
        }
    }
}
