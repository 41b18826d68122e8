//! A backend that compiles and does nothing yet: copy it to `src/lib.rs` of a crate of yours, and follow
//! `docs/writing-a-backend.md`. What it leaves to your engine says `todo`.
//!
//! It keeps its sandboxes in memory, in the place of an engine. Replace that by questions to yours: never keep a state of
//! your own that can drift from the engine's.
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use agentkernel_core::*;
use agentkernel_host::{host_context, liveness};

/// What callers see as `--backend toy`, in errors and in tables.
const TYPE: BackendType = BackendType::External("toy");

/// What it can do at best. Begin with this and claim more as trials pass: one of the networks is the least.
const CLAIMS: Capabilities = Capabilities::new(Isolation::Process).with_all(&[Capability::NetworkNone]);

/// The backend.
#[derive(Debug)]
pub struct ToyBackend(Arc<Engine>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What all handles share: the connection to the engine, and what was asked of it once.
#[derive(Debug)]
struct Engine {
    host: HostContext,
    /// todo: in the engine, found by label and not by name.
    sandboxes: Mutex<BTreeMap<SandboxName, Arc<Found>>>,
    next: Mutex<u64>,
}

/// One sandbox as the engine knows it. Whatever is here must be read back from the engine, by any process.
#[derive(Debug)]
struct Found {
    name: SandboxName,
    /// The engine's own id: never the same twice.
    id: String,
    spec: SandboxSpec,
    /// Seconds since 1970.
    created: u64,
    running: AtomicBool,
}

/// A handle. The one whose `create` succeeded is the owner; dropping any other ends nothing.
#[derive(Debug)]
struct ToySandbox {
    engine: Arc<Engine>,
    name: SandboxName,
    /// The id that this handle made or first saw: a namesake that comes later is never touched.
    bound: OnceLock<String>,
    owns: AtomicBool,
}

impl ToyBackend {
    /// Reaches the engine. Everything that a caller can get wrong or that may be missing is told here.
    ///
    /// # Errors
    /// `Unavailable` if it is not installed, not running or not reachable: with a hint that names the command to run.
    pub async fn connect() -> Result<Arc<Self>> {
        let engine = Engine { host: host_context()?, sandboxes: Mutex::default(), next: Mutex::default() };
        Ok(Arc::new(Self(Arc::new(engine))))
    }
}

#[async_trait]
impl Backend for ToyBackend {
    fn backend_type(&self) -> BackendType {
        TYPE
    }

    async fn health(&self) -> Result<Health> {
        // todo: ask the engine; take out of CLAIMS what it cannot do on this machine, with a warning for each.
        Ok(Health { version: "1".to_owned(), capabilities: CLAIMS, warnings: Vec::new() })
    }

    async fn probe(&self) -> Result<()> {
        // todo: a name that no other process takes at the same time, and no image that has to be there.
        let sandbox = self.sandbox(format!("probe-{}", std::process::id()).parse()?);
        let started = sandbox.start(&SandboxConfig::default()).await;
        let removed = sandbox.remove().await;
        started.and(removed)
    }

    fn sandbox(&self, name: SandboxName) -> Arc<dyn Sandbox> {
        let (bound, owns) = (OnceLock::new(), AtomicBool::new(false));
        Arc::new(ToySandbox { engine: Arc::clone(&self.0), name, bound, owns })
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<SandboxInfo>> {
        let all = lock(&self.0.sandboxes).values().cloned().collect::<Vec<_>>();
        let infos = all.iter().map(|found| found.info());
        let wanted = infos.filter(|info| {
            let labeled = filter.labels.iter().all(|(name, value)| info.labels.get(name) == Some(value));
            labeled && (!filter.running || info.state == State::Running)
        });
        Ok(wanted.collect())
    }

    async fn reap(&self, plan: Reap) -> Result<Vec<Reaped>> {
        let mut reaped = Vec::new();
        for info in self.list(&Filter::default()).await? {
            // Dead and expired ones go. Unknown ones are told and left alone.
            let outcome = match info.liveness {
                Liveness::Dead | Liveness::Expired if plan == Reap::Remove => {
                    self.sandbox(info.name.clone()).remove().await
                }
                Liveness::Dead | Liveness::Expired | Liveness::Unknown => Ok(()),
                _ => continue,
            };
            reaped.push(Reaped { name: info.name, id: info.id, why: info.liveness, outcome });
        }
        Ok(reaped)
    }

    fn images(&self) -> Option<&dyn ImageStore> {
        None
    }

    fn volumes(&self) -> Option<&dyn VolumeStore> {
        None
    }
}

impl Found {
    fn info(&self) -> SandboxInfo {
        let deadline = self.spec.time_to_live.map(|ttl| self.created + ttl.as_secs());
        // todo: a stopped one is `Stopped`, with the exit code of its main command in `info.exit_code`
        let state = if self.running.load(Ordering::SeqCst) { State::Running } else { State::Created };
        let mut info = SandboxInfo::new(self.name.clone(), self.id.clone(), TYPE, state);
        info.isolation = CLAIMS.isolation();
        info.image = self.spec.config.image.clone().unwrap_or_default();
        info.created = self.created;
        info.deadline = deadline;
        info.lifetime = self.spec.lifetime;
        info.owner = Some(self.spec.owner.clone());
        info.liveness = liveness(self.spec.lifetime, info.owner.as_ref(), deadline);
        info.labels = self.spec.labels.clone();
        // What the caller asked to be restricted, and what the engine says is in force: read it back.
        info.restrictions = self
            .spec
            .requirements
            .iter()
            .filter(|asked| is_restriction(asked.capability))
            .map(|asked| Enforcement {
                capability: asked.capability,
                asked: asked.asked.clone(),
                configured: if asked.weaker { String::new() } else { asked.asked.clone() },
                allowed_weaker: asked.weaker,
            })
            .collect();
        info
    }
}

/// Not everything that is asked for restricts.
fn is_restriction(capability: Capability) -> bool {
    !matches!(capability, Capability::ExecUser | Capability::Files | Capability::Persistence)
}

/// What is not claimed is refused, always with this kind.
fn unsupported<T>(operation: &'static str, capability: Capability) -> Result<T> {
    Err(Error::new(ErrorKind::Unsupported, operation, format!("this backend has no `{capability}`"))
        .with_context("backend", TYPE))
}

impl ToySandbox {
    /// Finds what this handle is bound to.
    async fn find(&self, operation: &'static str) -> Result<Arc<Found>> {
        let found = lock(&self.engine.sandboxes).get(&self.name).cloned();
        let found = found.filter(|found| *self.bound.get_or_init(|| found.id.clone()) == found.id);
        found.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, operation, "there is no such sandbox")
                .with_context("backend", TYPE)
                .with_context("sandbox", &self.name)
        })
    }

    /// Finds it running.
    async fn running(&self, operation: &'static str) -> Result<Arc<Found>> {
        let found = self.find(operation).await?;
        if found.running.load(Ordering::SeqCst) {
            return Ok(found);
        }
        Err(Error::new(ErrorKind::NotRunning, operation, "the sandbox does not run")
            .with_context("sandbox", &self.name))
    }

    /// Ends and removes exactly this one. It must not wait for anything that can hang: `drop` calls it.
    fn remove_now(engine: &Engine, found: &Found) {
        // todo: end every process; remove what the engine has, by id.
        found.running.store(false, Ordering::SeqCst);
        let mut sandboxes = lock(&engine.sandboxes);
        if sandboxes.get(&found.name).is_some_and(|there| there.id == found.id) {
            sandboxes.remove(&found.name);
        }
    }
}

impl Drop for ToySandbox {
    fn drop(&mut self) {
        let found = self.bound.get().and_then(|id| {
            let sandboxes = lock(&self.engine.sandboxes);
            sandboxes.get(&self.name).filter(|found| found.id == *id).cloned()
        });
        if let Some(found) = found
            && self.owns.load(Ordering::SeqCst)
            && found.spec.lifetime == Lifetime::Owned
        {
            Self::remove_now(&self.engine, &found);
        }
    }
}

#[async_trait]
impl Sandbox for ToySandbox {
    fn name(&self) -> &SandboxName {
        &self.name
    }

    fn backend_type(&self) -> BackendType {
        TYPE
    }

    fn host(&self) -> &HostContext {
        &self.engine.host
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        Ok(CLAIMS) // todo: what `health` says, asked once
    }

    async fn inspect(&self) -> Result<SandboxInfo> {
        Ok(self.find("inspect sandbox").await?.info())
    }

    async fn create(&self, spec: &SandboxSpec) -> Result<()> {
        // todo: find the image (`NotFound`, or pull it); make everything, or nothing at all. From here on
        // `spec.time_to_live` counts, also if nothing of ours lives then.
        let mut sandboxes = lock(&self.engine.sandboxes);
        if sandboxes.contains_key(&self.name) {
            return Err(Error::new(ErrorKind::AlreadyExists, "create sandbox", "the name is taken")
                .with_context("backend", TYPE)
                .with_context("sandbox", &self.name));
        }
        let mut next = lock(&self.engine.next);
        *next += 1;
        let id = format!("toy-{next}");
        let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let found = Found {
            name: self.name.clone(),
            id: id.clone(),
            spec: spec.clone(),
            created,
            running: AtomicBool::new(false),
        };
        sandboxes.insert(self.name.clone(), Arc::new(found));
        let _first = self.bound.set(id);
        self.owns.store(true, Ordering::SeqCst);
        Ok(())
    }

    async fn boot(&self) -> Result<()> {
        let found = self.find("boot sandbox").await?;
        found.running.store(true, Ordering::SeqCst); // todo: boot it; one that runs is fine
        Ok(())
    }

    async fn spawn(&self, spec: &ExecSpec) -> Result<ExecSession> {
        let _found = self.running("start command").await?;
        let options = &spec.options;
        if options.stdin {
            return unsupported("start command", Capability::ExecStdin);
        }
        if options.tty.is_some() {
            return unsupported("start command", Capability::ExecTty);
        }
        if options.user.is_some() {
            return unsupported("start command", Capability::ExecUser);
        }
        if spec.detached {
            return unsupported("start command", Capability::ExecDetached);
        }
        let bytes =
            spec.argv.iter().map(|arg| arg.as_bytes()).chain(options.env.iter().map(|var| var.value()));
        if bytes.into_iter().any(|bytes| std::str::from_utf8(bytes).is_err()) {
            return unsupported("start command", Capability::RawBytes);
        }
        // todo: start it; see section 4 for the session. This one says nothing and ends at once.
        let events = futures_util::stream::iter([Ok(ExecEvent::Exited(ExitStatus::Code(0)))]);
        Ok(ExecSession::new(1.into(), Box::pin(events), None, Arc::new(ToyControl)))
    }

    async fn commands(&self) -> Result<Vec<CommandInfo>> {
        self.running("list commands").await?;
        Ok(Vec::new()) // todo: those that run, with their argv
    }

    async fn attach(&self, _id: &ExecId, _replay: Replay) -> Result<ExecSession> {
        unsupported("attach to command", Capability::ExecDetached)
    }

    async fn halt(&self, _grace: Duration) -> Result<()> {
        let found = self.find("halt sandbox").await?;
        found.running.store(false, Ordering::SeqCst); // todo: SIGTERM to all, wait for `grace` at most, SIGKILL to all
        Ok(())
    }

    async fn remove(&self) -> Result<()> {
        if let Ok(found) = self.find("remove sandbox").await {
            Self::remove_now(&self.engine, &found);
        }
        Ok(())
    }

    async fn logs(&self, _options: &LogOptions) -> Result<Events<ExecEvent>> {
        unsupported("read logs", Capability::Logs)
    }

    async fn stats(&self) -> Result<Stats> {
        unsupported("read stats", Capability::Stats)
    }

    async fn connect(&self, _port: u16) -> Result<Duplex> {
        unsupported("connect", Capability::Forward)
    }

    async fn listen(&self, _address: SocketAddr) -> Result<Events<Duplex>> {
        unsupported("listen", Capability::Forward)
    }

    async fn open(&self, _path: &SandboxPath) -> Result<Reader> {
        unsupported("read file", Capability::Files)
    }

    async fn write(&self, _path: &SandboxPath, _options: &WriteOptions, _content: Source<'_>) -> Result<()> {
        unsupported("write file", Capability::Files)
    }

    async fn metadata(&self, _path: &SandboxPath) -> Result<Metadata> {
        unsupported("read metadata", Capability::Files)
    }

    async fn read_dir(&self, _path: &SandboxPath) -> Result<Events<DirEntry>> {
        unsupported("list directory", Capability::Files)
    }

    async fn create_dir(&self, _path: &SandboxPath, _depth: Depth) -> Result<()> {
        unsupported("make directory", Capability::Files)
    }

    async fn remove_path(&self, _path: &SandboxPath, _depth: Depth) -> Result<()> {
        unsupported("remove file", Capability::Files)
    }

    async fn pack(&self, _path: &SandboxPath) -> Result<Reader> {
        unsupported("pack files", Capability::Files)
    }

    async fn unpack(&self, _path: &SandboxPath, _tar: Source<'_>) -> Result<()> {
        unsupported("unpack files", Capability::Files)
    }
}

#[derive(Debug)]
struct ToyControl;

#[async_trait]
impl ExecControl for ToyControl {
    async fn signal(&self, _signal: Signal) -> Result<()> {
        unsupported("send a signal", Capability::ExecSignal)
    }

    async fn resize(&self, _size: TtySize) -> Result<()> {
        unsupported("resize the terminal", Capability::ExecTty)
    }

    async fn detach(&self) -> Result<()> {
        unsupported("detach the command", Capability::ExecDetached)
    }
}

/// Only here, so that it is an example: `cargo run --example skeleton` runs the kit. Yours is `tests/conformance.rs`.
fn main() -> std::process::ExitCode {
    agentkernel_conformance::main("toy", || async {
        let backend: Arc<dyn Backend> = ToyBackend::connect().await?;
        Ok(backend)
    })
}
