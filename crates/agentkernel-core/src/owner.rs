//! Who a sandbox belongs to, and whether that process still lives.
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The process that a sandbox belongs to, named so that neither a reused process id nor a reboot nor another machine on
/// the same engine can be taken for it.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The machine (`/etc/machine-id`, machine-id(5); elsewhere its hardware's id).
    pub host_id: String,
    /// The boot of that machine (`/proc/sys/kernel/random/boot_id`); one word where start times tell boots apart.
    pub boot_id: String,
    /// Inode of the process's pid namespace (namespaces(7)); 0 where there are none.
    pub pid_namespace: u64,
    /// Process id in that namespace.
    pub pid: u32,
    /// Start time in clock ticks since boot (field 22 of proc_pid_stat(5)); elsewhere in seconds since 1970.
    pub started: u64,
    /// Effective user id.
    pub uid: u32,
}

impl Owner {
    /// Makes an owner from its parts.
    pub fn new(
        host_id: impl Into<String>,
        boot_id: impl Into<String>,
        pid_namespace: u64,
        pid: u32,
        started: u64,
        uid: u32,
    ) -> Self {
        Self { host_id: host_id.into(), boot_id: boot_id.into(), pid_namespace, pid, started, uid }
    }
}

/// Whether a sandbox still has a reason to exist. Only [`Dead`](Self::Dead) and [`Expired`](Self::Expired) are reaped.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Liveness {
    /// Its owner lives.
    Alive,
    /// Its owner is gone: same host and user, and another boot, or gone in our own pid namespace.
    Dead,
    /// Its deadline passed.
    Expired,
    /// It has no owner on purpose.
    Detached,
    /// Its owner cannot be seen from here.
    Unknown,
}

/// What a backend found out about this process, since core does no I/O.
#[derive(Debug, Clone)]
pub struct HostContext {
    /// The caller's working directory, absolute.
    pub cwd: PathBuf,
    /// The caller's home directory.
    pub home: Option<PathBuf>,
    /// This process.
    pub owner: Owner,
}
