//! Commands inside: one `container exec` each, around a script that tells what no exit code can.
mod call;
mod stream;
mod terminal;

use std::{
    collections::BTreeMap,
    process::Stdio,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use agentkernel_core::{
    Capability, CommandInfo, Error, ErrorKind, ExecControl, ExecId, ExecSession, ExecSpec, Result, Signal,
    TtySize, Writer, async_trait,
};
use bytes::Bytes;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use crate::{
    argv,
    backend::Shared,
    command::Line,
    info::Found,
    random, script,
    sentinel::Group,
    stdin::{Input, Stdin},
    unsupported::unsupported,
};
use call::Call;
use terminal::Terminal;

/// How many events wait for a slow reader.
const EVENTS: usize = 16;

/// A command that runs.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    pub run_id: String,
    argv: Vec<Bytes>,
    main: bool,
    started: Instant,
}

impl Running {
    pub(crate) fn info(&self, number: u64) -> CommandInfo {
        let mut info = CommandInfo::new(number.into(), self.argv.clone());
        info.main = self.main;
        info.age = self.started.elapsed();
        info
    }
}

/// What a running command is reached by.
#[derive(Debug)]
struct Control {
    shared: Arc<Shared>,
    id: String,
    user: Option<String>,
    terminal: Option<Terminal>,
    group: OnceLock<Group>,
    is_over: AtomicBool,
}

impl Control {
    /// Runs one of our scripts as the command's user: another one could not reach its processes.
    async fn script(&self, operation: &'static str, script: &str, arguments: &[&str]) -> Result<()> {
        let line = argv::exec_script(&self.id, self.user.as_deref(), script, arguments);
        let deadline = self.shared.config.request_timeout;
        self.shared.program.ask(operation, &line, deadline).await.map(drop)
    }

    /// Ends the command and what it started, as far as it can be found; with what tells the end, or without.
    async fn kill(&self, whole: bool) {
        let Some(group) = self.group.get() else { return };
        let all = if whole { "1" } else { "0" };
        if let Err(error) = self.script("end command", script::KILL, &[&group.pid.to_string(), all]).await {
            tracing::debug!(%error, "a command may live on");
        }
    }
}

#[async_trait]
impl ExecControl for Control {
    async fn signal(&self, signal: Signal) -> Result<()> {
        let Some(group) = self.group.get().filter(|_| !self.is_over.load(Ordering::SeqCst)) else {
            return Ok(());
        };
        let arguments = [group.pid, group.group, signal.number().into()].map(|number| number.to_string());
        let arguments = arguments.each_ref().map(String::as_str);
        match self.script("send signal", script::SIGNAL, &arguments).await {
            Err(_) if self.is_over.load(Ordering::SeqCst) => Ok(()),
            other => other,
        }
    }

    async fn resize(&self, size: TtySize) -> Result<()> {
        match &self.terminal {
            Some(terminal) => terminal.resize(size),
            None => {
                Err(Error::new(ErrorKind::Conflict, "resize the terminal", "the command has no terminal")
                    .with_context("backend", "apple"))
            }
        }
    }

    async fn detach(&self) -> Result<()> {
        unsupported("detach the command", Capability::ExecDetached)
    }
}

/// Starts a command in a sandbox that runs.
pub(crate) async fn spawn(shared: &Arc<Shared>, found: &Found, spec: &ExecSpec) -> Result<ExecSession> {
    let operation = "start command";
    let options = &spec.options;
    if spec.detached {
        return unsupported(operation, Capability::ExecDetached);
    }
    let (id, nonce) = (found.container.id.clone(), random::hex16()?);
    let user = options.user.as_ref().map(|user| user.as_str().to_owned());
    let line = line(found, spec, &nonce, user.as_deref())?;
    let mut command = shared.program.command(&line);
    let (terminal, theirs) = options.tty.map(Terminal::open).transpose()?.unzip();
    // What is ours ends the call when everything was read. On a terminal there is no such end.
    command.stdin(theirs.map_or_else(Stdio::piped, Stdio::from));
    let mut child = shared.program.spawn(operation, &mut command)?;
    // It holds the other end of the terminal.
    drop(command);
    if let Some(terminal) = &terminal {
        terminal.belongs_to(child.id());
    }
    let input = Input::new(child.stdin.take());
    let stdin = match &terminal {
        _ if !options.stdin => None,
        Some(terminal) => Some(terminal.keys()?),
        None => Some(Box::pin(Stdin(input.clone())) as Writer),
    };
    let number = shared.next.fetch_add(1, Ordering::Relaxed);
    let (is_over, group) = (AtomicBool::new(false), OnceLock::new());
    let is_terminal = terminal.is_some();
    let control = Arc::new(Control { shared: Arc::clone(shared), id, user, terminal, group, is_over });
    let running = Running {
        run_id: found.labels.run_id.clone(),
        argv: spec
            .argv
            .iter()
            .map(|arg| Bytes::copy_from_slice(&arg.as_bytes()[..arg.as_bytes().len().min(4096)]))
            .collect(),
        main: spec.main,
        started: Instant::now(),
    };
    let (sender, events) = mpsc::channel(EVENTS);
    let (ready, begun) = oneshot::channel();
    let (guard, cancel) = oneshot::channel::<()>();
    let call = Call {
        control: Arc::clone(&control),
        found: found.clone(),
        stdout: child.stdout.take(),
        stderr: child.stderr.take(),
        child,
        input,
        is_terminal,
        nonce,
        number,
        running,
        timeout: options.timeout,
        sender,
    };
    // From here on it ends with the guard: dropping this future, or the session later, ends the command.
    tokio::spawn(call.carry(ready, cancel));
    begun.await.map_err(|source| Error::unexpected(operation, "the runtime is shutting down", source))??;
    let events = futures_util::stream::unfold((events, guard), |(mut events, guard)| async move {
        events.recv().await.map(|event| (event, (events, guard)))
    });
    Ok(ExecSession::new(ExecId::from(number), Box::pin(events), stdin, control)
        .with_output_limit(options.output_limit))
}

fn line(found: &Found, spec: &ExecSpec, nonce: &str, user: Option<&str>) -> Result<Line> {
    let options = &spec.options;
    let argv = spec.argv.iter().map(|arg| argv::text(arg.as_bytes(), "argv")).collect::<Result<_>>()?;
    let cwd = options.cwd.as_ref().map(|cwd| argv::text(cwd.as_bytes(), "cwd")).transpose()?;
    // A shell loses variables whose names it could not have itself: those of the sandbox are given again.
    let own = found.container.configuration.init_process.environment.iter();
    let lost = own.filter_map(|var| var.split_once('=')).filter(|(name, _)| name.contains(['.', '-']));
    let mut env = lost.map(|(name, value)| (name, value.to_owned())).collect::<BTreeMap<_, _>>();
    for var in &options.env {
        env.insert(var.name(), argv::text(var.value(), "env")?);
    }
    let id = found.container.id.as_str();
    let stdin = match (options.tty.is_some(), options.stdin) {
        (true, _) => argv::Stdin::Terminal,
        (false, true) => argv::Stdin::Callers,
        (false, false) => argv::Stdin::Ours,
    };
    let env = env.into_iter().collect();
    Ok(argv::Exec { id, nonce, user, cwd: cwd.as_deref(), stdin, env, argv }.line())
}
