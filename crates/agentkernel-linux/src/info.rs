//! What is told of a sandbox.
use agentkernel_core::{BackendType, Capability, Enforcement, Isolation, SandboxConfig, SandboxInfo, State};
use agentkernel_host::{liveness, setup::Setup};

use crate::{host_image::HOST, state::Found};

impl Found {
    pub(crate) fn info(&self) -> SandboxInfo {
        let (labels, config) = (&self.labels, &self.labels.config);
        let state = self.dir.state();
        let mut info =
            SandboxInfo::new(labels.name.clone(), labels.run_id.clone(), BackendType::Linux, state);
        info.isolation = Isolation::UsernsContainer;
        info.exit_code = if state == State::Running { None } else { self.dir.exit_code() };
        info.image = config.image.clone().unwrap_or_else(|| HOST.to_owned());
        info.created = labels.created;
        info.deadline = labels.deadline;
        info.lifetime = config.lifetime;
        info.owner.clone_from(&labels.owner);
        info.liveness = liveness(config.lifetime, labels.owner.as_ref(), labels.deadline);
        info.ports.clone_from(&config.ports);
        info.labels.clone_from(&config.labels);
        info.restrictions = restrictions(config, &self.dir.setup().unwrap_or_default());
        info
    }
}

/// What was asked for beside what was planned; boot has compared the plan with what the guest measured.
fn restrictions(config: &SandboxConfig, setup: &Setup) -> Vec<Enforcement> {
    let text = |flag: bool| Some(if flag { "true".to_owned() } else { String::new() });
    let limit = |file: &str| {
        let limits = setup.cgroups.iter().flat_map(|group| &group.limits);
        let value = limits.filter(|(name, _)| name == file.as_bytes()).map(|(_, value)| value).next()?;
        std::str::from_utf8(value).ok()?.split(' ').next()?.parse::<u64>().ok()
    };
    let quota = limit("cpu.cfs_quota_us").or_else(|| limit("cpu.max")).map(|quota| quota / 100);
    let memory = limit("memory.limit_in_bytes").or_else(|| limit("memory.max"));
    let pids = limit("pids.max").or(setup.processes);
    let full = setup.host_network;
    let kept = config.cap_add.iter().map(|capability| capability.name()).collect::<Vec<_>>().join(",");
    let configured = [
        (Capability::CpuLimit, quota.map(|milli| format!("{}.{:03}", milli / 1000, milli % 1000))),
        (Capability::MemoryLimit, memory.map(|bytes| format!("{} MiB", bytes >> 20))),
        (Capability::PidsLimit, pids.map(|pids| pids.to_string())),
        (Capability::OpenFilesLimit, setup.open_files.map(|files| files.to_string())),
        (Capability::NetworkNone, (!full).then(|| "none".to_owned())),
        (Capability::NetworkFull, full.then(|| "full".to_owned())),
        (Capability::ReadOnlyRoot, text(setup.read_only)),
        (Capability::DropCapabilities, Some(format!("none but: {kept}"))),
        (Capability::NoNewPrivileges, text(setup.no_new_privileges)),
        (Capability::SyscallFilter, text(setup.filter)),
        (Capability::DiskLimit, None),
        (Capability::NetworkAllow, None),
    ];
    Enforcement::list(config, configured)
}
