//! What this machine and this user have: ids, control groups, limits.
use std::{fs, path::Path};

use agentkernel_core::{Error, ErrorKind, Result};

/// Control groups that limits can be set in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cgroups {
    /// None: limits of memory and processor time cannot be had.
    None,
    /// Version 1, a hierarchy for each controller; `swap` says whether swap is counted.
    V1 {
        /// Whether there is `memory.memsw.limit_in_bytes`.
        swap: bool,
    },
    /// Version 2.
    V2,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Machine {
    pub uid: u32,
    pub gid: u32,
    pub cgroups: Cgroups,
    /// The hard limit of open files.
    pub open_files: u64,
    pub kernel: String,
}

impl Machine {
    pub(crate) fn look() -> Self {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        Self {
            uid,
            gid,
            cgroups: if uid == 0 { cgroups(Path::new("/sys/fs/cgroup")) } else { Cgroups::None },
            open_files: limit.maximum.unwrap_or(1 << 20),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        }
    }

    pub(crate) fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// Says why no sandbox can be had, as far as it can be seen without trying.
    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |message: &'static str, hint: &'static str| {
            Err(Error::new(ErrorKind::Unavailable, "use the kernel", message)
                .with_context("kernel", &self.kernel)
                .with_hint(hint))
        };
        let number =
            |path: &str| fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
        if number("/proc/sys/user/max_user_namespaces") == Some(0) {
            return refuse(
                "user namespaces are switched off",
                "allow them: sudo sysctl user.max_user_namespaces=15000",
            );
        }
        if self.is_root() {
            return Ok(());
        }
        if number("/proc/sys/kernel/unprivileged_userns_clone") == Some(0) {
            return refuse(
                "user namespaces are for root only",
                "allow them: sudo sysctl kernel.unprivileged_userns_clone=1",
            );
        }
        if number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == Some(1) {
            return refuse(
                "AppArmor keeps user namespaces from programs without a profile",
                "allow them: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0",
            );
        }
        Ok(())
    }
}

fn cgroups(root: &Path) -> Cgroups {
    if root.join("cgroup.controllers").exists() {
        let there = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        let all = ["memory", "cpu", "pids"].iter().all(|name| there.split_whitespace().any(|it| it == *name));
        return if all { Cgroups::V2 } else { Cgroups::None };
    }
    let all =
        ["memory/memory.limit_in_bytes", "cpu/cgroup.procs", "cpuacct/cpuacct.usage", "pids/cgroup.procs"];
    if all.iter().all(|file| root.join(file).exists()) {
        Cgroups::V1 { swap: root.join("memory/memory.memsw.limit_in_bytes").exists() }
    } else {
        Cgroups::None
    }
}
