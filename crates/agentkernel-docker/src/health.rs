//! What an engine can do here, read from its own description of itself.
use agentkernel_core::{Capabilities, Capability, Error, ErrorKind, Health, Isolation, Result};
use bollard::models::SystemInfo;

/// What the backend does on an engine and a kernel that have everything.
pub(crate) const UPPER_BOUND: Capabilities = Capabilities::new(Isolation::UsernsContainer).with_all(&[
    Capability::ExecStdin,
    Capability::ExecTty,
    Capability::ExecSignal,
    Capability::ExecUser,
    Capability::ExecDetached,
    Capability::TypedExit,
    Capability::KillTree,
    Capability::RawBytes,
    Capability::Files,
    Capability::BindMount,
    Capability::Volume,
    Capability::Tmpfs,
    Capability::Forward,
    Capability::PortMapping,
    Capability::NetworkNone,
    Capability::NetworkFull,
    Capability::CpuLimit,
    Capability::MemoryLimit,
    Capability::PidsLimit,
    Capability::OpenFilesLimit,
    Capability::DiskLimit,
    Capability::ReadOnlyRoot,
    Capability::DropCapabilities,
    Capability::NoNewPrivileges,
    Capability::SyscallFilter,
    Capability::Lease,
    Capability::Persistence,
    Capability::Snapshot,
    Capability::Logs,
    Capability::Stats,
]);

/// The longest text of the engine's that is shown.
const MAX_TEXT: usize = 300;

/// Reads the engine's description. `kernel` is the release of the kernel that this process runs on.
///
/// # Errors
/// `Unavailable` for an engine that runs on another kernel, as Docker Desktop's does: the guest's socket cannot reach it.
pub(crate) fn read(info: &SystemInfo, kernel: &str) -> Result<Health> {
    let theirs = info.kernel_version.as_deref().unwrap_or_default();
    let system = info.os_type.as_deref().unwrap_or_default();
    if system != "linux" || theirs != kernel {
        return Err(Error::new(
            ErrorKind::Unavailable,
            "use the engine",
            "it runs on another kernel, in a virtual machine or on another host",
        )
        .with_context("engine's kernel", format_args!("{system} {theirs}"))
        .with_context("our kernel", kernel)
        .with_hint("use an engine of this machine: apt-get install docker.io, and DOCKER_CONTEXT=default"));
    }
    let options = info.security_options.clone().unwrap_or_default();
    let has = |name: &str| options.iter().any(|option| option.split(',').any(|part| part == name));
    let mut capabilities = UPPER_BOUND;
    if !has("name=rootless") && !has("name=userns") {
        capabilities = capabilities.with_isolation(Isolation::RootContainer);
    }
    // Few can, so that is worth no warning. Overlay could on xfs with project quotas, which it does not tell.
    if info.driver.as_deref() != Some("btrfs") {
        capabilities = capabilities.without(Capability::DiskLimit);
    }
    let filter = options.iter().find(|option| option.split(',').any(|part| part == "name=seccomp"));
    let limits = [
        (Capability::MemoryLimit, info.memory_limit == Some(true) && info.swap_limit == Some(true)),
        (Capability::CpuLimit, info.cpu_cfs_quota == Some(true)),
        (Capability::PidsLimit, info.pids_limit == Some(true)),
        (Capability::SyscallFilter, filter.is_some_and(|filter| !filter.contains("profile=unconfined"))),
    ];
    let mut warnings = Vec::new();
    for (capability, there) in limits {
        if !there {
            capabilities = capabilities.without(capability);
            warnings.push(format!("The engine cannot enforce `{capability}` on this machine."));
        }
    }
    let shown = |text: &String| text.chars().take(MAX_TEXT).collect::<String>();
    warnings.extend(info.warnings.iter().flatten().take(20).map(shown));
    let version = info.server_version.as_ref().map(shown).unwrap_or_default();
    Ok(Health { version, capabilities, warnings })
}

/// Returns whether the engine makes read-only mounts read-only all the way down: Docker does since version 25.
pub(crate) fn recursive_read_only(health: &Health) -> bool {
    let major = health.version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    major.is_some_and(|major| major >= 25)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> SystemInfo {
        SystemInfo {
            os_type: Some("linux".into()),
            driver: Some("btrfs".into()),
            kernel_version: Some("6.1".into()),
            server_version: Some("20.10.24".into()),
            memory_limit: Some(true),
            swap_limit: Some(true),
            cpu_cfs_quota: Some(true),
            pids_limit: Some(true),
            security_options: Some(vec!["name=seccomp,profile=default".into()]),
            ..SystemInfo::default()
        }
    }

    #[test]
    fn a_rootful_engine_is_a_root_container() {
        let health = read(&info(), "6.1").unwrap();
        assert_eq!(health.capabilities, UPPER_BOUND.with_isolation(Isolation::RootContainer));
        assert!(health.warnings.is_empty() && !recursive_read_only(&health));
    }

    #[test]
    fn a_rootless_engine_is_a_userns_container() {
        let options = Some(vec!["name=seccomp,profile=builtin".into(), "name=rootless".into()]);
        let health = read(&SystemInfo { security_options: options, ..info() }, "6.1").unwrap();
        assert_eq!(health.capabilities.isolation(), Isolation::UsernsContainer);
    }

    #[test]
    fn what_the_engine_lacks_is_not_claimed() {
        let weak = SystemInfo {
            swap_limit: Some(false),
            pids_limit: None,
            driver: Some("overlay2".into()),
            security_options: Some(vec!["name=seccomp,profile=unconfined".into()]),
            ..info()
        };
        let capabilities = read(&weak, "6.1").unwrap().capabilities;
        for lacks in
            [Capability::MemoryLimit, Capability::PidsLimit, Capability::DiskLimit, Capability::SyscallFilter]
        {
            assert!(!capabilities.has(lacks), "{lacks}");
        }
    }

    #[test]
    fn another_kernel_is_unavailable() {
        assert_eq!(read(&info(), "6.2").unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(read(&SystemInfo::default(), "").unwrap_err().kind(), ErrorKind::Unavailable);
    }
}
