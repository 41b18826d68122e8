//! One sandbox: what a handle is bound to, and what happens when it goes.
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use agentkernel_core::{
    BackendType, Capabilities, Capability, CommandInfo, Depth, DirEntry, Duplex, Error, ErrorKind, Events,
    ExecEvent, ExecId, ExecSession, ExecSpec, HostContext, Lifetime, LogOptions, Metadata, Reader, Replay,
    Result, Sandbox, SandboxInfo, SandboxName, SandboxPath, SandboxSpec, Source, State, Stats, WriteOptions,
    async_trait,
};
use agentkernel_host::{BoundPorts, GuestSandbox, PublishedPorts, RunDir};

use crate::{
    backend::Shared,
    boot::{self, Booted},
    create::{self, Prepared},
    error,
    state::{Found, StateDir},
};

/// A sandbox by name, and by run id once it was made or seen.
#[derive(Debug)]
pub(crate) struct LinuxSandbox {
    pub(crate) shared: Arc<Shared>,
    pub(crate) name: SandboxName,
    bound: Mutex<Bound>,
}

/// What a handle knows of its sandbox.
#[derive(Debug, Default)]
pub(crate) struct Bound {
    /// Tells it from a namesake.
    pub run_id: Option<String>,
    /// Made by this handle, and not yet booted.
    pub prepared: Option<Prepared>,
    /// The connection to its guest; the lease, if this handle is the owner.
    pub guest: Option<GuestSandbox>,
    /// Lead inside as long as this handle lives.
    pub ports: Option<PublishedPorts>,
    /// The sandbox ends with this handle.
    pub owned: bool,
}

impl LinuxSandbox {
    pub(crate) fn new(shared: Arc<Shared>, name: SandboxName) -> Self {
        Self { shared, name, bound: Mutex::default() }
    }

    pub(crate) fn bound(&self) -> MutexGuard<'_, Bound> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn error(&self, kind: ErrorKind, operation: &'static str, message: &'static str) -> Error {
        error::about(&self.name, kind, operation, message)
    }

    pub(crate) fn absent(&self, operation: &'static str) -> Error {
        self.error(ErrorKind::NotFound, operation, "there is no such sandbox")
            .with_hint("see `agentkernel list`")
    }

    /// Looks for this sandbox: the one that the handle is bound to, else the one of its name.
    pub(crate) fn find(&self) -> Result<Option<Found>> {
        let found = StateDir::of(&self.shared.data, &self.name).read()?;
        let mut bound = self.bound();
        let found = found.filter(|found| {
            found.labels.name == self.name
                && bound.run_id.as_ref().is_none_or(|run_id| *run_id == found.labels.run_id)
        });
        if let Some(found) = &found {
            bound.run_id.get_or_insert_with(|| found.labels.run_id.clone());
        }
        Ok(found)
    }

    pub(crate) fn require(&self, operation: &'static str) -> Result<Found> {
        self.find()?.ok_or_else(|| self.absent(operation))
    }

    fn hold(&self, Booted { guest, ports }: Booted) {
        let mut bound = self.bound();
        bound.guest = Some(guest);
        bound.ports = Some(ports);
    }

    fn tell(&self, error: Error) -> Error {
        error.with_context("sandbox", &self.name).with_context("backend", BackendType::Linux)
    }

    /// Boots what this handle made; a failure removes it.
    async fn boot_prepared(&self, prepared: Prepared) -> Result<()> {
        let Prepared { dir, run_dir, labels, ports } = prepared;
        match boot::boot(&self.shared, &dir, &run_dir, &labels, ports).await {
            Ok(booted) => {
                self.hold(booted);
                Ok(())
            }
            Err(error) => {
                self.bound().owned = false;
                let is_gone = self.find()?.is_none();
                dir.is_over(self.shared.config.end_timeout).await;
                let removed = Prepared { dir, run_dir, labels, ports: BoundPorts::default() }.discard();
                let error = match error.kind() {
                    ErrorKind::Disconnected if is_gone => self.absent("boot sandbox").with_source(error),
                    _ => self.tell(error),
                };
                Err(match removed {
                    Ok(()) => error,
                    Err(cleanup) => error.with_context("cleanup", cleanup),
                })
            }
        }
    }

    /// Boots a stopped one again.
    async fn boot_again(&self) -> Result<()> {
        let found = self.require("boot sandbox")?;
        match found.dir.state() {
            State::Running => return Ok(()),
            _ if found.is_owned() => {
                return Err(self.error(ErrorKind::Conflict, "boot sandbox", "it ends with its owner"));
            }
            _ => {}
        }
        let run_dir = RunDir::open(self.shared.key(), &found.labels.run_id)?;
        let _forgotten = std::fs::remove_file(found.dir.file("exit"));
        match boot::boot(&self.shared, &found.dir, &run_dir, &found.labels, BoundPorts::default()).await {
            Ok(booted) => {
                self.hold(booted);
                Ok(())
            }
            // Somebody else may have booted it meanwhile.
            Err(_) if found.dir.state() == State::Running => Ok(()),
            Err(_) if self.find()?.is_none() => Err(self.absent("boot sandbox")),
            Err(error) => Err(self.tell(error)),
        }
    }
}

/// An owned sandbox ends with its owner: closing the lease ends the guest, and the helper removes what is left.
impl Drop for LinuxSandbox {
    fn drop(&mut self) {
        let bound = self.bound.get_mut().unwrap_or_else(PoisonError::into_inner);
        if !bound.owned {
            return;
        }
        if let Some(guest) = bound.guest.take() {
            guest.client().close();
        }
        if let Some(prepared) = bound.prepared.take()
            && let Err(error) = prepared.discard()
        {
            tracing::debug!(%error, "a sandbox that was never booted stays until it is reaped");
        }
    }
}

#[async_trait]
impl Sandbox for LinuxSandbox {
    fn name(&self) -> &SandboxName {
        &self.name
    }

    fn backend_type(&self) -> BackendType {
        BackendType::Linux
    }

    fn host(&self) -> &HostContext {
        &self.shared.host
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        Ok(self.shared.capabilities())
    }

    async fn inspect(&self) -> Result<SandboxInfo> {
        Ok(self.require("inspect sandbox")?.info())
    }

    async fn create(&self, spec: &SandboxSpec) -> Result<()> {
        let prepared =
            create::create(&self.shared, &self.name, spec).await.map_err(|error| self.tell(error))?;
        let mut bound = self.bound();
        bound.run_id = Some(prepared.labels.run_id.clone());
        bound.guest = None;
        bound.owned = spec.lifetime == Lifetime::Owned;
        bound.prepared = Some(prepared);
        Ok(())
    }

    async fn boot(&self) -> Result<()> {
        let prepared = self.bound().prepared.take();
        match prepared {
            Some(prepared) => self.boot_prepared(prepared).await,
            None => self.boot_again().await,
        }
    }

    async fn spawn(&self, spec: &ExecSpec) -> Result<ExecSession> {
        if spec.options.user.is_some() && !self.shared.capabilities().has(Capability::ExecUser) {
            return Err(self
                .error(ErrorKind::Unsupported, "start command", "this backend cannot enforce `user` here")
                .with_hint(
                    "there is one user inside, since the caller is not root; or use `--backend docker`",
                ));
        }
        self.guest("start command").await?.spawn(spec).await
    }

    async fn commands(&self) -> Result<Vec<CommandInfo>> {
        self.guest("list commands").await?.commands().await
    }

    async fn attach(&self, id: &ExecId, replay: Replay) -> Result<ExecSession> {
        self.guest("attach to command").await?.attach(id, replay).await
    }

    async fn halt(&self, grace: Duration) -> Result<()> {
        self.halt_within(grace).await?;
        self.close_ports().await;
        Ok(())
    }

    async fn remove(&self) -> Result<()> {
        self.remove_now().await
    }

    async fn logs(&self, _options: &LogOptions) -> Result<Events<ExecEvent>> {
        Err(self
            .error(ErrorKind::Unsupported, "read logs", "this backend keeps no logs")
            .with_hint("join the command while it runs: agentkernel attach"))
    }

    async fn stats(&self) -> Result<Stats> {
        Err(self
            .error(ErrorKind::Unsupported, "read stats", "this backend has no counters for every sandbox")
            .with_hint("use another backend: `--backend docker`"))
    }

    async fn connect(&self, port: u16) -> Result<Duplex> {
        self.guest("connect to port").await?.connect(port).await
    }

    async fn listen(&self, address: SocketAddr) -> Result<Events<Duplex>> {
        self.guest("listen on port").await?.listen(address).await
    }

    async fn open(&self, path: &SandboxPath) -> Result<Reader> {
        self.guest("open file").await?.open(path).await
    }

    async fn write(&self, path: &SandboxPath, options: &WriteOptions, content: Source<'_>) -> Result<()> {
        self.guest("write file").await?.write(path, options, content).await
    }

    async fn metadata(&self, path: &SandboxPath) -> Result<Metadata> {
        self.guest("read metadata").await?.metadata(path).await
    }

    async fn read_dir(&self, path: &SandboxPath) -> Result<Events<DirEntry>> {
        self.guest("read directory").await?.read_dir(path).await
    }

    async fn create_dir(&self, path: &SandboxPath, depth: Depth) -> Result<()> {
        self.guest("make directory").await?.create_dir(path, depth).await
    }

    async fn remove_path(&self, path: &SandboxPath, depth: Depth) -> Result<()> {
        self.guest("remove path").await?.remove_path(path, depth).await
    }

    async fn pack(&self, path: &SandboxPath) -> Result<Reader> {
        self.guest("pack tree").await?.pack(path).await
    }

    async fn unpack(&self, path: &SandboxPath, tar: Source<'_>) -> Result<()> {
        self.guest("unpack tree").await?.unpack(path, tar).await
    }
}
