//! Memory and cpus, as far as this machine lets cgroups be made: what a VM of that size would enforce.
use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::call::state::{Record, uuid};

const ROOT: &str = "/sys/fs/cgroup";
const OURS: &str = "agentkernel-stand-in";

/// The groups of a container; gone with this value.
#[derive(Debug)]
pub(crate) struct Groups(Vec<PathBuf>);

impl Groups {
    /// Makes what can be made.
    pub(crate) fn new(record: &Record) -> Self {
        let name = format!("{OURS}/{}-{}", record.id, uuid());
        let quota = record.cpus.saturating_mul(100_000).to_string();
        let memory = record.memory.to_string();
        let root = Path::new(ROOT);
        let mut made = Vec::new();
        let settings: &[(PathBuf, &str, &str)] = &if root.join("cgroup.controllers").exists() {
            let _ = fs::create_dir_all(root.join(OURS));
            for directory in [root.to_owned(), root.join(OURS)] {
                let _ = fs::write(directory.join("cgroup.subtree_control"), "+memory +cpu");
            }
            [(root.join(&name), "memory.max", memory.as_str()), (root.join(&name), "cpu.max", quota.as_str())]
        } else {
            [
                (root.join("memory").join(&name), "memory.limit_in_bytes", memory.as_str()),
                (root.join("cpu").join(&name), "cpu.cfs_quota_us", quota.as_str()),
            ]
        };
        for (directory, file, value) in settings {
            if directory.ancestors().nth(2).is_some_and(Path::exists) && fs::create_dir_all(directory).is_ok()
            {
                let _ = fs::write(directory.join(file), value);
                made.push(directory.clone());
            }
        }
        made.dedup();
        Self(made)
    }

    pub(crate) fn paths(&self) -> &[PathBuf] {
        &self.0
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for directory in &self.0 {
            // The last processes may just be going.
            for _ in 0..100 {
                if fs::remove_dir(directory).is_ok() || !directory.exists() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
    }
}

/// The groups of ours that this process is in.
pub(crate) fn of(pid: i32) -> Vec<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let mut found = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controller, path) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        if path.contains(OURS) {
            found.push(Path::new(ROOT).join(controller).join(path.trim_start_matches('/')));
        }
    }
    found
}
