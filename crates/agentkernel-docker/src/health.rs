//! What an engine can do here, read from its own description of itself.
use agentkernel_core::{Capabilities, Capability, Error, ErrorKind, Health, Isolation, Result};
use bollard::models::SystemInfo;

use crate::{EngineKind, address::Address, place::Place};

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

/// Reads the description of an engine there.
///
/// # Errors
/// `Unavailable` for an engine whose containers are not Linux's.
pub(crate) fn read(info: &SystemInfo, kind: EngineKind, place: Place, address: &Address) -> Result<Health> {
    let system = info.os_type.as_deref().unwrap_or_default();
    if system != "linux" {
        return Err(Error::new(ErrorKind::Unavailable, "use the engine", "its containers are not of Linux")
            .with_context("system", system.chars().take(MAX_TEXT).collect::<String>())
            .with_hint("switch it to Linux containers"));
    }
    let options = info.security_options.clone().unwrap_or_default();
    let has = |name: &str| options.iter().any(|option| option.split(',').any(|part| part == name));
    let mut capabilities = kind.upper_bound();
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
    if place == Place::Elsewhere {
        // A path would be one of the engine's machine.
        capabilities = capabilities.without(Capability::BindMount);
    }
    if let Some(exposure) = address.exposure() {
        warnings.push(format!("The engine at {address} is reached {exposure}."));
    }
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

    fn read(info: &SystemInfo) -> Result<Health> {
        super::read(info, EngineKind::Docker, Place::Here, &Address::Unix("/s".into()))
    }

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
        let health = read(&info()).unwrap();
        assert_eq!(health.capabilities, UPPER_BOUND.with_isolation(Isolation::RootContainer));
        assert!(health.warnings.is_empty() && !recursive_read_only(&health));
    }

    #[test]
    fn a_rootless_engine_is_a_userns_container() {
        let options = Some(vec!["name=seccomp,profile=builtin".into(), "name=rootless".into()]);
        let health = read(&SystemInfo { security_options: options, ..info() }).unwrap();
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
        let capabilities = read(&weak).unwrap().capabilities;
        for lacks in
            [Capability::MemoryLimit, Capability::PidsLimit, Capability::DiskLimit, Capability::SyscallFilter]
        {
            assert!(!capabilities.has(lacks), "{lacks}");
        }
    }

    #[test]
    fn elsewhere_no_path_of_ours_can_be_mounted_and_an_open_port_is_told() {
        let read = |address| {
            super::read(&info(), EngineKind::Docker, Place::Elsewhere, &Address::tcp(address).unwrap())
                .unwrap()
        };
        let (loopback, open) = (read("127.0.0.1:1"), read("10.1.2.3:2375"));
        assert!(!loopback.capabilities.has(Capability::BindMount) && loopback.warnings.is_empty());
        assert!(open.warnings[0].contains("tcp://10.1.2.3:2375"), "{:?}", open.warnings);
    }

    #[test]
    fn an_engine_of_another_system_is_unavailable() {
        for system in [None, Some("windows".to_owned())] {
            let info = SystemInfo { os_type: system, ..info() };
            let refused =
                super::read(&info, EngineKind::Docker, Place::Elsewhere, &Address::Unix("/s".into()));
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unavailable);
        }
    }
}
