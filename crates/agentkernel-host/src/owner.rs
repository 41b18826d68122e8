//! This process as an owner, and whether an owner still lives.
use std::{
    env,
    path::PathBuf,
    sync::OnceLock,
    time::{SystemTime, UNIX_EPOCH},
};

use agentkernel_core::{Error, ErrorKind, HostContext, Lifetime, Liveness, Owner, Result};

use crate::os;

/// Returns what a backend knows of this process: working directory, home and owner.
///
/// # Errors
/// `Unavailable` if the working directory is gone or, on Linux, `/proc` does not tell who we are.
pub fn host_context() -> Result<HostContext> {
    let cwd = env::current_dir().map_err(|source| {
        Error::new(
            ErrorKind::Unavailable,
            "find the working directory",
            "it does not exist or cannot be read",
        )
        .with_source(source)
        .with_hint("change to a directory that exists")
    })?;
    let home = env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    Ok(HostContext { cwd, home, owner: current_owner()? })
}

/// Returns this process; read once.
fn current_owner() -> Result<Owner> {
    static OWNER: OnceLock<Owner> = OnceLock::new();
    if let Some(owner) = OWNER.get() {
        return Ok(owner.clone());
    }
    let owner = os::this_process()?;
    Ok(OWNER.get_or_init(|| owner).clone())
}

/// Judges whether a sandbox still has a reason to exist. `deadline` is in seconds since 1970.
///
/// An owner is dead only if host and user are ours and either the boot is another, or in our own pid namespace the
/// process is gone or started at another time. Everything else is unknown.
pub fn liveness(lifetime: Lifetime, owner: Option<&Owner>, deadline: Option<u64>) -> Liveness {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    if deadline.is_some_and(|deadline| deadline <= now) {
        return Liveness::Expired;
    }
    if lifetime == Lifetime::Detached {
        return Liveness::Detached;
    }
    let (Some(owner), Ok(us)) = (owner, current_owner()) else { return Liveness::Unknown };
    judge(owner, &us, os::started)
}

/// `started` tells the start time of a process in our namespace: `Some(None)` if there is none, `None` if unknown.
fn judge(owner: &Owner, us: &Owner, started: impl Fn(u32) -> Option<Option<u64>>) -> Liveness {
    if owner == us {
        return Liveness::Alive;
    }
    if owner.host_id != us.host_id || owner.uid != us.uid {
        return Liveness::Unknown;
    }
    if owner.boot_id != us.boot_id {
        return Liveness::Dead;
    }
    if owner.pid_namespace != us.pid_namespace {
        return Liveness::Unknown;
    }
    match started(owner.pid) {
        Some(Some(time)) if time == owner.started => Liveness::Alive,
        Some(_) => Liveness::Dead,
        None => Liveness::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us() -> Owner {
        Owner::new("host", "boot", 7, 100, 5, 1000)
    }

    #[test]
    fn this_process_is_alive() {
        let owner = current_owner().unwrap();
        assert_eq!(liveness(Lifetime::Owned, Some(&owner), None), Liveness::Alive);
    }

    #[test]
    fn a_process_that_is_gone_or_reused_is_dead() {
        let owner = Owner::new("host", "boot", 7, 99, 5, 1000);
        assert_eq!(judge(&owner, &us(), |_| Some(None)), Liveness::Dead);
        assert_eq!(judge(&owner, &us(), |_| Some(Some(6))), Liveness::Dead);
        assert_eq!(judge(&owner, &us(), |_| Some(Some(5))), Liveness::Alive);
        assert_eq!(judge(&owner, &us(), |_| None), Liveness::Unknown);
    }

    #[test]
    fn another_boot_is_dead() {
        let owner = Owner::new("host", "earlier", 7, 100, 5, 1000);
        assert_eq!(judge(&owner, &us(), |_| None), Liveness::Dead);
    }

    #[test]
    fn another_host_user_or_namespace_is_unknown() {
        for owner in [
            Owner::new("other", "boot", 7, 100, 5, 1000),
            Owner::new("host", "boot", 7, 100, 5, 0),
            Owner::new("host", "boot", 8, 100, 5, 1000),
            Owner::new("other", "earlier", 7, 100, 5, 1000),
        ] {
            assert_eq!(judge(&owner, &us(), |_| Some(None)), Liveness::Unknown, "{owner:?}");
        }
    }

    #[test]
    fn a_deadline_that_passed_is_expired_whoever_owns_it() {
        assert_eq!(liveness(Lifetime::Detached, None, Some(1)), Liveness::Expired);
    }
}
