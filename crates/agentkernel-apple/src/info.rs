//! From what `container` says about a container to what is known of a sandbox.
use agentkernel_core::{BackendType, Capability, Enforcement, Isolation, Result, SandboxConfig, SandboxInfo};
use agentkernel_host::{StateLabels, liveness};

use crate::{
    argv::{DEFAULT_IMAGE, container_name},
    json::{Configuration, Container},
};

/// A container of ours.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub labels: StateLabels,
    pub container: Container,
    /// Of one that has ended.
    pub exit_code: Option<i32>,
}

/// Reads a container; `None` if it is not ours: without our labels, or with them under another name.
///
/// # Errors
/// `Unexpected` if it is ours and cannot be read.
pub(crate) fn read(container: Container) -> Result<Option<Found>> {
    let labels = &container.configuration.labels;
    let Some(labels) = StateLabels::decode(|name| labels.get(name).map(String::as_str)) else {
        return Ok(None);
    };
    let labels = labels?;
    if container.id != container_name(&labels.name) {
        return Ok(None);
    }
    Ok(Some(Found { labels, container, exit_code: None }))
}

impl Found {
    pub(crate) fn info(&self) -> SandboxInfo {
        let StateLabels { name, config, owner, created, deadline, .. } = &self.labels;
        let container = &self.container;
        let mut info =
            SandboxInfo::new(name.clone(), container.id.clone(), BackendType::Apple, container.state);
        info.isolation = Isolation::Vm;
        info.exit_code = self.exit_code;
        info.image = image_of(config).to_owned();
        info.digest = container.configuration.image.descriptor.digest.clone();
        info.created = *created;
        info.deadline = *deadline;
        info.lifetime = config.lifetime;
        info.owner = owner.clone();
        info.liveness = liveness(config.lifetime, owner.as_ref(), *deadline);
        info.labels = config.labels.clone();
        info.ports.clone_from(&config.ports);
        info.address = container.addresses.first().copied();
        info.restrictions = restrictions(config, &container.configuration);
        info
    }
}

/// Returns the image of a config.
pub(crate) fn image_of(config: &SandboxConfig) -> &str {
    config.image.as_deref().unwrap_or(DEFAULT_IMAGE)
}

/// Returns what restricts a sandbox: what was asked for beside what the engine has, and defaults with nothing asked.
fn restrictions(config: &SandboxConfig, has: &Configuration) -> Vec<Enforcement> {
    let files = has.init_process.rlimits.iter().find(|limit| limit.limit == "RLIMIT_NOFILE");
    let is_isolated = has.networks.is_empty();
    let kept = has.cap_add.iter().map(|name| name.trim_start_matches("CAP_")).collect::<Vec<_>>().join(",");
    let drops_all = has.cap_drop.iter().any(|name| name == "ALL");
    let resources = &has.resources;
    let some = |number: u64, text: String| (number > 0).then_some(text);
    let configured = [
        (Capability::CpuLimit, some(resources.cpus, resources.cpus.to_string())),
        (
            Capability::MemoryLimit,
            some(resources.memory_in_bytes, format!("{} MiB", resources.memory_in_bytes >> 20)),
        ),
        (Capability::PidsLimit, None),
        (Capability::DiskLimit, None),
        (Capability::OpenFilesLimit, files.map(|limit| limit.hard.to_string())),
        (Capability::NetworkNone, is_isolated.then(|| "none".to_owned())),
        (Capability::NetworkAllow, None),
        (Capability::NetworkFull, (!is_isolated).then(|| "full".to_owned())),
        (Capability::ReadOnlyRoot, has.read_only.then(|| "true".to_owned())),
        (Capability::DropCapabilities, drops_all.then(|| format!("none but: {kept}"))),
        (Capability::NoNewPrivileges, None),
        (Capability::SyscallFilter, None),
    ];
    Enforcement::list(config, configured)
}
