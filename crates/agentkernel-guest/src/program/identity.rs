//! Who a command is: user, groups, capabilities; and how a process becomes that, for good.
use std::io;

use rustix::fs::{Mode, OFlags, open};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{self, CapabilitySet, CapabilitySets, Gid, Uid};

use crate::protocol::INIT_UID;

/// A user inside the sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: Option<Vec<u8>>,
}

/// What commands may beyond their user.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rights {
    /// The capabilities that they keep.
    pub(crate) keep: u64,
    pub(crate) no_new_privileges: bool,
    /// The guest has a uid of its own: then every step must succeed. Otherwise groups stay where a user namespace
    /// does not let them be set.
    pub(crate) strict: bool,
}

/// The step of [`become_command`] that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Groups,
    Group,
    User,
    Capabilities,
    Privileges,
}

/// Turns the calling process into `identity`, irrevocably, and checks that it happened.
pub(crate) fn become_command(identity: &Identity, rights: Rights) -> Result<(), (Step, io::Error)> {
    let at = |step| move |errno: rustix::io::Errno| (step, io::Error::from(errno));
    let groups: Vec<Gid> = identity.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    match thread::set_thread_groups(&groups) {
        Err(errno) if rights.strict => return Err((Step::Groups, errno.into())),
        _ => {}
    }
    // Without it, a move from uid 0 to another would empty the permitted set before it can be narrowed.
    thread::set_keep_capabilities(true).map_err(at(Step::Capabilities))?;
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    thread::set_thread_res_gid(gid, gid, gid).map_err(at(Step::Group))?;
    thread::set_thread_res_uid(uid, uid, uid).map_err(at(Step::User))?;
    if !rights.no_new_privileges {
        drop_bounding(rights.keep).map_err(at(Step::Capabilities))?;
    }
    let keep = CapabilitySet::from_bits_retain(rights.keep);
    thread::clear_ambient_capability_set().map_err(at(Step::Capabilities))?;
    thread::set_capabilities(None, CapabilitySets { effective: keep, permitted: keep, inheritable: keep })
        .map_err(at(Step::Capabilities))?;
    for capability in bits(rights.keep) {
        thread::configure_capability_in_ambient_set(capability, true).map_err(at(Step::Capabilities))?;
    }
    thread::set_keep_capabilities(false).map_err(at(Step::Capabilities))?;
    if rights.no_new_privileges {
        thread::set_no_new_privs(true).map_err(at(Step::Privileges))?;
    }
    // An identity that was not taken would be an escape: ask, do not believe.
    if (rustix::process::getuid(), rustix::process::geteuid()) != (uid, uid) {
        return Err((Step::User, io::ErrorKind::PermissionDenied.into()));
    }
    if (rustix::process::getgid(), rustix::process::getegid()) != (gid, gid) {
        return Err((Step::Group, io::ErrorKind::PermissionDenied.into()));
    }
    Ok(())
}

fn bits(set: u64) -> impl Iterator<Item = CapabilitySet> {
    (0..64u32).map(|bit| 1u64 << bit).filter(move |bit| set & bit != 0).map(CapabilitySet::from_bits_retain)
}

/// Drops every capability but these from the bounding set.
pub(crate) fn drop_bounding(keep: u64) -> rustix::io::Result<()> {
    for capability in bits(!keep) {
        match thread::capability_is_in_bounding_set(capability) {
            Ok(true) => thread::remove_capability_from_bounding_set(capability)?,
            Ok(false) => {}
            // Beyond the last capability that the kernel knows.
            Err(_) => break,
        }
    }
    Ok(())
}

/// Returns the bounding set of the calling process.
pub(crate) fn bounding() -> u64 {
    bits(u64::MAX)
        .filter(|bit| thread::capability_is_in_bounding_set(*bit).unwrap_or(false))
        .fold(0, |all, bit| all | bit.bits())
}

/// Moves the guest itself to [`INIT_UID`] with exactly what it needs.
pub(crate) fn become_init(rights: Rights) -> io::Result<()> {
    let mut needed = CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::KILL;
    if !rights.no_new_privileges {
        needed |= CapabilitySet::SETPCAP;
    }
    let needed = needed | CapabilitySet::from_bits_retain(rights.keep);
    let held = thread::capabilities(None)?.permitted;
    if !held.contains(needed) {
        let missing = (needed - held).bits();
        return Err(io::Error::other(format!(
            "the sandbox lacks capabilities that the guest needs: {missing:#x}"
        )));
    }
    thread::set_keep_capabilities(true)?;
    thread::set_thread_groups(&[])?;
    let (uid, gid) = (Uid::from_raw(INIT_UID), Gid::from_raw(INIT_UID));
    thread::set_thread_res_gid(gid, gid, gid)?;
    thread::set_thread_res_uid(uid, uid, uid)?;
    let inheritable = CapabilitySet::empty();
    thread::set_capabilities(None, CapabilitySets { effective: needed, permitted: needed, inheritable })?;
    thread::set_keep_capabilities(false)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Makes the kernel choose the calling process before the guest when memory runs out. Best effort; before the uid
/// changes, and dumpable for as long, since the file otherwise belongs to root.
pub(crate) fn offer_to_oom_killer() {
    set_dumpable_behavior(DumpableBehavior::Dumpable).ok();
    if let Ok(file) = open("/proc/self/oom_score_adj", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        rustix::io::write(file, b"500").ok();
    }
    set_dumpable_behavior(DumpableBehavior::NotDumpable).ok();
}
