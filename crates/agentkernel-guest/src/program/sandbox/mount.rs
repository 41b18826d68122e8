//! Single mounts with the new interface: a file system or a part of one is first held by a descriptor, and attached
//! when nothing of the host can be reached by a path any more.
use std::fmt::Display;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use crate::sys;

pub(crate) const READ_ONLY: u64 = 1;
pub(crate) const NO_SETUID: u64 = 2;
pub(crate) const NO_DEVICES: u64 = 4;
pub(crate) const NO_PROGRAMS: u64 = 8;
pub(crate) const MAPPED_IDS: u64 = 0x10_0000;
/// MS_PRIVATE of mount(2).
const PRIVATE: u64 = 1 << 18;

/// Says what failed, and on what.
pub(crate) fn failed(what: &str, on: impl Display) -> impl FnOnce(rustix::io::Errno) -> io::Error {
    move |errno| io::Error::other(format!("{what} {on}: {}", io::Error::from(errno)))
}

/// As [`failed`], of an error of the library.
pub(crate) fn wrong(what: &str, on: impl Display) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::other(format!("{what} {on}: {error}"))
}

/// Shows bytes of a path in an error.
pub(crate) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).escape_debug().to_string()
}

pub(crate) fn path(bytes: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

/// Makes a file system that is nowhere yet.
pub(crate) fn file_system(
    kind: &str,
    options: &[(&str, &[u8])],
    flags: &[&str],
    attributes: u64,
) -> io::Result<OwnedFd> {
    let context =
        fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed("opening the file system", kind))?;
    for flag in flags {
        fsconfig_set_flag(&context, *flag).map_err(failed("setting", format!("{kind} {flag}")))?;
    }
    for (key, value) in options {
        fsconfig_set_string(&context, *key, *value).map_err(failed("setting", format!("{kind} {key}")))?;
    }
    fsconfig_create(&context).map_err(failed("making the file system", kind))?;
    let attributes = MountAttrFlags::from_bits_retain(u32::try_from(attributes).unwrap_or(0));
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(failed("mounting", kind))
}

/// Makes a file system in memory.
pub(crate) fn memory(size: u64, mode: u32, attributes: u64) -> io::Result<OwnedFd> {
    let (size, mode) = (size.to_string(), format!("{mode:o}"));
    file_system("tmpfs", &[("size", size.as_bytes()), ("mode", mode.as_bytes())], &[], attributes)
}

/// Takes hold of a file, or of a directory with everything that is mounted below it.
pub(crate) fn clone_path(at: &str) -> io::Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let clone = open_tree(CWD, at, flags).map_err(failed("taking hold of", at))?;
    set_apart(clone).map_err(wrong("setting apart", at))
}

/// As [`clone_path`], of what is open.
pub(crate) fn clone_open(open: impl AsFd, name: &str) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    let clone = open_tree(open, "", flags).map_err(failed("taking hold of", name))?;
    set_apart(clone).map_err(wrong("setting apart", name))
}

/// Nothing that the host mounts there later comes along: it would come without restriction.
fn set_apart(clone: OwnedFd) -> io::Result<OwnedFd> {
    sys::set_mount(&clone, 0, PRIVATE, None, true)?;
    Ok(clone)
}

/// Opens a path of the host that has no links in it.
pub(crate) fn open_exactly(at: &[u8]) -> io::Result<OwnedFd> {
    openat2(CWD, path(at), OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_SYMLINKS)
        .map_err(failed("opening", shown(at)))
}

/// Attaches at a path of the sandbox's own root, which is made if it is missing. With `exactly` nothing on the way may
/// be a link.
pub(crate) fn attach(mount: &OwnedFd, at: &[u8], exactly: bool) -> io::Result<()> {
    let target = path(at);
    let resolve = if exactly { ResolveFlags::NO_SYMLINKS } else { ResolveFlags::NO_MAGICLINKS };
    let open = || openat2(CWD, target, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve);
    let place = match open() {
        Ok(place) => place,
        Err(rustix::io::Errno::NOENT) => {
            make_place(mount, target).map_err(wrong("making", shown(at)))?;
            open().map_err(failed("opening", shown(at)))?
        }
        Err(errno) => return Err(failed("opening", shown(at))(errno)),
    };
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", &place, "", flags).map_err(failed("showing", shown(at)))
}

fn make_place(mount: &OwnedFd, target: &Path) -> io::Result<()> {
    if FileType::from_raw_mode(fstat(mount)?.st_mode).is_dir() {
        return fs::create_dir_all(target);
    }
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    // What is there and was not found is a link that leads nowhere: then what it names is made.
    fs::File::options().create(true).append(true).open(target).map(drop)
}

/// Restricts a mount and all below it.
pub(crate) fn restrict(mount: impl AsFd, attributes: u64) -> io::Result<()> {
    sys::set_mount(mount, attributes, 0, None, true)
}
