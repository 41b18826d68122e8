//! Everything that comes from the host, taken hold of before the sandbox has a root: later no path leads there.
use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{fstat, readlink};

use super::mount::{
    MAPPED_IDS, NO_DEVICES, NO_PROGRAMS, NO_SETUID, READ_ONLY, clone_open, clone_path, open_exactly, path,
    restrict, shown, wrong,
};
use crate::setup::{MountSource, OwnerMap, Root, Setup};
use crate::sys::{self, Fork};

/// The devices that a sandbox has.
pub(crate) const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// What programs ask for the number of processors.
pub(crate) const PROCESSORS: &str = "/sys/devices/system/cpu";

/// What is attached later.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    pub(crate) devices: Vec<(&'static str, OwnedFd)>,
    pub(crate) processors: Option<OwnedFd>,
    /// One for each mount of the plan.
    pub(crate) mounts: Vec<Piece>,
    /// The image and the directory of changes.
    pub(crate) layers: Option<(OwnedFd, OwnedFd)>,
    /// The control groups, and where they are shown.
    pub(crate) cgroups: Vec<(Vec<u8>, OwnedFd)>,
}

/// What becomes of one mount of the plan.
#[derive(Debug)]
pub(crate) enum Piece {
    Mount(OwnedFd),
    Link(Vec<u8>),
    Memory(u64, u32),
    Nothing,
}

/// Takes hold of everything. Where the caller is root, the helper does it as root, before it makes the sandbox: the
/// sandbox's own root may not enter the directories of root. Else the sandbox does it, since nobody else may.
pub(crate) fn collect(setup: &Setup) -> io::Result<Collected> {
    let mut collected = Collected::default();
    for name in DEVICES {
        collected.devices.push((name, clone_path(&format!("/dev/{name}"))?));
    }
    if let Ok(processors) = clone_path(PROCESSORS) {
        restrict(&processors, READ_ONLY | NO_SETUID | NO_DEVICES | NO_PROGRAMS)
            .map_err(wrong("restricting", PROCESSORS))?;
        collected.processors = Some(processors);
    }
    if let Root::Overlay { lower, changes } = &setup.root {
        collected.layers = Some((layer(lower)?, layer(changes)?));
    }
    let mut users = Vec::new();
    for mount in &setup.mounts {
        let read_only = if mount.read_only { READ_ONLY } else { 0 };
        collected.mounts.push(match &mount.source {
            MountSource::Memory(size, mode) => Piece::Memory(*size, *mode),
            MountSource::System(path) => system(path, read_only)?,
            MountSource::Path { path, device, inode, owner } => {
                let open = open_exactly(path)?;
                let found = fstat(&open).map_err(|errno| wrong("looking at", shown(path))(errno.into()))?;
                if (found.st_dev, found.st_ino) != (*device, *inode) {
                    let other =
                        io::Error::other("it is another file now than when the sandbox was asked for");
                    return Err(wrong("showing", shown(path))(other));
                }
                let clone = clone_open(&open, &shown(path))?;
                let users = owner.map(|owner| namespace(&mut users, owner)).transpose()?;
                let mapped = if users.is_some() { MAPPED_IDS } else { 0 };
                sys::set_mount(&clone, read_only | NO_SETUID | NO_DEVICES | mapped, 0, users, true)
                    .map_err(wrong("restricting", shown(path)))?;
                Piece::Mount(clone)
            }
        });
    }
    for cgroup in &setup.cgroups {
        let clone = clone_open(open_exactly(&cgroup.path)?, &shown(&cgroup.path))?;
        restrict(&clone, READ_ONLY | NO_SETUID | NO_DEVICES | NO_PROGRAMS)
            .map_err(wrong("restricting", shown(&cgroup.path)))?;
        collected.cgroups.push((cgroup.shown.clone(), clone));
    }
    Ok(collected)
}

fn layer(at: &[u8]) -> io::Result<OwnedFd> {
    let clone = clone_open(open_exactly(at)?, &shown(at))?;
    restrict(&clone, NO_SETUID | NO_DEVICES).map_err(wrong("restricting", shown(at)))?;
    Ok(clone)
}

/// A directory of the machine: what is a link there is one inside.
fn system(at: &[u8], read_only: u64) -> io::Result<Piece> {
    let Ok(metadata) = fs::symlink_metadata(path(at)) else { return Ok(Piece::Nothing) };
    if metadata.is_symlink() {
        let target =
            readlink(path(at), Vec::new()).map_err(|errno| wrong("reading", shown(at))(errno.into()))?;
        return Ok(Piece::Link(target.into_bytes()));
    }
    let clone = clone_open(open_exactly(at)?, &shown(at))?;
    restrict(&clone, read_only | NO_SETUID | NO_DEVICES).map_err(wrong("restricting", shown(at)))?;
    Ok(Piece::Mount(clone))
}

/// Returns a user namespace that shows one user's files as another's.
fn namespace(known: &mut Vec<(OwnerMap, OwnedFd)>, owner: OwnerMap) -> io::Result<&OwnedFd> {
    let at = match known.iter().position(|(of, _)| *of == owner) {
        Some(at) => at,
        None => {
            known.push((owner, make_namespace(owner).map_err(wrong("mapping", "ids"))?));
            known.len() - 1
        }
    };
    known.get(at).map(|(_, users)| users).ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn make_namespace(owner: OwnerMap) -> io::Result<OwnedFd> {
    let pid = match sys::fork_into(libc::CLONE_NEWUSER)? {
        // It is stopped by the kill below, or by whatever ends this process.
        Fork::Child => loop {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).ok();
            sys::wait_for_signal();
        },
        Fork::Parent(pid) => pid,
    };
    let make = || -> io::Result<OwnedFd> {
        let line = |on_disk, shown_as| format!("{on_disk} {shown_as} 1");
        fs::write(format!("/proc/{pid}/uid_map"), line(owner.uid, owner.as_uid))?;
        fs::write(format!("/proc/{pid}/gid_map"), line(owner.gid, owner.as_gid))?;
        Ok(fs::File::open(format!("/proc/{pid}/ns/user"))?.into())
    };
    let made = make();
    drop(sys::kill(pid, libc::SIGKILL));
    drop(sys::wait(pid, 0));
    made
}
