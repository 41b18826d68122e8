//! Whether the process that connected to the boot socket is the first process of the container that was just started.
use std::fs;

use agentkernel_core::{Error, ErrorKind, Result};

use crate::id::ContainerId;

/// Checks the peer by our own `/proc`: process 1 of its pid namespace, in a cgroup of the container's. Where the engine
/// does not name cgroups by containers, `told` says the pid that the engine knows.
///
/// # Errors
/// `Unsupported` if our `/proc` does not show the process; `PermissionDenied` if it is another one.
pub(crate) fn check(pid: Option<i32>, id: &ContainerId, told: impl FnOnce() -> Option<i64>) -> Result<()> {
    let unseen = || {
        Error::new(ErrorKind::Unsupported, "boot sandbox", "the guest's process cannot be seen from here")
            .with_hint("run agentkernel in the engine's own pid namespace, not inside a container")
    };
    let pid = pid.filter(|pid| *pid > 0).ok_or_else(unseen)?;
    let status =
        fs::read_to_string(format!("/proc/{pid}/status")).map_err(|error| unseen().with_source(error))?;
    let cgroup =
        fs::read_to_string(format!("/proc/{pid}/cgroup")).map_err(|error| unseen().with_source(error))?;
    let in_container = cgroup.contains(id.as_str()) || told() == Some(i64::from(pid));
    if is_first(&status) && in_container {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::PermissionDenied,
        "boot sandbox",
        "a process other than the sandbox's first one connected to its boot socket",
    )
    .with_context("pid", pid))
}

/// The last number of `NSpid` is the process's id in its own namespace (proc_pid_status(5)).
fn is_first(status: &str) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let ids = line.map(|ids| ids.split_ascii_whitespace().collect::<Vec<_>>()).unwrap_or_default();
    ids.len() > 1 && ids.last() == Some(&"1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> ContainerId {
        ContainerId::read(&"ab".repeat(32)).unwrap()
    }

    #[test]
    fn only_the_first_of_an_inner_namespace_is_first() {
        assert!(is_first("Name:\tguest\nNSpid:\t4711\t1\n"));
        assert!(is_first("NSpid:\t4711\t12\t1\n"));
        for bad in ["NSpid:\t1\n", "NSpid:\t4711\t7\n", "NSpid:\t4711\n", "Name:\tx\n", ""] {
            assert!(!is_first(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_process_of_the_host_is_refused() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let error = check(Some(pid), &id(), || Some(i64::from(pid))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    }

    #[test]
    fn a_process_that_cannot_be_seen_is_refused() {
        for pid in [None, Some(0), Some(i32::MAX)] {
            assert_eq!(check(pid, &id(), || None).unwrap_err().kind(), ErrorKind::Unsupported);
        }
    }
}
