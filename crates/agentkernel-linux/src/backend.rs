//! The kernel as a backend.
use std::{path::PathBuf, sync::Arc};

use agentkernel_core::{
    Backend, BackendType, Capabilities, Capability, Error, ErrorKind, Filter, Health, HostContext,
    ImageStore, Isolation, Reap, Reaped, Result, Sandbox, SandboxConfig, SandboxExt, SandboxInfo,
    SandboxName, State, VolumeStore, async_trait,
};
use agentkernel_host::{data_dir, host_context, make_private};

use crate::{
    LinuxConfig,
    helper::Helper,
    host_image::HOST,
    images::LinuxImages,
    machine::{Cgroups, Machine},
    plan::BASE,
    reap,
    sandbox::LinuxSandbox,
    state,
    volumes::LinuxVolumes,
};

/// What the backend does on a machine that has everything, for root.
pub const UPPER_BOUND: Capabilities = Capabilities::new(Isolation::UsernsContainer).with_all(&[
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
    Capability::ReadOnlyRoot,
    Capability::DropCapabilities,
    Capability::NoNewPrivileges,
    Capability::SyscallFilter,
    Capability::Lease,
    Capability::Persistence,
]);

/// This machine's kernel.
#[derive(Debug)]
pub struct LinuxBackend {
    shared: Arc<Shared>,
}

/// What the backend and its sandboxes have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub config: LinuxConfig,
    pub machine: Machine,
    pub host: HostContext,
    pub data: PathBuf,
    pub images: LinuxImages,
    pub volumes: LinuxVolumes,
    pub helper: Arc<Helper>,
    key: String,
}

impl LinuxBackend {
    /// Looks at the machine. Nothing is made or started.
    ///
    /// # Errors
    /// `Unavailable` if the kernel forbids what sandboxes are made of, or if there is no directory to keep them in.
    #[expect(clippy::unused_async, reason = "backends are made by async constructors")]
    pub async fn connect(config: LinuxConfig) -> Result<Arc<Self>> {
        let machine = Machine::look();
        machine.check()?;
        let data = match &config.data {
            Some(data) => data.clone(),
            None => data_dir()?.join("linux"),
        };
        make_private(&data)?;
        // Sandboxes of another data directory have another directory of sockets.
        let data = std::fs::canonicalize(&data)
            .map_err(|source| crate::error::file("find the data directory", &data, source))?;
        let owner = if machine.is_root() { BASE } else { machine.uid };
        let helper = Arc::new(Helper::new(config.guest.clone()));
        let shared = Shared {
            key: key(config.data.as_ref().map(|_| &data)),
            images: LinuxImages::new(data.clone(), machine.clone(), Arc::clone(&helper)),
            volumes: LinuxVolumes::new(data.join("volumes"), owner),
            host: host_context()?,
            config,
            machine,
            data,
            helper,
        };
        Ok(Arc::new(Self { shared: Arc::new(shared) }))
    }
}

/// FNV-1a: only to tell directories apart.
fn key(data: Option<&PathBuf>) -> String {
    let Some(data) = data else { return "linux".to_owned() };
    let bytes = data.as_os_str().as_encoded_bytes();
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    format!("linux-{hash:016x}")
}

impl Shared {
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// What can be had here by this user.
    pub(crate) fn capabilities(&self) -> Capabilities {
        let mut capabilities = UPPER_BOUND;
        if !self.machine.is_root() {
            // There is one user inside.
            capabilities = capabilities.without(Capability::ExecUser);
        }
        if self.machine.cgroups == Cgroups::None {
            capabilities = capabilities.without(Capability::CpuLimit).without(Capability::MemoryLimit);
            // The kernel counts processes by user and namespace, but for root.
            if self.machine.is_root() {
                capabilities = capabilities.without(Capability::PidsLimit);
            }
        }
        capabilities
    }
}

#[async_trait]
impl Backend for LinuxBackend {
    fn backend_type(&self) -> BackendType {
        BackendType::Linux
    }

    async fn health(&self) -> Result<Health> {
        self.shared.machine.check()?;
        self.shared.helper.find().await?;
        let mut warnings = Vec::new();
        if self.shared.machine.cgroups == Cgroups::None {
            warnings.push(
                "Memory and processor time cannot be limited: this user has no control groups.".to_owned(),
            );
        }
        let version = self.shared.machine.kernel.clone();
        Ok(Health { version, capabilities: self.shared.capabilities(), warnings })
    }

    async fn probe(&self) -> Result<()> {
        let name = format!("agentkernel-probe-{}-{}", std::process::id(), self.shared.host.owner.started);
        let sandbox = self.sandbox(name.parse()?);
        let started = sandbox.start(&SandboxConfig::new(HOST)).await;
        let removed = sandbox.remove().await;
        started.map_err(|source| {
            let hint = source.hint().map_or("see `agentkernel doctor`".to_owned(), str::to_owned);
            Error::new(ErrorKind::Unavailable, "use the kernel", "it makes no sandbox")
                .with_context("backend", BackendType::Linux)
                .with_hint(hint)
                .with_source(source)
        })?;
        removed
    }

    fn sandbox(&self, name: SandboxName) -> Arc<dyn Sandbox> {
        Arc::new(LinuxSandbox::new(Arc::clone(&self.shared), name))
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<SandboxInfo>> {
        let all = state::list(&self.shared.data).into_iter().map(|found| found.info());
        Ok(all
            .filter(|info| {
                let has = |(name, value): (&String, &String)| info.labels.get(name) == Some(value);
                filter.labels.iter().all(has) && (!filter.running || info.state == State::Running)
            })
            .collect())
    }

    async fn reap(&self, plan: Reap) -> Result<Vec<Reaped>> {
        reap::reap(&self.shared, plan).await
    }

    fn images(&self) -> Option<&dyn ImageStore> {
        Some(&self.shared.images)
    }

    fn volumes(&self) -> Option<&dyn VolumeStore> {
        Some(&self.shared.volumes)
    }
}
