//! Systems without Linux's `/proc`, macOS above all: the machine's own id, and start times in seconds since 1970, which tell
//! a process from a later one of its number across boots too.
use std::time::{SystemTime, UNIX_EPOCH};

use agentkernel_core::{Owner, Result};
use rustix::{
    io::Errno,
    net::SendFlags,
    process::{Pid, test_kill_process},
};
use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, Product, System};

/// There is no such flag here: whoever uses the library ignores the signal, as every Rust program does.
#[cfg_attr(test, expect(dead_code, reason = "Linux has a flag"))]
pub(crate) const QUIET: SendFlags = SendFlags::empty();
/// Boots are not told apart, and there is one namespace.
const ONLY: (&str, u64) = ("-", 0);

/// Returns this process as an owner.
#[cfg_attr(test, expect(clippy::unnecessary_wraps, reason = "it can fail on Linux"))]
pub(crate) fn this_process() -> Result<Owner> {
    let pid = std::process::id();
    let uid = rustix::process::geteuid().as_raw();
    Ok(owner(Product::uuid(), pid, started(pid), uid))
}

/// An owner of which nothing can be proven has a machine that no other has: it stays unknown.
fn owner(machine: Option<String>, pid: u32, started: Option<Option<u64>>, uid: u32) -> Owner {
    let (boot, namespace) = ONLY;
    if let (Some(machine), Some(Some(started))) = (machine.filter(|machine| !machine.is_empty()), started) {
        return Owner::new(machine, boot, namespace, pid, started, uid);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos());
    Owner::new(format!("unknown-{pid}-{now}"), boot, namespace, pid, 0, uid)
}

/// Returns when a process started, in seconds since 1970: `Some(None)` if there is none, `None` if that is not known.
pub(crate) fn started(pid: u32) -> Option<Option<u64>> {
    let mut system = System::new();
    let number = sysinfo::Pid::from_u32(pid);
    let one = ProcessesToUpdate::Some(&[number]);
    system.refresh_processes_specifics(one, true, ProcessRefreshKind::nothing());
    match system.process(number).map(sysinfo::Process::start_time) {
        Some(started) if started > 0 => Some(Some(started)),
        _ => is_gone(pid).then_some(None),
    }
}

/// Tells what is proven to be gone; one that may not be looked at is not.
fn is_gone(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn this_process_started_once_and_not_in_the_future() {
        let us = started(std::process::id()).unwrap().unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!(us <= now + 1, "{us} {now}");
        assert_eq!(started(std::process::id()), Some(Some(us)));
        assert_eq!(this_process().unwrap().pid, std::process::id());
    }

    #[test]
    fn one_that_has_ended_is_gone() {
        let mut child = Command::new("true").stdin(Stdio::null()).spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert_eq!(started(pid), Some(None));
    }

    #[test]
    fn what_is_no_process_is_not_known() {
        assert_eq!(started(0), None);
        assert_eq!(started(u32::MAX), None);
    }

    #[test]
    fn a_machine_that_tells_itself_has_owners_that_can_be_judged() {
        let ours = owner(Some("uuid".into()), 7, Some(Some(5)), 501);
        assert_eq!(ours, Owner::new("uuid", "-", 0, 7, 5, 501));
    }

    #[test]
    fn without_a_machine_or_a_start_time_no_two_owners_are_of_one_machine() {
        for (machine, started) in [
            (None, Some(Some(5))),
            (Some(String::new()), Some(Some(5))),
            (Some("uuid".into()), None),
            (Some("uuid".into()), Some(None)),
        ] {
            let ours = owner(machine.clone(), 7, started, 501);
            assert_ne!(ours.host_id, owner(machine, 8, started, 501).host_id);
        }
    }
}
