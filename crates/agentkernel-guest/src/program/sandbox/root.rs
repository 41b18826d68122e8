//! The sandbox's file systems, made from inside its own namespaces: the root, then what is shown in it.
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{MountPropagationFlags, MoveMountFlags, UnmountFlags, mount_change, move_mount, unmount};
use rustix::process::{chdir, fchdir, pivot_root};

use super::collect::{Collected, PROCESSORS, Piece};
use super::mount::{
    NO_DEVICES, NO_PROGRAMS, NO_SETUID, READ_ONLY, attach, clone_path, failed, file_system, memory, path,
    restrict, shown, wrong,
};
use crate::setup::{Root, Setup};
use crate::sys;

/// A directory that every machine with a `/proc` has and everybody may enter: the new root stands on it for a moment.
const STAGE: &str = "/proc";
/// Memory that everybody inside may share, in bytes.
const SHARED_MEMORY: u64 = 64 << 20;
/// Parts of `/proc` that can be read and not written.
const FIXED: [&str; 5] = ["/proc/sys", "/proc/irq", "/proc/bus", "/proc/fs", "/proc/sysrq-trigger"];
/// Parts of `/proc` that are empty: they tell of the machine and of its other users.
const HIDDEN: [&str; 10] = [
    "/proc/kcore",
    "/proc/keys",
    "/proc/key-users",
    "/proc/timer_list",
    "/proc/kallsyms",
    "/proc/kmsg",
    "/proc/sched_debug",
    "/proc/config.gz",
    "/proc/interrupts",
    "/proc/latency_stats",
];
/// Directories of `/proc` that are empty.
const EMPTIED: [&str; 4] = ["/proc/acpi", "/proc/scsi", "/proc/driver", "/proc/asound"];

/// Makes the root and moves into it.
pub(crate) fn build(setup: &Setup, collected: Collected) -> io::Result<()> {
    // Before the root: a new `/proc` is allowed only where the old one can be seen whole.
    let proc = file_system("proc", &[], &[], NO_SETUID | NO_DEVICES | NO_PROGRAMS)?;
    let root = root(setup, collected.layers.as_ref())?;
    move_into(&root)?;
    for (at, mode) in &setup.directories {
        directory(at, *mode, setup.owner).map_err(wrong("making", shown(at)))?;
    }
    for (at, target) in &setup.links {
        link(at, target)?;
    }
    let is_late = |at: &[u8]| at.starts_with(b"/dev/");
    let mut late = Vec::new();
    for (plan, piece) in setup.mounts.iter().zip(collected.mounts) {
        if is_late(&plan.target) {
            late.push((plan, piece));
        } else {
            place(&plan.target, plan.read_only, piece)?;
        }
    }
    attach(&proc, b"/proc", true)?;
    devices(collected.devices)?;
    system(collected.processors, collected.cgroups)?;
    for (plan, piece) in late {
        place(&plan.target, plan.read_only, piece)?;
    }
    mask()?;
    if setup.read_only {
        let root =
            open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(failed("opening", "/"))?;
        sys::set_mount(root, READ_ONLY, 0, None, false).map_err(wrong("restricting", "/"))?;
    }
    Ok(())
}

fn root(setup: &Setup, layers: Option<&(OwnedFd, OwnedFd)>) -> io::Result<OwnedFd> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(failed("making private", "/"))?;
    let (Root::Overlay { .. }, Some((lower, changes))) = (&setup.root, layers) else {
        let size = if let Root::Memory(size) = setup.root { size } else { 0 };
        return memory(size, 0o755, NO_SETUID | NO_DEVICES);
    };
    // The kernel takes layers by path, and only in this namespace.
    let stage = memory(1 << 16, 0o755, NO_SETUID | NO_DEVICES)?;
    attach(&stage, STAGE.as_bytes(), true)?;
    let place = |name: &str| format!("{STAGE}/{name}");
    attach(lower, place("lower").as_bytes(), true)?;
    attach(changes, place("changes").as_bytes(), true)?;
    let (upper, work) = (place("changes/upper"), place("changes/work"));
    let options = [("lowerdir", place("lower")), ("upperdir", upper), ("workdir", work)];
    let options: Vec<(&str, &[u8])> = options.iter().map(|(key, value)| (*key, value.as_bytes())).collect();
    // Without the right to write `trusted.*` the kernel keeps its notes as `user.*`.
    file_system("overlay", &options, &["userxattr"], NO_SETUID | NO_DEVICES)
}

/// Makes it the root and lets go of the old one, with everything that was mounted there.
fn move_into(root: &OwnedFd) -> io::Result<()> {
    let stage =
        open(STAGE, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(failed("opening", STAGE))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(root, "", &stage, "", flags).map_err(failed("showing", "the root"))?;
    fchdir(root).map_err(failed("entering", "the root"))?;
    pivot_root(".", ".").map_err(failed("changing to", "the root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(failed("letting go of", "the old root"))?;
    chdir("/").map_err(failed("entering", "/"))
}

fn directory(at: &[u8], mode: u32, owner: (u32, u32)) -> io::Result<()> {
    let at = path(at);
    fs::create_dir_all(at)?;
    // What others may enter is root's; what they may not is the user's own.
    if mode & 0o077 == 0 {
        chown(at, Some(owner.0), Some(owner.1))?;
    }
    fs::set_permissions(at, fs::Permissions::from_mode(mode))
}

fn link(at: &[u8], target: &[u8]) -> io::Result<()> {
    match symlink(path(target), path(at)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(wrong("linking", shown(at))(error)),
        _ => Ok(()),
    }
}

fn place(at: &[u8], read_only: bool, piece: Piece) -> io::Result<()> {
    match piece {
        Piece::Mount(mount) => attach(&mount, at, false),
        Piece::Link(target) => link(at, &target),
        Piece::Memory(size, mode) => {
            let attributes = if read_only { READ_ONLY } else { 0 };
            attach(&memory(size, mode, NO_SETUID | NO_DEVICES | attributes)?, at, false)
        }
        Piece::Nothing => Ok(()),
    }
}

fn devices(clones: Vec<(&'static str, OwnedFd)>) -> io::Result<()> {
    attach(&memory(1 << 16, 0o755, NO_SETUID | NO_PROGRAMS)?, b"/dev", true)?;
    for (name, clone) in clones {
        attach(&clone, format!("/dev/{name}").as_bytes(), true)?;
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        link(format!("/dev/{name}").as_bytes(), target.as_bytes())?;
    }
    let terminals = [("ptmxmode", b"0666".as_slice()), ("mode", b"0600")];
    attach(&file_system("devpts", &terminals, &[], NO_SETUID | NO_PROGRAMS)?, b"/dev/pts", true)?;
    attach(&memory(SHARED_MEMORY, 0o1777, NO_SETUID | NO_DEVICES)?, b"/dev/shm", true)
}

/// `/sys` has the processors and the sandbox's own control groups, and nothing else of the machine.
fn system(processors: Option<OwnedFd>, cgroups: Vec<(Vec<u8>, OwnedFd)>) -> io::Result<()> {
    let all = memory(1 << 16, 0o755, NO_SETUID | NO_DEVICES | NO_PROGRAMS)?;
    attach(&all, b"/sys", true)?;
    if let Some(processors) = processors {
        attach(&processors, PROCESSORS.as_bytes(), true)?;
    }
    for (at, cgroup) in cgroups {
        attach(&cgroup, &at, true)?;
    }
    // Not those below: they are restricted already.
    sys::set_mount(&all, READ_ONLY, 0, None, false).map_err(wrong("restricting", "/sys"))
}

fn mask() -> io::Result<()> {
    let exists = |at: &&&str| fs::symlink_metadata(at).is_ok();
    for at in FIXED.iter().filter(exists) {
        let fixed = clone_path(at)?;
        restrict(&fixed, READ_ONLY | NO_SETUID | NO_DEVICES | NO_PROGRAMS)
            .map_err(wrong("restricting", at))?;
        attach(&fixed, at.as_bytes(), true)?;
    }
    for at in HIDDEN.iter().filter(exists) {
        attach(&clone_path("/dev/null")?, at.as_bytes(), true)?;
    }
    for at in EMPTIED.iter().filter(exists) {
        attach(&memory(1 << 12, 0o555, READ_ONLY)?, at.as_bytes(), true)?;
    }
    Ok(())
}
