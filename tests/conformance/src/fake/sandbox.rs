//! A handle to a sandbox of the fake.
use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use agentkernel_core::{
    BackendType, Bytes, Capabilities, Capability, CommandInfo, Depth, DirEntry, Duplex, Error, ErrorKind,
    Events, ExecEvent, ExecId, ExecSession, ExecSpec, HostContext, Lifetime, LogOptions, Metadata, Reader,
    Replay, Result, Sandbox, SandboxInfo, SandboxName, SandboxPath, SandboxSpec, Source, Stats, WriteOptions,
    async_trait,
};
use futures_util::stream;
use tokio::io::AsyncReadExt;

use super::{
    Bug, Call, Fault, TYPE, archive,
    backend::Engine,
    command::no_command,
    instance::Instance,
    launch,
    loopback::Connection,
    pipe::{Input, broken},
    process::{World, lock},
    tree::{All, Errno, Follow, Kind, Person, Tree, file_type},
};

/// A handle; the one that made the sandbox owns it.
pub(super) struct FakeSandbox {
    engine: Arc<Engine>,
    name: SandboxName,
    /// The id that it made or first saw.
    bound: Mutex<Option<String>>,
    owns: AtomicBool,
}

impl Engine {
    /// Refuses what is not claimed.
    pub(super) fn needs(&self, capability: Capability, operation: &'static str) -> Result<()> {
        if self.is_able(capability) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Unsupported, operation, format!("this backend has no `{capability}`"))
            .with_context("backend", TYPE))
    }
}

/// Variables are often secrets, and the instance has them: only the name is shown.
impl fmt::Debug for FakeSandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeSandbox").field("name", &self.name).finish_non_exhaustive()
    }
}

impl FakeSandbox {
    pub(super) fn new(engine: Arc<Engine>, name: SandboxName) -> Self {
        Self { engine, name, bound: Mutex::default(), owns: AtomicBool::new(false) }
    }

    fn find(&self, operation: &'static str) -> Result<Arc<Instance>> {
        let found = self.engine.find(&self.name);
        let found = found.filter(|instance| {
            let mut bound = lock(&self.bound);
            *bound.get_or_insert_with(|| instance.id.clone()) == instance.id
                || self.engine.bug == Some(Bug::TouchesNamesake)
        });
        found.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, operation, "there is no such sandbox")
                .with_context("backend", TYPE)
                .with_context("sandbox", &self.name)
        })
    }

    fn running(&self, operation: &'static str) -> Result<(Arc<Instance>, Arc<World>)> {
        let instance = self.find(operation)?;
        match instance.world() {
            Some(world) => Ok((instance, world)),
            None => Err(Error::new(ErrorKind::NotRunning, operation, "the sandbox does not run")
                .with_context("sandbox", &self.name)),
        }
    }

    /// Does something to the files as the user of the sandbox.
    fn files<T>(
        &self,
        operation: &'static str,
        path: &SandboxPath,
        act: impl FnOnce(&mut Tree, Person) -> Result<T, Errno>,
    ) -> Result<T> {
        self.engine.needs(Capability::Files, operation)?;
        let (instance, _) = self.running(operation)?;
        let person = launch::person(&instance, None)?;
        let done = act(&mut lock(&instance.tree), person);
        done.map_err(|errno| errno.error(operation, path.as_bytes()))
    }
}

impl Drop for FakeSandbox {
    fn drop(&mut self) {
        let leaks = self.engine.bug == Some(Bug::LeakedOnDrop) || !self.engine.is_able(Capability::Lease);
        if !self.owns.load(Ordering::SeqCst) || leaks {
            return;
        }
        if let Ok(instance) = self.find("end sandbox")
            && (instance.spec.lifetime == Lifetime::Owned || !self.engine.is_able(Capability::Persistence))
        {
            self.engine.remove(&instance);
        }
    }
}

async fn all(source: Source<'_>) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    source.read_to_end(&mut content).await?;
    Ok(content)
}

fn duplex(Connection { reader, writer }: Connection, half: bool) -> Duplex {
    let writer = if half { broken() } else { writer };
    Duplex { reader: Box::pin(reader), writer: Box::pin(Input(Some(writer))) }
}

#[async_trait]
impl Sandbox for FakeSandbox {
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
        Ok(self.engine.capabilities)
    }

    async fn inspect(&self) -> Result<SandboxInfo> {
        self.engine.faults.strike(Call::Inspect).await?;
        Ok(self.find("inspect sandbox")?.info())
    }

    async fn create(&self, spec: &SandboxSpec) -> Result<()> {
        self.engine.faults.strike(Call::Create).await?;
        let instance = self.engine.create(&self.name, spec)?;
        *lock(&self.bound) = Some(instance.id.clone());
        self.owns.store(true, Ordering::SeqCst);
        Ok(())
    }

    async fn boot(&self) -> Result<()> {
        self.engine.faults.strike(Call::Boot).await?;
        self.find("boot sandbox")?.boot(self.engine.bug);
        Ok(())
    }

    async fn spawn(&self, spec: &ExecSpec) -> Result<ExecSession> {
        let operation = "start command";
        let (instance, world) = self.running(operation)?;
        let options = &spec.options;
        let raw = spec.argv.iter().map(|arg| arg.as_bytes()).chain(options.env.iter().map(|var| var.value()));
        let raw = raw.into_iter().any(|bytes| std::str::from_utf8(bytes).is_err());
        let needed = [
            (options.stdin, Capability::ExecStdin),
            (options.tty.is_some(), Capability::ExecTty),
            (options.user.is_some(), Capability::ExecUser),
            (spec.detached, Capability::ExecDetached),
            (raw, Capability::RawBytes),
        ];
        needed
            .iter()
            .filter(|needed| needed.0)
            .try_for_each(|needed| self.engine.needs(needed.1, operation))?;
        launch::spawn(&self.engine, &instance, &world, spec).await
    }

    async fn commands(&self) -> Result<Vec<CommandInfo>> {
        self.engine.faults.strike(Call::Commands).await?;
        let (_, world) = self.running("list commands")?;
        let commands = lock(&world.commands).values().cloned().collect::<Vec<_>>();
        let infos = commands.into_iter().map(|command| {
            let mut info = CommandInfo::new(command.id.into(), command.argv.clone());
            info.exit = command.exit();
            info.running = !world.processes(|process| Arc::ptr_eq(&process.command, &command)).is_empty();
            info.detached = command.detached.load(Ordering::SeqCst);
            info.main = command.main;
            info.age = command.started.elapsed();
            info
        });
        Ok(infos.filter(|info| info.running || info.detached).collect())
    }

    async fn attach(&self, id: &ExecId, replay: Replay) -> Result<ExecSession> {
        let struck = self.engine.faults.strike(Call::Attach).await?;
        self.engine.needs(Capability::ExecDetached, "attach to command")?;
        let (_, world) = self.running("attach to command")?;
        let number = id.as_str().parse::<u64>().ok();
        let command = number.and_then(|number| lock(&world.commands).get(&number).cloned());
        let command = command.ok_or_else(|| no_command(id.as_str()))?;
        Ok(launch::attach(&self.engine, &world, &command, replay == Replay::Kept, &struck))
    }

    async fn halt(&self, grace: Duration) -> Result<()> {
        self.engine.faults.strike(Call::Halt).await?;
        self.find("halt sandbox")?.halt(grace).await;
        Ok(())
    }

    async fn remove(&self) -> Result<()> {
        self.engine.faults.strike(Call::Remove).await?;
        match self.find("remove sandbox") {
            Ok(instance) => self.engine.remove(&instance),
            Err(error) if self.engine.bug == Some(Bug::RemoveOfAbsentFails) => return Err(error),
            Err(_) => {}
        }
        Ok(())
    }

    async fn logs(&self, options: &LogOptions) -> Result<Events<ExecEvent>> {
        self.engine.faults.strike(Call::Logs).await?;
        self.engine.needs(Capability::Logs, "read the log")?;
        let instance = self.find("read the log")?;
        let mut kept = instance.main().map(|command| command.kept()).unwrap_or_default();
        if let Some(tail) = options.tail {
            kept = last_lines(kept, tail);
        }
        Ok(Box::pin(stream::iter(kept.into_iter().map(Ok))))
    }

    async fn stats(&self) -> Result<Stats> {
        self.engine.faults.strike(Call::Stats).await?;
        self.engine.needs(Capability::Stats, "read the use of resources")?;
        let (_, world) = self.running("read the use of resources")?;
        Ok(Stats { pids: Some(world.processes(|_| true).len() as u64), ..Stats::default() })
    }

    async fn connect(&self, port: u16) -> Result<Duplex> {
        let half = self.engine.faults.strike(Call::Connect).await?.has(Fault::HalfClosed);
        self.engine.needs(Capability::Forward, "connect")?;
        let (_, world) = self.running("connect")?;
        let refused =
            || Error::new(ErrorKind::NotFound, "connect", "nothing listens").with_context("port", port);
        world.ports.connect(port).map(|connection| duplex(connection, half)).ok_or_else(refused)
    }

    async fn listen(&self, address: SocketAddr) -> Result<Events<Duplex>> {
        let half = self.engine.faults.strike(Call::Listen).await?.has(Fault::HalfClosed);
        self.engine.needs(Capability::Forward, "listen")?;
        let (_, world) = self.running("listen")?;
        let taken = || Error::new(ErrorKind::AlreadyExists, "listen", "the port is taken");
        let listener = world.ports.listen(address.port()).ok_or_else(taken)?;
        Ok(Box::pin(stream::unfold(listener, move |mut listener| async move {
            let connection = listener.incoming.recv().await?;
            Some((Ok(duplex(connection, half)), listener))
        })))
    }

    async fn open(&self, path: &SandboxPath) -> Result<Reader> {
        self.engine.faults.strike(Call::Open).await?;
        let content = self.files("read file", path, |tree, person| tree.content(path.as_bytes(), person))?;
        Ok(Box::pin(std::io::Cursor::new(content.to_vec())))
    }

    async fn write(&self, path: &SandboxPath, options: &WriteOptions, content: Source<'_>) -> Result<()> {
        self.engine.faults.strike(Call::Write).await?;
        let at = path.as_bytes();
        if self.engine.bug == Some(Bug::NonAtomicWrite) {
            return self.write_in_place(path, options, content).await;
        }
        self.files("write file", path, |_, _| Ok(()))?;
        let content = all(content).await?;
        self.files("write file", path, |tree, person| {
            if options.parents
                && let Some(end) = at.iter().rposition(|byte| *byte == b'/')
            {
                tree.make_directories(&at[..end], person)?;
            }
            if self.engine.bug == Some(Bug::FollowsLinkOnWrite)
                && let Ok(id) = tree.find(at, Follow::Yes)
                && matches!(tree.get(id)?.kind, Kind::File(_))
            {
                tree.truncate(id);
                return tree.write_at(id, Some(0), &content).map(drop);
            }
            tree.replace(at, content, options.mode, person).map(drop)
        })
    }

    async fn metadata(&self, path: &SandboxPath) -> Result<Metadata> {
        self.engine.faults.strike(Call::Metadata).await?;
        self.files("read metadata", path, |tree, _| {
            tree.find(path.as_bytes(), Follow::No).and_then(|id| tree.metadata(id))
        })
    }

    async fn read_dir(&self, path: &SandboxPath) -> Result<Events<DirEntry>> {
        self.engine.faults.strike(Call::ReadDir).await?;
        let entries = self.files("list directory", path, |tree, _| {
            let entries = tree.entries(tree.find(path.as_bytes(), Follow::Yes)?)?;
            let entries = entries.into_iter().map(|(name, id)| {
                Ok(DirEntry { name: name.into(), file_type: file_type(&tree.get(id)?.kind) })
            });
            entries.collect::<Result<Vec<_>, Errno>>()
        })?;
        Ok(Box::pin(stream::iter(entries.into_iter().map(Ok))))
    }

    async fn create_dir(&self, path: &SandboxPath, depth: Depth) -> Result<()> {
        self.engine.faults.strike(Call::CreateDir).await?;
        self.files("make directory", path, |tree, person| match depth {
            Depth::Recursive => tree.make_directories(path.as_bytes(), person),
            Depth::One => {
                tree.make(path.as_bytes(), Kind::Directory(Default::default()), 0o755, person).map(drop)
            }
        })
    }

    async fn remove_path(&self, path: &SandboxPath, depth: Depth) -> Result<()> {
        self.engine.faults.strike(Call::RemovePath).await?;
        let all = if depth == Depth::Recursive { All::Yes } else { All::No };
        self.files("remove file", path, |tree, person| tree.remove(path.as_bytes(), all, person))
    }

    async fn pack(&self, path: &SandboxPath) -> Result<Reader> {
        self.engine.faults.strike(Call::Pack).await?;
        self.files("pack files", path, |_, _| Ok(()))?;
        let instance = self.find("pack files")?;
        let packed = archive::pack(&lock(&instance.tree), path.as_bytes())?;
        Ok(Box::pin(std::io::Cursor::new(packed)))
    }

    async fn unpack(&self, path: &SandboxPath, tar: Source<'_>) -> Result<()> {
        self.engine.faults.strike(Call::Unpack).await?;
        self.files("unpack files", path, |_, _| Ok(()))?;
        let tar = all(tar).await?;
        let instance = self.find("unpack files")?;
        let person = launch::person(&instance, None)?;
        let lax = self.engine.bug == Some(Bug::UnpackLeavesDirectory);
        archive::unpack(&mut lock(&instance.tree), path.as_bytes(), &tar, person, lax)
    }
}

impl FakeSandbox {
    /// The seeded bug: piece by piece, so that readers see parts.
    async fn write_in_place(
        &self,
        path: &SandboxPath,
        options: &WriteOptions,
        content: Source<'_>,
    ) -> Result<()> {
        let id = self.files("write file", path, |tree, person| {
            if let Some(end) =
                path.as_bytes().iter().rposition(|byte| *byte == b'/').filter(|_| options.parents)
            {
                tree.make_directories(&path.as_bytes()[..end], person)?;
            }
            tree.replace(path.as_bytes(), Vec::new(), options.mode, person)
        })?;
        let mut piece = vec![0; 4096];
        loop {
            let length = content.read(&mut piece).await?;
            if length == 0 {
                return Ok(());
            }
            self.files("write file", path, |tree, _| tree.write_at(id, None, &piece[..length]))?;
            tokio::task::yield_now().await;
        }
    }
}

/// Returns the last lines of stdout.
fn last_lines(events: Vec<ExecEvent>, tail: u64) -> Vec<ExecEvent> {
    let stdout = events.into_iter().filter_map(|event| match event {
        ExecEvent::Stdout(bytes) => Some(bytes),
        _ => None,
    });
    let all = stdout.collect::<Vec<Bytes>>().concat();
    let lines = all.split_inclusive(|byte| *byte == b'\n').collect::<Vec<_>>();
    let tail = usize::try_from(tail).unwrap_or(usize::MAX).min(lines.len());
    let last = lines[lines.len() - tail..].concat();
    vec![ExecEvent::Stdout(last.into())]
}
