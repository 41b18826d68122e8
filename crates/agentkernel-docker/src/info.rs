//! From what the engine says about a container to what is known of a sandbox.
use agentkernel_core::{
    BackendType, Capability, Enforcement, Isolation, Lifetime, Result, SandboxConfig, SandboxInfo, State,
};
use agentkernel_host::{StateLabels, liveness};
use bollard::models::{ContainerInspectResponse, ContainerState, ContainerStateStatusEnum, HostConfig};

use crate::{engine::container_name, id::ContainerId, request::image_of, verify};

/// A container of ours.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub id: ContainerId,
    pub labels: StateLabels,
    pub inspect: ContainerInspectResponse,
}

/// Reads a container; `None` if it is not ours: without our label, or with it under another name, as a container made
/// of an image that was once a sandbox has.
///
/// # Errors
/// `Unexpected` if it is ours and cannot be read.
pub(crate) fn read(inspect: ContainerInspectResponse) -> Result<Option<Found>> {
    let labels = inspect.config.as_ref().and_then(|config| config.labels.as_ref());
    let get = |name: &str| labels.and_then(|labels| labels.get(name)).map(String::as_str);
    let Some(labels) = StateLabels::decode(get) else { return Ok(None) };
    let labels = labels?;
    let name = inspect.name.as_deref().unwrap_or_default();
    if name.trim_start_matches('/') != container_name(&labels.name) {
        return Ok(None);
    }
    let id = ContainerId::read(inspect.id.as_deref().unwrap_or_default())?;
    Ok(Some(Found { id, labels, inspect }))
}

impl Found {
    pub(crate) fn state(&self) -> State {
        self.inspect.state.as_ref().map_or(State::Unknown, state)
    }

    pub(crate) fn exit_code(&self) -> Option<i32> {
        let code = self.inspect.state.as_ref().and_then(|state| state.exit_code);
        code.and_then(|code| i32::try_from(code).ok()).filter(|_| self.state() == State::Stopped)
    }

    pub(crate) fn host_config(&self) -> HostConfig {
        self.inspect.host_config.clone().unwrap_or_default()
    }

    pub(crate) fn info(&self, backend: BackendType, isolation: Isolation) -> SandboxInfo {
        let StateLabels { name, config, owner, created, deadline, .. } = &self.labels;
        let mut info = SandboxInfo::new(name.clone(), self.id.as_str(), backend, self.state());
        info.isolation = isolation;
        info.exit_code = self.exit_code();
        info.image = image_of(config).to_owned();
        info.digest = self.inspect.image.clone();
        info.created = *created;
        info.deadline = *deadline;
        info.lifetime = config.lifetime;
        info.owner = owner.clone();
        info.liveness = liveness(config.lifetime, owner.as_ref(), *deadline);
        info.ports.clone_from(&config.ports);
        info.labels = config.labels.clone();
        let networks = self.inspect.network_settings.as_ref().and_then(|all| all.networks.as_ref());
        let addresses = networks.into_iter().flatten().filter_map(|(_, network)| network.ip_address.as_ref());
        info.address = addresses.filter_map(|address| address.parse().ok()).next();
        info.restrictions = restrictions(config, &self.host_config());
        info
    }

    pub(crate) fn is_owned(&self) -> bool {
        self.labels.config.lifetime == Lifetime::Owned
    }
}

/// Returns where something is mounted: what was asked for, and what the image's own volumes add.
pub(crate) fn targets(inspect: &ContainerInspectResponse) -> Vec<String> {
    let host = inspect.host_config.as_ref();
    let asked = host.and_then(|host| host.mounts.as_ref()).into_iter().flatten();
    let made = inspect.mounts.iter().flatten().filter_map(|mount| mount.destination.clone());
    let mut all = asked.filter_map(|mount| mount.target.clone()).chain(made).collect::<Vec<_>>();
    all.sort_unstable();
    all.dedup();
    all
}

/// Maps the engine's word for a state.
pub(crate) fn state(state: &ContainerState) -> State {
    match state.status {
        Some(ContainerStateStatusEnum::CREATED) => State::Created,
        Some(ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::RESTARTING) => State::Running,
        Some(ContainerStateStatusEnum::PAUSED) => State::Paused,
        Some(ContainerStateStatusEnum::EXITED) => State::Stopped,
        Some(ContainerStateStatusEnum::DEAD | ContainerStateStatusEnum::REMOVING) => State::Dead,
        _ => State::Unknown,
    }
}

/// Returns what restricts a sandbox: what was asked for beside what the engine has, and defaults with nothing asked.
fn restrictions(config: &SandboxConfig, host: &HostConfig) -> Vec<Enforcement> {
    let limit = |value: Option<i64>| value.filter(|value| *value > 0);
    let text = |flag: bool| if flag { "true".to_owned() } else { String::new() };
    let options = host.security_opt.clone().unwrap_or_default();
    let has = |begin: &str| options.iter().any(|option| option.starts_with(begin));
    let open_files = host.ulimits.iter().flatten().find(|limit| limit.name.as_deref() == Some("nofile"));
    let disk = verify::disk(host).and_then(|bytes| bytes.parse::<u64>().ok());
    let no_network = host.network_mode.as_deref() == Some("none");
    let dropped = host.cap_drop.iter().flatten().any(|name| name == "ALL");
    let kept = config.cap_add.iter().map(|capability| capability.name()).collect::<Vec<_>>().join(",");
    let configured = [
        (
            Capability::CpuLimit,
            limit(host.nano_cpus)
                .map(|nano| format!("{}.{:03}", nano / 1_000_000_000, nano / 1_000_000 % 1000)),
        ),
        (Capability::MemoryLimit, limit(host.memory).map(|bytes| format!("{} MiB", bytes >> 20))),
        (Capability::PidsLimit, limit(host.pids_limit).map(|pids| pids.to_string())),
        (Capability::OpenFilesLimit, open_files.and_then(|limit| limit.hard).map(|hard| hard.to_string())),
        (Capability::NetworkNone, no_network.then(|| "none".to_owned())),
        (Capability::NetworkFull, (!no_network).then(|| "full".to_owned())),
        (Capability::ReadOnlyRoot, Some(text(host.readonly_rootfs.unwrap_or(false)))),
        (Capability::DropCapabilities, dropped.then(|| format!("none but: {kept}"))),
        (Capability::NoNewPrivileges, Some(text(has("no-new-privileges")))),
        (Capability::SyscallFilter, Some(text(!has("seccomp=unconfined")))),
        (Capability::DiskLimit, disk.map(|bytes| format!("{} MiB", bytes >> 20))),
        (Capability::NetworkAllow, None),
    ];
    Enforcement::list(config, configured)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use agentkernel_core::{Network, Owner};
    use bollard::models::ContainerConfig;

    use super::*;
    use crate::request::tests::{body, body_on, everything};

    fn container(name: &str, config: SandboxConfig) -> ContainerInspectResponse {
        let host_config = body(&config).host_config;
        let state = StateLabels {
            name: "demo".parse().unwrap(),
            run_id: "0123456789abcdef".into(),
            config,
            owner: Some(Owner::new("elsewhere", "boot", 1, 2, 3, 0)),
            created: 10,
            deadline: None,
        };
        let labels = state.encode().unwrap().into_iter().collect::<HashMap<_, _>>();
        ContainerInspectResponse {
            id: Some("ab".repeat(32)),
            name: Some(name.to_owned()),
            config: Some(ContainerConfig { labels: Some(labels), ..ContainerConfig::default() }),
            state: Some(ContainerState {
                status: Some(ContainerStateStatusEnum::EXITED),
                exit_code: Some(137),
                ..ContainerState::default()
            }),
            host_config,
            ..ContainerInspectResponse::default()
        }
    }

    #[test]
    fn a_container_with_our_label_under_another_name_is_not_ours() {
        assert!(read(container("/agentkernel-demo", everything())).unwrap().is_some());
        assert!(read(container("/somebody", everything())).unwrap().is_none());
        assert!(read(ContainerInspectResponse::default()).unwrap().is_none());
    }

    #[test]
    fn an_id_that_is_none_is_an_error() {
        let lying = ContainerInspectResponse {
            id: Some("../x".into()),
            ..container("/agentkernel-demo", everything())
        };
        assert!(read(lying).is_err());
    }

    #[test]
    fn what_restricts_a_sandbox_is_told() {
        let info = read(container("/agentkernel-demo", everything()))
            .unwrap()
            .unwrap()
            .info(BackendType::Docker, Isolation::RootContainer);
        assert_eq!((info.state, info.exit_code), (State::Stopped, Some(137)));
        let told = |capability| {
            let one = info.restrictions.iter().find(|one| one.capability == capability).unwrap();
            (one.asked.as_str(), one.configured.as_str())
        };
        assert_eq!(told(Capability::CpuLimit), ("1.5", "1.500"));
        assert_eq!(told(Capability::MemoryLimit), ("64 MiB", "64 MiB"));
        assert_eq!(told(Capability::PidsLimit), ("16", "16"));
        assert_eq!(told(Capability::OpenFilesLimit), ("128", "128"));
        assert_eq!(told(Capability::NetworkNone), ("none", "none"));
        assert_eq!(told(Capability::ReadOnlyRoot), ("true", "true"));
        assert_eq!(told(Capability::SyscallFilter), ("true", "true"));
    }

    #[test]
    fn what_goes_unenforced_is_told() {
        let mut config = SandboxConfig::new("busybox");
        config.network = Some(Network::Full);
        config.disk_mb = Some(5);
        config.allow_weaker = vec![Capability::DiskLimit];
        let mut found = container("/agentkernel-demo", config.clone());
        let can = crate::health::UPPER_BOUND.without(Capability::DiskLimit);
        found.host_config = body_on(&config, can).host_config;
        let info = read(found).unwrap().unwrap().info(BackendType::Docker, Isolation::RootContainer);
        let disk = info.restrictions.iter().find(|one| one.capability == Capability::DiskLimit).unwrap();
        assert_eq!((disk.asked.as_str(), disk.configured.as_str(), disk.allowed_weaker), ("5 MiB", "", true));
    }
}
