//! What a Podman on this machine can do, read where it reads it itself: in the cgroup file system and from who serves its
//! socket. Its own description takes 0.4 s, for programs whose versions it asks; what it cannot enforce after all, the
//! guest finds at the start.
use std::{
    fs,
    path::{Path, PathBuf},
};

use bollard::models::SystemInfo;

/// Describes the Podman that this user serves. `kernel` is the release of the kernel.
pub(crate) fn describe(version: Option<&str>, uid: u32, kernel: &str) -> SystemInfo {
    describe_at(Path::new("/"), version, uid, kernel)
}

fn describe_at(root: &Path, version: Option<&str>, uid: u32, kernel: &str) -> SystemInfo {
    let limits = Limits::read(&root.join("sys/fs/cgroup"), uid);
    let mut security_options = Vec::new();
    if root.join("proc/sys/kernel/seccomp/actions_avail").exists() {
        security_options.push("name=seccomp,profile=default".to_owned());
    }
    if uid != 0 {
        security_options.push("name=rootless".to_owned());
    }
    SystemInfo {
        os_type: Some("linux".to_owned()),
        kernel_version: Some(kernel.to_owned()),
        server_version: version.map(str::to_owned),
        memory_limit: Some(limits.memory),
        swap_limit: Some(limits.swap),
        cpu_cfs_quota: Some(limits.cpu),
        pids_limit: Some(limits.pids),
        security_options: Some(security_options),
        ..SystemInfo::default()
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Limits {
    memory: bool,
    swap: bool,
    cpu: bool,
    pids: bool,
}

impl Limits {
    /// Reads what there is: of cgroups(7) version 2 what the user has been delegated, of version 1 all or, but for root,
    /// nothing.
    fn read(cgroup: &Path, uid: u32) -> Self {
        if !cgroup.join("cgroup.controllers").exists() {
            let has = |file: &str| uid == 0 && cgroup.join(file).exists();
            return Self {
                memory: has("memory/memory.limit_in_bytes"),
                swap: has("memory/memory.memsw.limit_in_bytes"),
                cpu: has("cpu/cpu.cfs_quota_us") || has("cpu,cpuacct/cpu.cfs_quota_us"),
                pids: has("pids"),
            };
        }
        let delegated = match uid {
            0 => PathBuf::new(),
            uid => PathBuf::from(format!("user.slice/user-{uid}.slice/user@{uid}.service")),
        };
        let controllers = cgroup.join(delegated).join("cgroup.controllers");
        let controllers = fs::read_to_string(controllers).unwrap_or_default();
        let has = |name| controllers.split_ascii_whitespace().any(|controller| controller == name);
        Self { memory: has("memory"), swap: has("memory"), cpu: has("cpu"), pids: has("pids") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        dir
    }

    fn limits(machine: &tempfile::TempDir, uid: u32) -> [bool; 4] {
        let info = describe_at(machine.path(), Some("4.3.1"), uid, "6.1");
        [info.memory_limit, info.swap_limit, info.cpu_cfs_quota, info.pids_limit]
            .map(|limit| limit == Some(true))
    }

    #[test]
    fn of_version_1_only_root_has_anything() {
        let machine = machine(&[
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", ""),
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", ""),
            ("sys/fs/cgroup/pids/tasks", ""),
        ]);
        assert_eq!(limits(&machine, 0), [true, false, true, true]);
        assert_eq!(limits(&machine, 1000), [false; 4]);
    }

    #[test]
    fn of_version_2_a_user_has_what_was_delegated() {
        let machine = machine(&[
            ("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n"),
            (
                "sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/cgroup.controllers",
                "memory pids\n",
            ),
        ]);
        assert_eq!(limits(&machine, 0), [true; 4]);
        assert_eq!(limits(&machine, 1000), [true, true, false, true]);
        assert_eq!(limits(&machine, 1001), [false; 4]);
    }

    #[test]
    fn another_user_than_root_is_rootless() {
        let machine = machine(&[("proc/sys/kernel/seccomp/actions_avail", "kill\n")]);
        let options = |uid| describe_at(machine.path(), None, uid, "6.1").security_options.unwrap();
        assert_eq!(options(0), ["name=seccomp,profile=default"]);
        assert_eq!(options(1000), ["name=seccomp,profile=default", "name=rootless"]);
    }
}
