//! The helper's own life: make the sandbox's process, give it its ids and control groups, wait for its end, clean up.
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use super::collect::collect;
use super::mount::{path, shown, wrong};
use super::{forget_streams, inside};
use crate::program::event_loop::Guest;
use crate::setup::{CgroupPlan, IdMap, Setup};
use crate::sys::{self, Fork};

/// How long a control group may take to be empty after its last process was waited for.
const EMPTYING: Duration = Duration::from_secs(2);

/// Makes the sandbox. Returns inside it; outside it ends with the sandbox.
pub(crate) fn keep(setup: &Setup) -> io::Result<Guest> {
    let lock = lock(setup)?;
    let groups = Groups(&setup.cgroups);
    groups.make()?;
    let collected = if setup.shifted { Some(collect(setup)?) } else { None };
    let (go, go_writer) = pipe_with(PipeFlags::CLOEXEC)?;
    // The sandbox ends with the helper, which alone holds the other end.
    let (alive, alive_writer) = pipe_with(PipeFlags::CLOEXEC)?;
    let mut namespaces = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    if !setup.host_network {
        namespaces |= libc::CLONE_NEWNET;
    }
    let pid = match sys::fork_into(namespaces).map_err(wrong("making", "namespaces"))? {
        Fork::Child => {
            drop((go_writer, alive_writer, lock));
            std::mem::forget(groups);
            return inside::enter(setup, collected, go, alive);
        }
        Fork::Parent(pid) => pid,
    };
    drop((collected, go, alive));
    // Until then the kernel gives the files of /proc that map ids to root alone.
    let begun = begin(setup, &groups, pid, &go_writer);
    set_dumpable_behavior(DumpableBehavior::NotDumpable).ok();
    if let Err(error) = &begun {
        // The other end is the host's: it reads this and nothing more.
        drop(writeln!(io::stderr(), "agentkernel-guest: {error}"));
    }
    drop(go_writer);
    if begun.is_err() {
        drop(sys::kill(pid, libc::SIGKILL));
    }
    let forgotten = forget_streams();
    let status = sys::wait(pid, libc::__WALL)?.map_or(0, |(_, status)| status);
    drop(alive_writer);
    tell_end(setup, status);
    drop(groups);
    for at in &setup.remove {
        remove(path(at));
    }
    drop(lock);
    sys::exit(u8::from(begun.and(forgotten).is_err()))
}

/// Takes the sandbox's lock, and writes into it who holds it.
fn lock(setup: &Setup) -> io::Result<File> {
    let mut lock = File::options().create(true).truncate(false).write(true).open(path(&setup.lock))?;
    if fcntl_lock(lock.as_fd(), FlockOperation::NonBlockingLockExclusive).is_err() {
        return Err(io::Error::other("it runs already"));
    }
    lock.set_len(0)?;
    writeln!(lock, "{}", rustix::process::getpid().as_raw_nonzero())?;
    Ok(lock)
}

fn begin(setup: &Setup, groups: &Groups<'_>, pid: i32, go: &OwnedFd) -> io::Result<()> {
    let line = |map: IdMap| format!("{} {} {}", map.inside, map.outside, map.count);
    if !setup.shifted {
        fs::write(format!("/proc/{pid}/setgroups"), "deny").map_err(wrong("fixing", "the groups"))?;
    }
    fs::write(format!("/proc/{pid}/uid_map"), line(setup.uids)).map_err(wrong("mapping", "user ids"))?;
    fs::write(format!("/proc/{pid}/gid_map"), line(setup.gids)).map_err(wrong("mapping", "group ids"))?;
    groups.join(pid)?;
    rustix::io::write(go, b"g")?;
    Ok(())
}

fn tell_end(setup: &Setup, status: i32) {
    let Some(exit) = &setup.exit else { return };
    let code = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) };
    // Nobody is left to hear of a failure; without the file the code is unknown.
    drop(fs::write(path(exit), format!("{code}\n")));
}

/// The control groups of the sandbox, removed at the end.
struct Groups<'a>(&'a [CgroupPlan]);

impl Groups<'_> {
    fn make(&self) -> io::Result<()> {
        for group in self.0 {
            let at = path(&group.path);
            if let Some(parent) = at.parent() {
                fs::create_dir_all(parent).map_err(wrong("making the control group", shown(&group.path)))?;
                delegate(parent);
            }
            fs::create_dir_all(at).map_err(wrong("making the control group", shown(&group.path)))?;
            for (file, value) in &group.limits {
                fs::write(at.join(path(file)), value)
                    .map_err(wrong("limiting by", format!("{}/{}", shown(&group.path), shown(file))))?;
            }
        }
        Ok(())
    }

    fn join(&self, pid: i32) -> io::Result<()> {
        for group in self.0 {
            fs::write(path(&group.path).join("cgroup.procs"), pid.to_string())
                .map_err(wrong("joining", shown(&group.path)))?;
        }
        Ok(())
    }
}

impl Drop for Groups<'_> {
    fn drop(&mut self) {
        for group in self.0 {
            let mut waited = Duration::ZERO;
            while fs::remove_dir(path(&group.path))
                .is_err_and(|error| error.kind() != io::ErrorKind::NotFound)
                && waited < EMPTYING
            {
                std::thread::sleep(Duration::from_micros(500));
                waited += Duration::from_micros(500);
            }
        }
    }
}

/// Gives the groups below a directory of version 2 what limits need. Where it cannot be had, setting a limit fails.
fn delegate(parent: &Path) {
    let above: Vec<&Path> =
        parent.ancestors().filter(|above| above.join("cgroup.subtree_control").exists()).collect();
    for at in above.into_iter().rev() {
        drop(fs::write(at.join("cgroup.subtree_control"), "+memory +cpu +pids"));
    }
}

/// Removes a tree: out of sight at once, and then for good.
fn remove(at: &Path) {
    let Some((parent, name)) = at.parent().zip(at.file_name()) else { return };
    let gone = parent.join(format!(".gone-{}-{}", std::process::id(), name.to_string_lossy()));
    if fs::rename(at, &gone).is_err() {
        return;
    }
    if fs::remove_dir_all(&gone).is_err() {
        open_up(&gone);
        drop(fs::remove_dir_all(&gone));
    }
}

/// Lets us into directories that their owner inside has closed: they are ours.
fn open_up(at: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if !fs::symlink_metadata(at).is_ok_and(|metadata| metadata.is_dir()) {
        return;
    }
    drop(fs::set_permissions(at, fs::Permissions::from_mode(0o700)));
    for entry in fs::read_dir(at).into_iter().flatten().flatten() {
        open_up(&entry.path());
    }
}
