//! The fake backend: its sandboxes by name.
use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use agentkernel_core::{
    Backend, BackendType, Capabilities, Capability, Error, ErrorKind, Filter, Health, HostContext,
    ImageStore, Liveness, Owner, Reap, Reaped, Result, Sandbox, SandboxConfig, SandboxExt, SandboxInfo,
    SandboxName, SandboxSpec, State, VolumeStore, async_trait,
};

use super::{
    Bug, CAPABILITIES, Call, Scripted, TYPE, fault::Faults, image, instance::Instance, process::lock,
    sandbox::FakeSandbox,
};

/// The image that the fake has.
const IMAGE: &str = "agentkernel-test";

/// An in-memory backend; see the [module](super).
#[derive(Clone)]
pub struct FakeBackend {
    engine: Arc<Engine>,
}

/// Variables are often secrets, and the sandboxes have them.
impl fmt::Debug for FakeBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeBackend").finish_non_exhaustive()
    }
}

/// What the fake's handles share.
#[derive(Debug)]
pub(super) struct Engine {
    /// What it says that it can do.
    pub(super) capabilities: Capabilities,
    /// What it can do: the same but for a bug.
    able: Capabilities,
    pub(super) host: HostContext,
    pub(super) bug: Option<Bug>,
    pub(super) faults: Faults,
    instances: Mutex<BTreeMap<SandboxName, Arc<Instance>>>,
    next: AtomicU64,
}

impl Default for FakeBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeBackend {
    /// Makes a fake without sandboxes.
    pub fn new() -> Self {
        Self::made(CAPABILITIES, None)
    }

    fn made(capabilities: Capabilities, bug: Option<Bug>) -> Self {
        let owner = Owner::new("fake-host", "fake-boot", 1, std::process::id(), 1, 0);
        let host = HostContext { cwd: "/".into(), home: None, owner };
        let (faults, instances, next) = (Faults::default(), Mutex::default(), AtomicU64::new(1));
        let (capabilities, able) = match bug {
            Some(Bug::FalseClaim(capability)) => {
                (capabilities.with(capability), capabilities.without(capability))
            }
            Some(Bug::UnclaimedIsNotRefused(capability)) => {
                (capabilities.without(capability), capabilities.with(capability))
            }
            _ => (capabilities, capabilities),
        };
        Self { engine: Arc::new(Engine { capabilities, able, host, bug, faults, instances, next }) }
    }

    /// Adds a fault: [`inject`](Self::inject) for a fake that is being made.
    #[must_use]
    pub fn with_fault(self, fault: impl Into<Scripted>) -> Self {
        self.inject(fault);
        self
    }

    /// Adds a fault, from the next call on, for every handle of this backend. Of several each strikes.
    pub fn inject(&self, fault: impl Into<Scripted>) {
        self.engine.faults.inject(fault.into());
        self.engine.fill_disks();
    }

    /// Removes every fault. What is hanging goes on hanging.
    pub fn heal(&self) {
        self.engine.faults.heal();
        self.engine.fill_disks();
    }

    /// Returns a fake that does not claim this capability, without sandboxes and faults.
    #[must_use]
    pub fn without(self, capability: Capability) -> Self {
        Self::made(self.engine.capabilities.without(capability), self.engine.bug)
    }

    /// Returns a fake with a bug, without sandboxes and faults: for tests of the kit.
    #[must_use]
    pub fn with_bug(self, bug: Bug) -> Self {
        Self::made(self.engine.capabilities, Some(bug))
    }
}

impl Engine {
    /// Returns whether it does what it would have to.
    pub(super) fn is_able(&self, capability: Capability) -> bool {
        self.able.has(capability)
    }

    pub(super) fn find(&self, name: &SandboxName) -> Option<Arc<Instance>> {
        let instances = lock(&self.instances);
        let exact = instances.get(name);
        let prefixed = || instances.values().find(|instance| instance.name.starts_with(&**name));
        let found = if self.bug == Some(Bug::PrefixNameMatch) { exact.or_else(prefixed) } else { exact };
        found.cloned()
    }

    /// Makes a sandbox, if the name is free and the image is there.
    pub(super) fn create(&self, name: &SandboxName, spec: &SandboxSpec) -> Result<Arc<Instance>> {
        let operation = "create sandbox";
        if let Some(image) = spec.image.as_ref().filter(|image| image.name() != IMAGE) {
            return Err(Error::new(ErrorKind::NotFound, operation, "image not found")
                .with_context("backend", TYPE)
                .with_context("image", image));
        }
        let mut tree = image::tree(self.is_able(Capability::NetworkNone));
        let read_only = self.is_able(Capability::ReadOnlyRoot) && self.bug != Some(Bug::IgnoredReadOnly);
        tree.read_only = spec.read_only && read_only;
        tree.quota =
            spec.disk_mb.filter(|_| self.is_able(Capability::DiskLimit)).map(|megabytes| megabytes << 20);
        tree.full = self.faults.fill_disks();
        if let Some(cwd) = &spec.cwd {
            let _made = tree.make_directories(cwd.as_bytes(), super::tree::ROOT);
        }
        let mut instances = lock(&self.instances);
        if instances.contains_key(name) {
            return Err(Error::new(ErrorKind::AlreadyExists, operation, "the name is taken")
                .with_context("backend", TYPE)
                .with_context("sandbox", name));
        }
        let id = format!("fake-{}", self.next.fetch_add(1, Ordering::Relaxed));
        let instance = Instance::new(name.clone(), id, spec, tree);
        instances.insert(name.clone(), Arc::clone(&instance));
        Ok(instance)
    }

    /// Removes exactly this sandbox, running or not.
    pub(super) fn remove(&self, instance: &Instance) {
        instance.kill();
        let mut instances = lock(&self.instances);
        if instances.get(&instance.name).is_some_and(|found| found.id == instance.id) {
            instances.remove(&instance.name);
        }
    }

    fn fill_disks(&self) {
        let full = self.faults.fill_disks();
        self.all().iter().for_each(|instance| lock(&instance.tree).full = full);
    }

    fn all(&self) -> Vec<Arc<Instance>> {
        lock(&self.instances).values().cloned().collect()
    }
}

#[async_trait]
impl Backend for FakeBackend {
    fn backend_type(&self) -> BackendType {
        TYPE
    }

    async fn health(&self) -> Result<Health> {
        self.engine.faults.strike(Call::Health).await?;
        let capabilities = self.engine.capabilities;
        Ok(Health { version: env!("CARGO_PKG_VERSION").to_owned(), capabilities, warnings: Vec::new() })
    }

    async fn probe(&self) -> Result<()> {
        let number = self.engine.next.fetch_add(1, Ordering::Relaxed);
        let name = format!("probe-{number}").parse()?;
        let sandbox = FakeSandbox::new(Arc::clone(&self.engine), name);
        let started = sandbox.start(&SandboxConfig::default()).await;
        let removed = sandbox.remove().await;
        started.and(removed)
    }

    fn sandbox(&self, name: SandboxName) -> Arc<dyn Sandbox> {
        Arc::new(FakeSandbox::new(Arc::clone(&self.engine), name))
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<SandboxInfo>> {
        self.engine.faults.strike(Call::List).await?;
        let infos = self.engine.all().into_iter().map(|instance| instance.info());
        let wanted = infos.filter(|info| {
            let labeled = filter.labels.iter().all(|(name, value)| info.labels.get(name) == Some(value));
            labeled && (!filter.running || info.state == State::Running)
        });
        Ok(wanted.collect())
    }

    async fn reap(&self, plan: Reap) -> Result<Vec<Reaped>> {
        self.engine.faults.strike(Call::Reap).await?;
        let expired =
            self.engine.all().into_iter().filter(|found| found.info().liveness == Liveness::Expired);
        let reaped = expired.map(|instance| {
            if plan == Reap::Remove {
                self.engine.remove(&instance);
            }
            let (name, id) = (instance.name.clone(), instance.id.clone());
            Reaped { name, id, why: Liveness::Expired, outcome: Ok(()) }
        });
        Ok(reaped.collect())
    }

    fn images(&self) -> Option<&dyn ImageStore> {
        None
    }

    fn volumes(&self) -> Option<&dyn VolumeStore> {
        None
    }
}
