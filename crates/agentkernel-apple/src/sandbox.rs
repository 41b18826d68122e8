//! One sandbox: what a handle is bound to, and what happens when it goes.
use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use agentkernel_core::{
    BackendType, Capabilities, Capability, CommandInfo, Depth, DirEntry, Duplex, Error, ErrorKind, Events,
    ExecEvent, ExecId, ExecSession, ExecSpec, HostContext, Lifetime, LogOptions, Metadata, Network, Reader,
    Replay, Result, Sandbox, SandboxInfo, SandboxName, SandboxPath, SandboxSpec, Source, State, Stats,
    WriteOptions, async_trait,
};

use crate::{
    AppleConfig, argv,
    backend::Shared,
    create, error, exec,
    files::{self, Place},
    info::Found,
    json,
    ports::Ports,
    unsupported::unsupported,
};

/// How long each call that ends something may take, beside what it is told to wait.
const ENDING: Duration = Duration::from_secs(10);
/// How often a delete that fails is tried.
const DELETES: u32 = 3;

/// A sandbox by name, and by its run id once it was made or seen.
#[derive(Debug)]
pub struct AppleSandbox {
    shared: Arc<Shared>,
    name: SandboxName,
    /// Tells it from a namesake.
    run_id: OnceLock<String>,
    /// It ends with this handle.
    is_owner: AtomicBool,
    ports: Ports,
    /// What is made here outlives this handle, whatever its config says.
    is_persistent: bool,
}

impl AppleSandbox {
    /// Makes a handle to a sandbox of this name, driven with [`AppleConfig::default`]. What is made with it is removed when
    /// it is dropped.
    ///
    /// # Errors
    /// `InvalidConfig` for what is no name; `Unavailable` if `container` is not installed.
    pub fn new(name: &str) -> Result<Self> {
        Ok(Self::of(Arc::new(Shared::new(AppleConfig::default())?), name.parse()?))
    }

    /// Makes a handle like [`new`](Self::new), but what is made with it stays until it is removed.
    ///
    /// # Errors
    /// Those of [`new`](Self::new).
    pub fn new_persistent(name: &str) -> Result<Self> {
        let mut sandbox = Self::new(name)?;
        sandbox.is_persistent = true;
        Ok(sandbox)
    }

    pub(crate) fn of(shared: Arc<Shared>, name: SandboxName) -> Self {
        let (run_id, is_owner) = (OnceLock::new(), AtomicBool::new(false));
        Self { shared, name, run_id, is_owner, ports: Ports::default(), is_persistent: false }
    }

    fn error(&self, kind: ErrorKind, operation: &'static str, message: &'static str) -> Error {
        Error::new(kind, operation, message)
            .with_context("sandbox", &self.name)
            .with_context("backend", "apple")
    }

    fn absent(&self, operation: &'static str) -> Error {
        self.error(ErrorKind::NotFound, operation, "there is no such sandbox")
            .with_hint("see `agentkernel list`")
    }

    /// Asks for this sandbox: the one that the handle is bound to, else the one of its name.
    async fn find(&self, operation: &'static str) -> Result<Option<Found>> {
        let found = self.shared.find(operation, &self.name).await?;
        Ok(found
            .filter(|found| *self.run_id.get_or_init(|| found.labels.run_id.clone()) == found.labels.run_id))
    }

    async fn require(&self, operation: &'static str) -> Result<Found> {
        self.shared.health().await?;
        self.find(operation).await?.ok_or_else(|| self.absent(operation))
    }

    async fn place(&self, operation: &'static str) -> Result<Place> {
        Ok(Place::new(&self.shared, &self.running(operation).await?))
    }

    async fn running(&self, operation: &'static str) -> Result<Found> {
        let found = self.require(operation).await?;
        if found.container.state == State::Running {
            return Ok(found);
        }
        Err(self
            .error(ErrorKind::NotRunning, operation, "the sandbox does not run")
            .with_hint(format!("start it: agentkernel start {}", self.name)))
    }
}

/// Stops exactly this one, politely and then by force. The list decides whether it worked.
pub(crate) async fn halt(shared: &Shared, name: &SandboxName, run_id: &str, grace: Duration) -> Result<()> {
    let operation = "halt sandbox";
    let id = argv::container_name(name);
    let is_running = || async {
        let found = shared.find(operation, name).await?.filter(|found| found.labels.run_id == run_id);
        Ok::<_, Error>(found.is_some_and(|found| found.container.state == State::Running))
    };
    if !is_running().await? {
        return Ok(());
    }
    let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
    let mut last = None;
    if seconds > 0 {
        match shared.program.ask(operation, &argv::stop(&id, seconds), grace + ENDING).await {
            Ok(_) => return Ok(()),
            Err(error) => last = Some(error),
        }
        if !is_running().await? {
            return Ok(());
        }
    }
    if let Err(error) = shared.program.ask(operation, &argv::kill(&id), ENDING).await {
        last = Some(error);
    }
    // A kill of 0.12 does not wait.
    for _ in 0..20 {
        if !is_running().await? {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let failure = Error::new(ErrorKind::Timeout, operation, "it still runs after it was killed")
        .with_context("sandbox", name)
        .with_context("backend", "apple")
        .with_hint(format!("kill it: container kill {id}"));
    Err(match last {
        Some(source) => failure.with_source(source),
        None => failure,
    })
}

/// Removes exactly this one, whatever its state. After a failed delete the list decides.
pub(crate) async fn delete(shared: &Shared, name: &SandboxName, run_id: &str) -> Result<()> {
    let operation = "remove sandbox";
    let id = argv::container_name(name);
    let mut tries = 0;
    loop {
        let is_there = shared.find(operation, name).await?.is_some_and(|found| found.labels.run_id == run_id);
        if !is_there {
            return Ok(());
        }
        let failure = match shared.program.ask(operation, &argv::delete(&id), ENDING).await {
            Ok(_) => return Ok(()),
            Err(failure) => failure,
        };
        tries += 1;
        // One that hangs would hang again.
        if tries == DELETES || failure.kind() == ErrorKind::Timeout {
            let is_there =
                shared.find(operation, name).await?.is_some_and(|found| found.labels.run_id == run_id);
            return match is_there {
                false => Ok(()),
                true => Err(failure
                    .with_context("left", &id)
                    .with_hint(format!("remove it: container delete --force {id}"))),
            };
        }
    }
}

/// An owned sandbox ends with its owner. A thread of its own does that, since a runtime may be about to end; if the whole
/// process ends first, the next command reaps it.
impl Drop for AppleSandbox {
    fn drop(&mut self) {
        let Some(run_id) = self.run_id.get().filter(|_| self.is_owner.load(Ordering::SeqCst)) else { return };
        let (shared, name, run_id) = (Arc::clone(&self.shared), self.name.clone(), run_id.clone());
        let removal = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let removed = runtime.map(|runtime| runtime.block_on(delete(&shared, &name, &run_id)));
            if !matches!(removed, Ok(Ok(()))) {
                tracing::debug!(?removed, sandbox = %name, "a sandbox stays until it is reaped");
            }
        };
        if let Err(error) = thread::Builder::new().name("agentkernel-remove".to_owned()).spawn(removal) {
            tracing::debug!(%error, "a sandbox stays until it is reaped");
        }
    }
}

#[async_trait]
impl Sandbox for AppleSandbox {
    fn name(&self) -> &SandboxName {
        &self.name
    }

    fn backend_type(&self) -> BackendType {
        BackendType::Apple
    }

    fn host(&self) -> &HostContext {
        &self.shared.host
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        Ok(self.shared.health().await?.capabilities)
    }

    async fn inspect(&self) -> Result<SandboxInfo> {
        let mut found = self.require("inspect sandbox").await?;
        self.shared.complete(&mut found).await;
        Ok(found.info())
    }

    async fn create(&self, spec: &SandboxSpec) -> Result<()> {
        let mut spec = spec.clone();
        if self.is_persistent {
            (spec.lifetime, spec.config.lifetime) = (Lifetime::Detached, Lifetime::Detached);
        }
        spec.ports = self.ports.bind(&spec).await?;
        spec.config.ports.clone_from(&spec.ports);
        let made = create::create(&self.shared, &self.name, &spec).await;
        if made.is_err() {
            self.ports.close().await;
        }
        let run_id = made?;
        if self.run_id.set(run_id.clone()).is_err() {
            // It has seen another one of this name: that one is gone, or the name were taken.
            delete(&self.shared, &self.name, &run_id).await?;
            return Err(self
                .error(ErrorKind::Conflict, "create sandbox", "this handle belongs to an earlier sandbox")
                .with_hint("make a new handle"));
        }
        self.is_owner.store(spec.lifetime == Lifetime::Owned, Ordering::SeqCst);
        Ok(())
    }

    async fn boot(&self) -> Result<()> {
        let operation = "boot sandbox";
        let found = self.require(operation).await?;
        if found.container.state == State::Running {
            return Ok(());
        }
        let config = &found.labels.config;
        if self.is_owner.load(Ordering::SeqCst) {
            let network = config.network.clone().unwrap_or(Network::None);
            self.ports.bind_again(&network, &config.ports).await?;
        }
        let line = argv::start(&found.container.id);
        let answer = self.shared.program.run(operation, &line, self.shared.config.boot_timeout).await?;
        match answer.code {
            Some(0) => self.ports.serve(&self.shared, &found.container.id).await,
            code => Err(error::failed(operation, code, &answer.stderr).with_context("sandbox", &self.name)),
        }
    }

    async fn spawn(&self, spec: &ExecSpec) -> Result<ExecSession> {
        let found = self.running("start command").await?;
        exec::spawn(&self.shared, &found, spec).await
    }

    async fn commands(&self) -> Result<Vec<CommandInfo>> {
        let found = self.running("list commands").await?;
        let commands = self.shared.commands();
        let of_it = commands.iter().filter(|(_, running)| running.run_id == found.labels.run_id);
        Ok(of_it.map(|(number, running)| running.info(*number)).collect())
    }

    async fn attach(&self, _id: &ExecId, _replay: Replay) -> Result<ExecSession> {
        self.running("attach to command").await?;
        unsupported("attach to command", Capability::ExecDetached)
    }

    async fn halt(&self, grace: Duration) -> Result<()> {
        let found = self.require("halt sandbox").await?;
        let halted = halt(&self.shared, &self.name, &found.labels.run_id, grace).await;
        self.ports.close().await;
        halted
    }

    async fn remove(&self) -> Result<()> {
        self.ports.close().await;
        self.shared.health().await?;
        let Some(found) = self.find("remove sandbox").await? else { return Ok(()) };
        delete(&self.shared, &self.name, &found.labels.run_id).await
    }

    async fn logs(&self, _options: &LogOptions) -> Result<Events<ExecEvent>> {
        unsupported("read logs", Capability::Logs)
    }

    async fn stats(&self) -> Result<Stats> {
        let operation = "read stats";
        let found = self.running(operation).await?;
        let line = argv::stats(&found.container.id);
        let told = self.shared.program.ask(operation, &line, self.shared.config.request_timeout).await?;
        json::stats(operation, &told, &found.container.id)?
            .ok_or_else(|| self.error(ErrorKind::NotRunning, operation, "the sandbox has stopped meanwhile"))
    }

    async fn connect(&self, _port: u16) -> Result<Duplex> {
        unsupported("connect to port", Capability::Forward)
    }

    async fn listen(&self, _address: SocketAddr) -> Result<Events<Duplex>> {
        unsupported("listen on port", Capability::Forward)
    }

    async fn open(&self, path: &SandboxPath) -> Result<Reader> {
        files::open(&self.place("open file").await?, path).await
    }

    async fn write(&self, path: &SandboxPath, options: &WriteOptions, content: Source<'_>) -> Result<()> {
        files::write(&self.place("write file").await?, path, options, content).await
    }

    async fn metadata(&self, path: &SandboxPath) -> Result<Metadata> {
        files::metadata(&self.place("read metadata").await?, path).await
    }

    async fn read_dir(&self, path: &SandboxPath) -> Result<Events<DirEntry>> {
        files::read_dir(&self.place("read directory").await?, path).await
    }

    async fn create_dir(&self, path: &SandboxPath, depth: Depth) -> Result<()> {
        files::create_dir(&self.place("make directory").await?, path, depth).await
    }

    async fn remove_path(&self, path: &SandboxPath, depth: Depth) -> Result<()> {
        files::remove_path(&self.place("remove path").await?, path, depth).await
    }

    async fn pack(&self, path: &SandboxPath) -> Result<Reader> {
        files::pack(&self.place("pack tree").await?, path).await
    }

    async fn unpack(&self, path: &SandboxPath, tar: Source<'_>) -> Result<()> {
        files::unpack(&self.place("unpack tree").await?, path, tar).await
    }
}
