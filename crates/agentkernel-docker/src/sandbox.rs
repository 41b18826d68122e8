//! One sandbox: what a handle is bound to, and what happens when it goes.
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use agentkernel_core::{
    BackendType, Capabilities, CommandInfo, Depth, DirEntry, Duplex, Error, ErrorKind, Events, ExecEvent,
    ExecId, ExecSession, ExecSpec, HostContext, Lifetime, LogOptions, Metadata, Reader, Replay, Result,
    Sandbox, SandboxInfo, SandboxName, SandboxPath, SandboxSpec, Source, State, Stats, WriteOptions,
    async_trait,
};
use agentkernel_host::{BoundPorts, GuestSandbox, PublishedPorts, RunDir};
use tokio::runtime::Handle;

use crate::{
    backend::Shared,
    boot::{self, Booted},
    create::{self, Meeting, Prepared},
    elsewhere::Lease,
    engine::absent_is_none,
    id::ContainerId,
    info::{self, Found},
    logs,
    place::Place,
};

/// How long the engine may take to see that a container ended.
const SETTLING: Duration = Duration::from_secs(1);

/// A sandbox by name, and by id and run id once it was made or seen.
#[derive(Debug)]
pub(crate) struct DockerSandbox {
    pub(crate) shared: Arc<Shared>,
    pub(crate) name: SandboxName,
    bound: Mutex<Bound>,
}

/// What a handle knows of its sandbox.
#[derive(Debug, Default)]
pub(crate) struct Bound {
    /// Tells it from a namesake.
    pub run_id: Option<String>,
    pub id: Option<ContainerId>,
    /// Made by this handle, and not yet booted.
    pub prepared: Option<Prepared>,
    /// The connection to its guest; the lease, if this handle is the owner.
    pub guest: Option<GuestSandbox>,
    /// The lease of an owned sandbox elsewhere, where the connection is none.
    pub lease: Option<Lease>,
    /// Lead inside as long as this handle lives.
    pub ports: Option<PublishedPorts>,
    /// The sandbox ends with this handle.
    pub owned: Option<RunDir>,
}

impl DockerSandbox {
    pub(crate) fn new(shared: Arc<Shared>, name: SandboxName) -> Self {
        Self { shared, name, bound: Mutex::default() }
    }

    pub(crate) fn bound(&self) -> MutexGuard<'_, Bound> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn error(&self, kind: ErrorKind, operation: &'static str, message: &'static str) -> Error {
        Error::new(kind, operation, message)
            .with_context("sandbox", &self.name)
            .with_context("backend", self.shared.engine.kind().backend_type())
    }

    /// Asks the engine for this sandbox: the one that the handle is bound to, else the one of its name. A namesake made
    /// later, and a container that is not ours, is none.
    pub(crate) async fn find(&self) -> Result<Option<Found>> {
        let (id, run_id) = {
            let bound = self.bound();
            (bound.id.clone(), bound.run_id.clone())
        };
        let inspect = match &id {
            Some(id) => absent_is_none(self.shared.engine.inspect(id).await)?,
            None => self.shared.engine.inspect_name(&self.name).await?,
        };
        let found =
            inspect.map(info::read).transpose()?.flatten().filter(|found| found.labels.name == self.name);
        let Some(found) = found.filter(|found| run_id.is_none_or(|run_id| found.labels.run_id == run_id))
        else {
            if id.is_some() {
                self.end_lost().await;
            }
            return Ok(None);
        };
        let mut bound = self.bound();
        bound.run_id.get_or_insert_with(|| found.labels.run_id.clone());
        bound.id.get_or_insert_with(|| found.id.clone());
        Ok(Some(found))
    }

    /// Ends the guest of an owned sandbox that the engine does not know any more: it must not live on unseen.
    async fn end_lost(&self) {
        let lease = self.bound().guest.clone().filter(|guest| !guest.client().is_closed());
        let is_owned = self.bound().owned.is_some();
        if let Some(guest) = lease.filter(|_| is_owned)
            && let Err(error) = guest.shutdown(Duration::ZERO).await
        {
            tracing::debug!(%error, sandbox = %self.name, "a guest that its engine has lost lives on");
        }
    }

    /// As [`find`](Self::find), where there must be one.
    pub(crate) async fn require(&self, operation: &'static str) -> Result<Found> {
        self.find().await?.ok_or_else(|| self.absent(operation))
    }

    pub(crate) fn absent(&self, operation: &'static str) -> Error {
        self.error(ErrorKind::NotFound, operation, "there is no such sandbox")
            .with_hint("see `agentkernel list`")
    }

    /// Returns what is needed to boot a stopped sandbox that another handle, or another process, made.
    async fn prepare(&self, found: Found) -> Result<Prepared> {
        let image = self.shared.images.defaults(found.inspect.image.as_deref().unwrap_or_default()).await?;
        let run_dir = RunDir::open(&self.shared.key, &found.labels.run_id)?;
        run_dir.publish(&self.name)?;
        let meeting = match self.shared.place().await? {
            Place::Here => Meeting::Here(run_dir.bind_boot()?),
            Place::Elsewhere => Meeting::Elsewhere,
        };
        Ok(Prepared {
            meeting,
            id: found.id.clone(),
            run_dir,
            host_config: found.host_config(),
            targets: info::targets(&found.inspect),
            labels: found.labels,
            image,
            is_first: false,
            // What is detached has none.
            ports: BoundPorts::default(),
        })
    }

    fn hold(&self, Booted { guest, ports, lease }: Booted) {
        let mut bound = self.bound();
        bound.lease = lease;
        bound.guest = Some(guest);
        bound.ports = Some(ports);
    }

    /// Boots what this handle made; a failure removes it.
    async fn boot_prepared(&self, prepared: Prepared) -> Result<()> {
        let (id, run_dir) = (prepared.id.clone(), prepared.run_dir.clone());
        match boot::boot(&self.shared, prepared).await {
            Ok(booted) => {
                self.hold(booted);
                Ok(())
            }
            Err(error) => {
                let error = self.unless_removed(&id, error).await;
                let removed = self.shared.engine.remove(&id).await;
                run_dir.remove(&self.name);
                self.bound().owned = None;
                Err(with_cleanup(error, removed))
            }
        }
    }

    /// Boots a stopped one again; a failure stops it again.
    async fn boot_again(&self) -> Result<()> {
        let found = self.require("boot sandbox").await?;
        match found.state() {
            State::Running => return Ok(()),
            State::Stopped | State::Created if !found.is_owned() => {}
            State::Paused => return Err(self.paused("boot sandbox")),
            state => {
                return Err(self
                    .error(ErrorKind::Conflict, "boot sandbox", "it cannot be booted in its state")
                    .with_context("state", state));
            }
        }
        let prepared = self.prepare(found).await?;
        let (id, run_dir) = (prepared.id.clone(), prepared.run_dir.clone());
        match boot::boot(&self.shared, prepared).await {
            Ok(booted) => {
                self.hold(booted);
                Ok(())
            }
            Err(error) => {
                // Somebody else may have booted it meanwhile: then the socket was theirs.
                if self.reach(&run_dir, Some(&id)).await.is_ok() {
                    return Ok(());
                }
                let error = self.unless_removed(&id, error).await;
                let killed = match self.shared.engine.kill(&id).await {
                    Err(failure) if matches!(failure.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => {
                        Ok(())
                    }
                    other => other,
                };
                Err(with_cleanup(error, killed))
            }
        }
    }

    /// Returns why a boot failed, or that there is nothing to boot any more: what an engine says of a sandbox while
    /// somebody removes it is no cause.
    async fn unless_removed(&self, id: &ContainerId, error: Error) -> Error {
        // It began, and ended by itself for all we know: then the engine removed it.
        if error.kind() == ErrorKind::Disconnected && self.bound().owned.is_some() {
            return error;
        }
        if error.kind() == ErrorKind::Disconnected {
            // The engine learns a little later than we do that it ended.
            let _told = self.is_over(id, SETTLING).await;
        }
        let is_there = match absent_is_none(self.shared.engine.inspect(id).await) {
            Ok(found) => found.and_then(|found| found.state).map(|state| info::state(&state)),
            Err(_) => return error,
        };
        match is_there {
            None | Some(State::Dead) => self.absent("boot sandbox").with_source(error),
            Some(_) => error,
        }
    }

    pub(crate) fn paused(&self, operation: &'static str) -> Error {
        self.error(ErrorKind::Conflict, operation, "the engine has paused it").with_hint(format!(
            "let it go on: {} unpause agentkernel-{}",
            self.shared.engine.kind().command(),
            self.name
        ))
    }
}

fn with_cleanup(error: Error, cleanup: Result<()>) -> Error {
    match cleanup {
        Ok(()) => error,
        Err(cleanup) => error.with_context("cleanup", cleanup),
    }
}

/// An owned sandbox ends with its owner: closing the lease ends the guest, and the engine removes the container. Nothing
/// here waits.
impl Drop for DockerSandbox {
    fn drop(&mut self) {
        let bound = self.bound.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Some(run_dir) = bound.owned.take() else { return };
        match (bound.guest.take(), bound.id.take(), Handle::try_current()) {
            (Some(guest), ..) => guest.client().close(),
            (None, Some(id), Ok(runtime)) => {
                // Never booted, so the engine would keep it.
                let engine = self.shared.engine.clone();
                runtime.spawn(async move {
                    if let Err(error) = engine.remove(&id).await {
                        tracing::debug!(%error, "a container that was never booted stays until it is reaped");
                    }
                });
            }
            _ => {}
        }
        run_dir.remove(&self.name);
    }
}

#[async_trait]
impl Sandbox for DockerSandbox {
    fn name(&self) -> &SandboxName {
        &self.name
    }

    fn backend_type(&self) -> BackendType {
        self.shared.engine.kind().backend_type()
    }

    fn host(&self) -> &HostContext {
        &self.shared.host
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        Ok(self.shared.health().await?.capabilities)
    }

    async fn inspect(&self) -> Result<SandboxInfo> {
        let (health, found) = tokio::join!(self.shared.health(), self.require("inspect sandbox"));
        Ok(found?.info(self.backend_type(), health?.capabilities.isolation()))
    }

    async fn create(&self, spec: &SandboxSpec) -> Result<()> {
        let prepared = create::create(&self.shared, &self.name, spec).await?;
        let mut bound = self.bound();
        bound.run_id = Some(prepared.labels.run_id.clone());
        bound.id = Some(prepared.id.clone());
        bound.guest = None;
        bound.owned = (spec.lifetime == Lifetime::Owned).then(|| prepared.run_dir.clone());
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
        match self.guest("start command").await?.spawn(spec).await {
            Err(error) if error.kind() == ErrorKind::Timeout => {
                Err(self.explain("start command", error).await)
            }
            spawned => spawned,
        }
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

    async fn logs(&self, options: &LogOptions) -> Result<Events<ExecEvent>> {
        let found = self.require("read logs").await?;
        if found.is_owned() {
            return Err(self
                .error(
                    ErrorKind::Conflict,
                    "read logs",
                    "no output is kept of a sandbox that ends with its owner",
                )
                .with_hint("create it detached to keep the main command's output"));
        }
        Ok(logs::read(self.shared.engine.clone(), found.id, options))
    }

    async fn stats(&self) -> Result<Stats> {
        self.guest("read stats").await?.stats().await
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
