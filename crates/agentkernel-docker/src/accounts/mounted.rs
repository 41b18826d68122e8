//! A container's root file system as a Podman of root mounts it on this machine. Asking the service about a file takes
//! 35 ms, since it starts a program for it; the mount takes 3, and then the kernel answers.
use std::{
    fs, io,
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::Path,
};

use agentkernel_core::{Error, Result};
use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags, fstat, fstatfs, open, openat2},
    io::Errno,
};

use super::walk::{Entry, FILES, Refusal, refuse};
use crate::{engine::Engine, id::ContainerId};

/// `OVERLAYFS_SUPER_MAGIC` of statfs(2).
const OVERLAY: u64 = 0x794c_7630;

/// Lets `look` see the root; `None` where it cannot be seen from here.
pub(crate) async fn with_root<T: Send + 'static>(
    engine: &Engine,
    id: &ContainerId,
    look: impl FnOnce(&OwnedFd) -> T + Send + 'static,
) -> Result<Option<T>> {
    // Behind tcp the path would be one of another machine.
    if !rustix::process::geteuid().is_root() || !engine.endpoint().address.is_local() {
        return Ok(None);
    }
    let path = engine.mount(id).await?;
    let looked = tokio::task::spawn_blocking(move || open_root(&path).map(|root| look(&root)).ok()).await;
    engine.unmount(id).await?;
    looked.map_err(|source| Error::unexpected("boot sandbox", "its files cannot be looked at", source))
}

/// What is there may be the empty place of a mount that only the service sees.
fn open_root(path: &str) -> io::Result<OwnedFd> {
    if !Path::new(path).is_absolute() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = open(path, flags, Mode::empty())?;
    if u64::try_from(fstatfs(&root)?.f_type) == Ok(OVERLAY) {
        Ok(root)
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// Refuses what the service would hang on: it resolves links below this root and sees no other mount.
pub(super) fn check(root: &OwnedFd) -> Result<(), Refusal> {
    FILES.iter().try_for_each(|file| refuse(file, entry(root, file)))
}

fn entry(root: &OwnedFd, path: &str) -> Entry {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let found = openat2(root, path.trim_start_matches('/'), flags, Mode::empty(), resolve).and_then(fstat);
    match found {
        Err(Errno::NOENT | Errno::NOTDIR) => Entry::Absent,
        // Links in a circle, and what else the service could fare worse with.
        Err(_) => Entry::Other,
        Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => u64::try_from(stat.st_size).map_or(Entry::Other, Entry::File),
            FileType::Directory => Entry::Directory,
            _ => Entry::Other,
        },
    }
}

/// Makes the root writable for its owner.
pub(crate) fn open_for_owner(root: &OwnedFd) -> io::Result<()> {
    let root = fs::File::from(root.try_clone()?);
    let mut permissions = root.metadata()?.permissions();
    if permissions.mode() & 0o200 == 0 {
        permissions.set_mode(permissions.mode() | 0o200);
        root.set_permissions(permissions)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn root() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        let root = fs::File::open(dir.path()).unwrap().into();
        (dir, root)
    }

    #[test]
    fn links_are_followed_below_the_root_only() {
        let (dir, root) = root();
        symlink("../../../../../../etc/kept", dir.path().join("etc/passwd")).unwrap();
        assert_eq!(entry(&root, "/etc/passwd"), Entry::Absent);
        fs::write(dir.path().join("etc/kept"), "12345").unwrap();
        assert_eq!(entry(&root, "/etc/passwd"), Entry::File(5));
        symlink("/etc/group", dir.path().join("etc/group")).unwrap();
        assert_eq!(entry(&root, "/etc/group"), Entry::Other);
        assert!(check(&root).is_err());
    }

    #[test]
    fn only_small_files_and_nothing_are_accepted() {
        let (dir, root) = root();
        assert!(check(&root).is_ok());
        let passwd = dir.path().join("etc/passwd");
        fs::create_dir(&passwd).unwrap();
        assert!(check(&root).is_err());
        fs::remove_dir(&passwd).unwrap();
        fs::File::create(&passwd).unwrap().set_len((1 << 20) + 1).unwrap();
        assert!(check(&root).is_err());
        fs::remove_file(&passwd).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &passwd, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert!(check(&root).is_err());
    }

    #[test]
    fn a_directory_that_is_no_mount_is_not_the_root() {
        let (dir, _) = root();
        assert!(open_root(dir.path().to_str().unwrap()).is_err());
        assert!(open_root("relative").is_err());
    }

    #[test]
    fn the_owner_gets_the_right_to_write_and_nobody_else() {
        let (dir, root) = root();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o555)).unwrap();
        open_for_owner(&root).unwrap();
        assert_eq!(fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777, 0o755);
    }
}
