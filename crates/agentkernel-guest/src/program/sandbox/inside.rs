//! The sandbox's first process on its way: from the fork to the guest. What it gives up it never gets back.
use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{self, CapabilitySet, CapabilitySets, Gid, Uid};

use super::collect::{Collected, collect};
use super::mount::{failed, wrong};
use super::{filter, root};
use crate::program::boot::{Meeting, boot};
use crate::program::event_loop::Guest;
use crate::program::identity;
use crate::setup::Setup;
use crate::sys;

/// Sets everything up and becomes the guest. `alive` ends with the helper.
pub(crate) fn enter(
    setup: &Setup,
    collected: Option<Collected>,
    go: OwnedFd,
    alive: OwnedFd,
) -> io::Result<Guest> {
    let mut byte = [0u8];
    if rustix::io::read(&go, &mut byte)? == 0 {
        // The helper has said why.
        sys::exit(super::super::FAILED);
    }
    drop(go);
    // A session of its own: no terminal of the host.
    rustix::process::setsid().ok();
    if setup.shifted {
        thread::set_thread_groups(&[]).map_err(failed("dropping", "groups"))?;
        let (uid, gid) = (Uid::from_raw(setup.uids.inside), Gid::from_raw(setup.gids.inside));
        thread::set_thread_res_gid(gid, gid, gid).map_err(failed("becoming", "the sandbox's group"))?;
        thread::set_thread_res_uid(uid, uid, uid).map_err(failed("becoming", "the sandbox's root"))?;
    }
    let collected = match collected {
        Some(collected) => collected,
        None => collect(setup)?,
    };
    root::build(setup, collected)?;
    rustix::system::sethostname(&setup.hostname).map_err(failed("setting", "the host name"))?;
    if !setup.host_network {
        sys::loopback_up().map_err(wrong("bringing up", "lo"))?;
    }
    limit(setup)?;
    let program = setup.filter.then(filter::program);
    drop_rights(setup)?;
    if let Some(program) = program {
        sys::filter(&program).map_err(wrong("filtering", "system calls"))?;
    }
    give_up(setup)?;
    rustix::stdio::dup2_stdout(&alive)?;
    // The guest closes whatever it was not given.
    drop(alive);
    boot(Meeting::Inherited)
}

fn limit(setup: &Setup) -> io::Result<()> {
    let limits = [(Resource::Nofile, setup.open_files), (Resource::Nproc, setup.processes)];
    for (resource, limit) in limits {
        if let Some(limit) = limit {
            let both = Rlimit { current: Some(limit), maximum: Some(limit) };
            setrlimit(resource, both).map_err(failed("limiting", format!("{resource:?} to {limit}")))?;
        }
    }
    // Not 0, with which the kernel still starts the host's own collector of dumps: 1 is too little for a file, and stops
    // that as well (core(5)).
    let none = Rlimit { current: Some(1), maximum: Some(1) };
    setrlimit(Resource::Core, none).map_err(failed("limiting", "core dumps"))
}

/// What needs rights over oneself: the bounding set.
fn drop_rights(setup: &Setup) -> io::Result<()> {
    identity::drop_bounding(setup.capabilities).map_err(failed("dropping", "capabilities"))?;
    thread::clear_ambient_capability_set().map_err(failed("dropping", "capabilities"))?;
    if setup.no_new_privileges {
        thread::set_no_new_privs(true).map_err(failed("giving up", "new privileges"))?;
    }
    Ok(())
}

/// The last step: everything that init does not need.
fn give_up(setup: &Setup) -> io::Result<()> {
    let kept = CapabilitySet::from_bits_retain(setup.capabilities);
    let inheritable = CapabilitySet::empty();
    thread::set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable })
        .map_err(failed("dropping", "capabilities"))
}
