//! Apple's `container` as a backend.
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
};

use agentkernel_core::{
    Backend, BackendType, Capabilities, Error, ErrorKind, Filter, Health, HostContext, ImageStore, Reap,
    Reaped, Result, Sandbox, SandboxInfo, SandboxName, State, VolumeStore, async_trait,
};
use agentkernel_host::host_context;
use tokio::sync::OnceCell;

use crate::{
    AppleConfig, argv,
    command::{Answer, Line, Program},
    error,
    exec::Running,
    health,
    images::AppleImages,
    info::{self, Found},
    json, probe, reap,
    sandbox::AppleSandbox,
    system,
    version::Version,
    volumes::AppleVolumes,
};

/// Apple's `container` on this machine.
#[derive(Debug)]
pub struct AppleBackend {
    shared: Arc<Shared>,
    images: AppleImages,
    volumes: AppleVolumes,
}

/// What the backend and its sandboxes have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub program: Program,
    pub config: AppleConfig,
    pub host: HostContext,
    /// The commands that this process runs, of all sandboxes: by number, with the run id of the sandbox.
    commands: Mutex<BTreeMap<u64, Running>>,
    pub next: AtomicU64,
    health: OnceCell<Health>,
}

impl Shared {
    pub(crate) fn new(config: AppleConfig) -> Result<Self> {
        Ok(Self {
            program: Program::new(config.find()?),
            config,
            host: host_context()?,
            commands: Mutex::default(),
            next: AtomicU64::new(1),
            health: OnceCell::new(),
        })
    }

    pub(crate) fn commands(&self) -> MutexGuard<'_, BTreeMap<u64, Running>> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for the version and for the service, once.
    pub(crate) async fn health(&self) -> Result<&Health> {
        self.health
            .get_or_try_init(|| async {
                let operation = "use Apple's containers";
                let text = self.program.ask(operation, &argv::version(), self.config.request_timeout).await?;
                let text = String::from_utf8_lossy(&text).into_owned();
                let version = Version::read(&text).ok_or_else(|| {
                    Error::new(ErrorKind::Unavailable, operation, "`container` does not tell its version")
                        .with_context("says", text.chars().take(80).collect::<String>())
                        .with_context("program", self.program.path().display())
                        .with_hint("see whether it is Apple's: container --version")
                })?;
                let health = health::of(version)?;
                system::require(&self.program, &self.config).await?;
                Ok(health)
            })
            .await
    }

    /// Asks a question that changes nothing: once more if the service went away meanwhile.
    pub(crate) async fn ask_again(&self, operation: &'static str, line: &Line) -> Result<Answer> {
        let ask = || self.program.run(operation, line, self.config.request_timeout);
        let answer = ask().await?;
        let is_lost = answer.code != Some(0)
            && error::failed(operation, answer.code, &answer.stderr).kind() == ErrorKind::Disconnected;
        if is_lost { ask().await } else { Ok(answer) }
    }

    /// Returns the container of a name, whoever made it.
    pub(crate) async fn inspect(&self, operation: &'static str, id: &str) -> Result<Option<json::Container>> {
        let answer = self.ask_again(operation, &argv::inspect(id)).await?;
        if answer.code == Some(0) {
            // Before 1.0 it tells an absent one by an empty array.
            let found = json::containers(operation, &answer.stdout)?;
            return Ok(found.into_iter().find(|container| container.id == id));
        }
        match error::failed(operation, answer.code, &answer.stderr) {
            absent if absent.kind() == ErrorKind::NotFound => Ok(None),
            other => Err(other),
        }
    }

    /// Returns our sandbox of a name.
    pub(crate) async fn find(&self, operation: &'static str, name: &SandboxName) -> Result<Option<Found>> {
        let container = self.inspect(operation, &argv::container_name(name)).await?;
        let found = container.map(info::read).transpose()?.flatten();
        Ok(found.filter(|found| found.labels.name == *name))
    }

    /// Returns our sandboxes, ordered by name.
    pub(crate) async fn find_all(&self, operation: &'static str) -> Result<Vec<Found>> {
        let answer = self.ask_again(operation, &argv::list()).await?;
        if answer.code != Some(0) {
            return Err(error::failed(operation, answer.code, &answer.stderr));
        }
        let mut ours = Vec::new();
        for container in json::containers(operation, &answer.stdout)? {
            match info::read(container) {
                Ok(found) => ours.extend(found),
                Err(error) => {
                    tracing::debug!(%error, "a container that says that it is ours cannot be read");
                }
            }
        }
        ours.sort_by(|a, b| a.labels.name.cmp(&b.labels.name));
        Ok(ours)
    }

    /// Tells one that was never started from one that has ended, which the engine does not: only the latter has a log,
    /// whose last line may have how its main command ended.
    pub(crate) async fn complete(&self, found: &mut Found) {
        if found.container.state != State::Stopped {
            return;
        }
        match self.ask_again("look at the log", &argv::last_log(&found.container.id)).await {
            Ok(answer) if answer.code == Some(0) => {
                let text = String::from_utf8_lossy(&answer.stdout);
                let code = text
                    .trim_end()
                    .rsplit('\n')
                    .next()
                    .and_then(|line| line.strip_prefix("agentkernel exit "));
                found.exit_code = code.and_then(|code| code.parse::<u8>().ok()).map(i32::from);
            }
            Ok(answer)
                if String::from_utf8_lossy(&answer.stderr).contains("failed to open container logs") =>
            {
                found.container.state = State::Created;
            }
            Ok(_) | Err(_) => {}
        }
    }
}

impl AppleBackend {
    /// What this backend can do at best, anywhere.
    pub const UPPER_BOUND: Capabilities = health::UPPER_BOUND;

    /// Finds `container`. Its service need not run yet: [`health`](Backend::health) is the first to insist.
    ///
    /// # Errors
    /// `Unavailable` if it is not installed.
    pub async fn connect(config: AppleConfig) -> Result<Arc<Self>> {
        let shared = Arc::new(Shared::new(config)?);
        let (images, volumes) =
            (AppleImages { shared: Arc::clone(&shared) }, AppleVolumes { shared: Arc::clone(&shared) });
        Ok(Arc::new(Self { shared, images, volumes }))
    }
}

#[async_trait]
impl Backend for AppleBackend {
    fn backend_type(&self) -> BackendType {
        BackendType::Apple
    }

    async fn health(&self) -> Result<Health> {
        self.shared.health().await.cloned()
    }

    async fn probe(&self) -> Result<()> {
        self.shared.health().await?;
        probe::probe(&self.shared).await
    }

    fn sandbox(&self, name: SandboxName) -> Arc<dyn Sandbox> {
        Arc::new(AppleSandbox::of(Arc::clone(&self.shared), name))
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<SandboxInfo>> {
        self.shared.health().await?;
        let mut infos = Vec::new();
        for mut found in self.shared.find_all("list sandboxes").await? {
            let has = &found.labels.config.labels;
            let labeled = filter.labels.iter().all(|(name, value)| has.get(name) == Some(value));
            if labeled && (!filter.running || found.container.state == State::Running) {
                self.shared.complete(&mut found).await;
                infos.push(found.info());
            }
        }
        Ok(infos)
    }

    async fn reap(&self, plan: Reap) -> Result<Vec<Reaped>> {
        reap::reap(&self.shared, plan).await
    }

    fn images(&self) -> Option<&dyn ImageStore> {
        Some(&self.images)
    }

    fn volumes(&self) -> Option<&dyn VolumeStore> {
        Some(&self.volumes)
    }
}
