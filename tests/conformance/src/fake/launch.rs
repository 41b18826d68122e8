//! Starting a command in a sandbox of the fake.
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use agentkernel_core::{
    Bytes, Capability, Error, ErrorKind, ExecControl, ExecSession, ExecSpec, ExitStatus, Result, Signal,
    TtySize, async_trait,
};
use tokio::time;

use super::{
    Bug, Call, Fault,
    backend::Engine,
    command::{Command, Fate, Session},
    descriptor::Fd,
    fault::Struck,
    image::look_up,
    instance::Instance,
    pipe::{Input, broken, pipe},
    process::{World, lock},
    program::{self, Context},
    tree::{Follow, Person, ROOT},
};

/// Returns whom a command or a file call of the sandbox acts as.
pub(super) fn person(instance: &Instance, given: Option<&str>) -> Result<Person> {
    let Some(user) = given.or(instance.spec.user.as_ref().map(|user| user.as_str())) else { return Ok(ROOT) };
    let (name, group) = user.split_once(':').map_or((user, None), |(name, group)| (name, Some(group)));
    let tree = lock(&instance.tree);
    let table = |path: &[u8]| tree.content(path, ROOT).unwrap_or_default();
    let missing = || {
        Error::new(ErrorKind::NotFound, "start command", "there is no such user").with_context("user", user)
    };
    let (uid, own) = look_up(&table(b"/etc/passwd"), name).ok_or_else(missing)?;
    let gid = match group {
        Some(group) => look_up(&table(b"/etc/group"), group).ok_or_else(missing)?.0,
        None => own.unwrap_or(0),
    };
    Ok(Person { uid, gid })
}

/// Returns the variables of a command; the command's own come last.
fn variables(engine: &Engine, instance: &Instance, spec: &ExecSpec) -> BTreeMap<String, Vec<u8>> {
    let mut env = BTreeMap::from([("PATH".to_owned(), b"/bin:/usr/bin".to_vec())]);
    env.extend(instance.spec.env.iter().map(|var| (var.name().to_owned(), var.value().to_vec())));
    env.extend(lock(&instance.leaked).clone());
    let own = spec.options.env.iter().map(|var| (var.name().to_owned(), var.value().to_vec()));
    match engine.bug {
        Some(Bug::FirstVariableWins) => env.extend(own.rev()),
        _ => env.extend(own),
    }
    if engine.bug == Some(Bug::LeakedVariables) {
        lock(&instance.leaked).clone_from(&env);
    }
    env
}

/// Starts a command.
pub(super) async fn spawn(
    engine: &Arc<Engine>,
    instance: &Arc<Instance>,
    world: &Arc<World>,
    spec: &ExecSpec,
) -> Result<ExecSession> {
    let struck = engine.faults.strike(Call::Spawn).await?;
    let options = &spec.options;
    let person = person(instance, options.user.as_ref().map(|user| user.as_str()))?;
    let directory = options.cwd.as_ref().or(instance.spec.cwd.as_ref());
    let directory = directory.map_or(b"/".to_vec(), |cwd| cwd.as_bytes().to_vec());
    let entered = {
        let tree = lock(&world.tree);
        tree.find(&directory, Follow::Yes).and_then(|id| tree.entries(id))
    };
    if let Err(errno) = entered {
        return Err(Error::new(ErrorKind::NotFound, "start command", errno.text())
            .with_context("cwd", String::from_utf8_lossy(&directory)));
    }
    let env = variables(engine, instance, spec);
    let mut argv = spec.argv.iter().map(|arg| arg.as_bytes().to_vec()).collect::<Vec<_>>();
    if engine.bug == Some(Bug::LossyArguments) {
        argv.iter_mut().for_each(|arg| *arg = String::from_utf8_lossy(arg).into_owned().into());
    }
    let program = program::look(world, &directory, &env, &argv[0]).map_err(|kind| {
        let message = match kind {
            ErrorKind::CommandNotFound => "the program does not exist",
            _ => "the program cannot be executed",
        };
        if !engine.is_able(Capability::TypedExit) {
            return Error::unexpected("start command", "the command did not start", message);
        }
        Error::new(kind, "start command", message).with_context("program", String::from_utf8_lossy(&argv[0]))
    })?;
    let ((input, to_input), (output, to_output), (errors, to_errors)) = (pipe(), pipe(), pipe());
    let shown = argv.iter().map(|arg| Bytes::copy_from_slice(&arg[..arg.len().min(4096)]));
    let command = Arc::new(Command::new(
        world.next_command(),
        shown.collect(),
        spec.main,
        spec.detached,
        (output, errors),
        engine.bug,
        options.timeout.is_some(),
    ));
    lock(&world.commands).insert(command.id, Arc::clone(&command));
    let keep = (engine.bug == Some(Bug::SwallowedEndOfInput) && options.stdin).then(|| to_input.clone());
    let half = struck.has(Fault::HalfClosed);
    let stdin = options.stdin.then_some(if half { broken() } else { to_input });
    let fds = [
        Some(if stdin.is_some() { Fd::Reader(input) } else { Fd::Null }),
        Some(Fd::Writer(to_output)),
        Some(Fd::Writer(to_errors)),
    ];
    let session = Session::first(&command, world, Fate::of(&struck));
    let of_process = Arc::clone(world);
    let leader = world.start(&command, None, None, move |process| {
        process.command.set_leader(process.pid);
        Box::pin(program::run(
            program,
            Context { world: of_process, process, person, directory, fds, env, argv },
        ))
    });
    let (ending, of_instance, of_world, main) =
        (Arc::clone(&command), Arc::clone(instance), Arc::clone(world), spec.main);
    if main {
        instance.set_main(&command);
    }
    let (timeout, out_of_memory) = (options.timeout, struck.has(Fault::OutOfMemory));
    tokio::spawn(async move {
        let _kept = keep;
        let status = match timeout {
            Some(timeout) => match time::timeout(timeout, leader.ended()).await {
                Ok(status) => status,
                Err(_) => {
                    of_world.kill_tree(&ending);
                    leader.ended().await;
                    ExitStatus::TimedOut
                }
            },
            None => leader.ended().await,
        };
        let status = if out_of_memory { ExitStatus::OutOfMemory } else { status };
        ending.set_exit(status);
        if main {
            of_instance.end(status.code());
        }
    });
    if engine.bug == Some(Bug::ForgedCommandNotFound) {
        let _looked = time::timeout(Duration::from_millis(300), ended(&command)).await;
        if command.exit() == Some(ExitStatus::Code(127)) {
            return Err(Error::new(
                ErrorKind::CommandNotFound,
                "start command",
                "the program does not exist",
            ));
        }
    }
    let control = Arc::new(Control {
        command: Arc::clone(&command),
        world: Arc::downgrade(world),
        engine: Arc::clone(engine),
    });
    let stdin = stdin.map(|writer| Box::pin(Input(Some(writer))) as agentkernel_core::Writer);
    Ok(ExecSession::new(command.id.into(), Box::pin(session), stdin, control))
}

async fn ended(command: &Command) {
    while command.exit().is_none() {
        time::sleep(Duration::from_millis(5)).await;
    }
}

/// Joins a command.
pub(super) fn attach(
    engine: &Arc<Engine>,
    world: &Arc<World>,
    command: &Arc<Command>,
    kept: bool,
    struck: &Struck,
) -> ExecSession {
    let session = Session::attached(command, world, kept, Fate::of(struck));
    let control = Arc::new(Control {
        command: Arc::clone(command),
        world: Arc::downgrade(world),
        engine: Arc::clone(engine),
    });
    ExecSession::new(command.id.into(), Box::pin(session), None, control)
}

/// The control of one command.
#[derive(Debug)]
struct Control {
    command: Arc<Command>,
    world: std::sync::Weak<World>,
    engine: Arc<Engine>,
}

#[async_trait]
impl ExecControl for Control {
    async fn signal(&self, signal: Signal) -> Result<()> {
        self.engine.needs(Capability::ExecSignal, "send a signal")?;
        let (Some(world), Some(leader)) = (self.world.upgrade(), self.command.leader()) else {
            return Ok(());
        };
        let in_group = |process: &super::process::Process| {
            process.group.load(std::sync::atomic::Ordering::SeqCst) == leader
        };
        world.processes(in_group).iter().for_each(|process| process.signal(signal.number()));
        Ok(())
    }

    async fn resize(&self, _: TtySize) -> Result<()> {
        self.engine.needs(Capability::ExecTty, "resize the terminal")
    }

    async fn detach(&self) -> Result<()> {
        self.engine.needs(Capability::ExecDetached, "detach the command")?;
        self.command.detached.store(true, std::sync::atomic::Ordering::SeqCst);
        Ok(())
    }
}
