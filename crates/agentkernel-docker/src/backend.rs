//! The engine as a backend.
use std::{sync::Arc, time::Duration};

use agentkernel_core::{
    Backend, BackendType, Filter, Health, HostContext, ImageStore, Reap, Reaped, Result, Sandbox,
    SandboxInfo, SandboxName, VolumeStore, async_trait,
};
use agentkernel_host::{GuestProgram, find_guest_for, host_context};
use bollard::models::SystemInfo;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::OnceCell;

use crate::{
    DockerConfig, EngineKind,
    engine::{Engine, absent_is_none},
    health,
    id::ContainerId,
    images::DockerImages,
    info::{self, Found},
    place::{Described, Place},
    podman::this_machine,
    probe, reap,
    request::list_labels,
    sandbox::DockerSandbox,
    search,
    surroundings::Surroundings,
    volumes::DockerVolumes,
};

/// How many containers are inspected at once.
const INSPECTIONS: usize = 8;

/// A local engine: Docker or Podman.
#[derive(Debug)]
pub struct DockerBackend {
    shared: Arc<Shared>,
}

/// What the backend and its sandboxes have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub engine: Engine,
    /// A short name of the engine's socket: sandboxes of different engines have different directories of sockets.
    pub key: String,
    pub host: HostContext,
    pub images: DockerImages,
    pub volumes: DockerVolumes,
    health: OnceCell<Health>,
    guest: OnceCell<GuestProgram>,
    described: OnceCell<Described>,
}

impl DockerBackend {
    /// Finds the engine and who it is. It need not answer yet: [`health`](Backend::health) is the first to insist.
    ///
    /// # Errors
    /// `Unavailable` with everything that was tried, or if another engine than wanted answers at the address;
    /// `PermissionDenied` if the engine's socket, or a file of TLS, is closed to us; `InvalidConfig` or `Unsupported` for
    /// an address or files that cannot be used.
    pub async fn connect(config: DockerConfig) -> Result<Arc<Self>> {
        let mut around = Surroundings::of_this_process();
        around.tls.clone_from(&config.tls);
        let endpoint = search::find(config.endpoint.as_deref(), config.kind, &around).await?;
        let key = endpoint.key();
        let engine = Engine::new(endpoint, config)?;
        let host = host_context()?;
        let shared = Shared {
            images: DockerImages::new(engine.clone(), host.owner.clone()),
            volumes: DockerVolumes::new(engine.clone()),
            host,
            engine,
            key,
            health: OnceCell::new(),
            guest: OnceCell::new(),
            described: OnceCell::new(),
        };
        Ok(Arc::new(Self { shared: Arc::new(shared) }))
    }
}

impl Shared {
    /// Asks the engine once, or looks where a Podman on this machine would. Meanwhile the guest's program is looked for: a
    /// create needs both.
    pub(crate) async fn health(&self) -> Result<&Health> {
        self.health
            .get_or_try_init(|| async {
                let told = async {
                    let described = self.described().await?;
                    let address = &self.engine.endpoint().address;
                    health::read(&described.info, self.engine.kind(), described.place, address)
                        .map_err(|error| error.with_context("address", address))
                };
                tokio::join!(told, self.guest()).0
            })
            .await
    }

    async fn info(&self, kernel: &str) -> Result<SystemInfo> {
        let endpoint = self.engine.endpoint();
        match endpoint.listener {
            // It has answered, and with a process that is seen from here its kernel is ours.
            Some(listener) if endpoint.kind == EngineKind::Podman && endpoint.version.is_some() => {
                Ok(this_machine::describe(endpoint.version.as_deref(), listener.uid, kernel))
            }
            _ => self.engine.info().await,
        }
    }

    /// Returns the guest's program, looked for once.
    pub(crate) async fn guest(&self) -> Result<&GuestProgram> {
        self.guest
            .get_or_try_init(|| async {
                let explicit = self.engine.config().guest.as_deref();
                // An engine behind a socket of ours may be asked later: commands work without it.
                let machine = match self.engine.endpoint().address.is_local() {
                    true => None,
                    false => Some(self.described().await?.machine()?),
                };
                find_guest_for(explicit, machine).await
            })
            .await
    }

    /// Returns where the engine is.
    pub(crate) async fn place(&self) -> Result<Place> {
        if !self.engine.endpoint().address.is_local() {
            return Ok(Place::Elsewhere);
        }
        Ok(self.described().await?.place)
    }

    async fn described(&self) -> Result<&Described> {
        self.described
            .get_or_try_init(|| async {
                let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
                let info = self.info(&kernel).await?;
                let endpoint = self.engine.endpoint();
                let place = Place::of(&info, &endpoint.address);
                Ok(Described { info, place })
            })
            .await
    }

    /// Returns our containers, those that vanish meanwhile left out.
    pub(crate) async fn find_all(&self, filter: &Filter) -> Result<Vec<Found>> {
        let summaries = self.engine.list(list_labels(&filter.labels), filter.running).await?;
        let ids = summaries.iter().filter_map(|summary| ContainerId::read(summary.id.as_deref()?).ok());
        let inspections = ids.map(|id| async move { absent_is_none(self.engine.inspect(&id).await) });
        let inspections = inspections.collect::<Vec<_>>();
        let found = stream::iter(inspections).buffer_unordered(INSPECTIONS).try_collect::<Vec<_>>().await?;
        let mut ours = found
            .into_iter()
            .flatten()
            .filter_map(|inspect| match info::read(inspect) {
                Ok(found) => found,
                Err(error) => {
                    tracing::debug!(%error, "a container that says that it is ours cannot be read");
                    None
                }
            })
            .filter(|found| {
                // An image's labels are its containers' too: only those of the state are the caller's.
                let has = &found.labels.config.labels;
                filter.labels.iter().all(|(name, value)| has.get(name) == Some(value))
            })
            .collect::<Vec<_>>();
        ours.sort_by(|a, b| a.labels.name.cmp(&b.labels.name));
        Ok(ours)
    }
}

#[async_trait]
impl Backend for DockerBackend {
    fn backend_type(&self) -> BackendType {
        self.shared.engine.kind().backend_type()
    }

    async fn health(&self) -> Result<Health> {
        let health = self.shared.health().await?;
        // Without its program nothing can be made here; what is there can be listed, stopped and removed all the same.
        self.shared.guest().await?;
        Ok(health.clone())
    }

    async fn probe(&self) -> Result<()> {
        probe::probe(&self.shared).await
    }

    fn sandbox(&self, name: SandboxName) -> Arc<dyn Sandbox> {
        Arc::new(DockerSandbox::new(Arc::clone(&self.shared), name))
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<SandboxInfo>> {
        let (health, found) = tokio::try_join!(self.shared.health(), self.shared.find_all(filter))?;
        let isolation = health.capabilities.isolation();
        Ok(found.iter().map(|found| found.info(self.backend_type(), isolation)).collect())
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

/// The first pause of a wait for the engine; each next one is twice as long, up to [`MAX_PAUSE`].
pub(crate) const MIN_PAUSE: Duration = Duration::from_millis(4);
/// See [`MIN_PAUSE`].
pub(crate) const MAX_PAUSE: Duration = Duration::from_millis(50);
