//! The limits and counters of the sandbox's own cgroup, version 1 or 2.
use std::fs;
use std::path::{Path, PathBuf};

use crate::protocol::ResourceStats;

/// Version 1 says "unlimited" with a number near the top of the address space.
const UNLIMITED: u64 = 1 << 60;

/// The limits; `None` is unlimited or unknown.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) memory: Option<u64>,
    pub(crate) memory_and_swap: Option<u64>,
    pub(crate) pids: Option<u64>,
    pub(crate) cpu_milli: Option<u64>,
}

/// Where the files of our cgroup are.
#[derive(Debug)]
pub(crate) struct Cgroup {
    unified: Option<PathBuf>,
    memory: PathBuf,
    pids: PathBuf,
    cpu: PathBuf,
    cpuacct: PathBuf,
}

impl Cgroup {
    /// Finds them: at the mount point itself in a cgroup namespace, else below it.
    pub(crate) fn find() -> Self {
        let list = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let root = Path::new("/sys/fs/cgroup");
        let unified = root.join("cgroup.controllers").exists().then(|| {
            let path = list.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
            below(root, path, "memory.max")
        });
        let controller = |name: &str, file: &str| {
            let path = list.lines().find_map(|line| {
                let mut fields = line.splitn(3, ':').skip(1);
                let controllers = fields.next()?;
                controllers.split(',').any(|it| it == name).then(|| fields.next()).flatten()
            });
            below(&root.join(name), path.unwrap_or("/"), file)
        };
        Self {
            unified,
            memory: controller("memory", "memory.limit_in_bytes"),
            pids: controller("pids", "pids.max"),
            cpu: controller("cpu", "cpu.cfs_quota_us"),
            cpuacct: controller("cpuacct", "cpuacct.usage"),
        }
    }

    /// Reads the limits.
    pub(crate) fn limits(&self) -> Limits {
        let Some(path) = &self.unified else {
            let limit = |path: PathBuf| number(&path).filter(|limit| *limit < UNLIMITED);
            let quota = number(&self.cpu.join("cpu.cfs_quota_us"));
            let period = number(&self.cpu.join("cpu.cfs_period_us"));
            return Limits {
                memory: limit(self.memory.join("memory.limit_in_bytes")),
                memory_and_swap: limit(self.memory.join("memory.memsw.limit_in_bytes")),
                pids: limit(self.pids.join("pids.max")),
                cpu_milli: milli(quota, period),
            };
        };
        let memory = number(&path.join("memory.max"));
        let swap = number(&path.join("memory.swap.max"));
        let cpu = fs::read_to_string(path.join("cpu.max")).unwrap_or_default();
        let mut cpu = cpu.split_whitespace().map(|word| word.parse().ok());
        Limits {
            memory,
            memory_and_swap: memory.zip(swap).map(|(memory, swap)| memory.saturating_add(swap)),
            pids: number(&path.join("pids.max")),
            cpu_milli: milli(cpu.next().flatten(), cpu.next().flatten()),
        }
    }

    /// Reads the counters.
    pub(crate) fn stats(&self) -> ResourceStats {
        match &self.unified {
            Some(path) => ResourceStats {
                cpu_usec: keyed(&path.join("cpu.stat"), "usage_usec"),
                memory_bytes: number(&path.join("memory.current")),
                pids: number(&path.join("pids.current")),
            },
            None => ResourceStats {
                cpu_usec: number(&self.cpuacct.join("cpuacct.usage")).map(|nanoseconds| nanoseconds / 1000),
                memory_bytes: number(&self.memory.join("memory.usage_in_bytes")),
                pids: number(&self.pids.join("pids.current")),
            },
        }
    }

    /// Returns how many processes the kernel has killed for want of memory.
    pub(crate) fn oom_kills(&self) -> u64 {
        let path = match &self.unified {
            Some(path) => path.join("memory.events"),
            None => self.memory.join("memory.oom_control"),
        };
        keyed(&path, "oom_kill").unwrap_or(0)
    }
}

fn below(mount: &Path, path: &str, file: &str) -> PathBuf {
    let path = mount.join(path.trim_start_matches('/'));
    if path.join(file).exists() { path } else { mount.to_path_buf() }
}

fn milli(quota: Option<u64>, period: Option<u64>) -> Option<u64> {
    quota?.checked_mul(1000)?.checked_div(period?)
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn keyed(path: &Path, key: &str) -> Option<u64> {
    let content = fs::read_to_string(path).ok()?;
    content.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}
