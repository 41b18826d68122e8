//! A command: its streams, what is kept of its output, and the sessions with it.
use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Instant,
};

use agentkernel_core::{Bytes, Error, ExecEvent, ExitStatus, Result, Stream};

use super::{
    Fault,
    bug::Bug,
    fault::Struck,
    pipe::PipeReader,
    process::{World, lock},
};

/// How much of the output is kept.
const KEPT: usize = 1 << 20;

/// A command that was started.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) id: u64,
    pub(super) argv: Vec<Bytes>,
    pub(super) main: bool,
    pub(super) detached: AtomicBool,
    pub(super) started: Instant,
    bug: Option<Bug>,
    has_timeout: bool,
    output: Mutex<Output>,
    sessions: AtomicUsize,
    leader: AtomicU32,
    killed: AtomicBool,
    exit: Mutex<Option<ExitStatus>>,
}

#[derive(Debug)]
struct Output {
    stdout: Option<PipeReader>,
    stderr: Option<PipeReader>,
    kept: VecDeque<ExecEvent>,
    first: u64,
    length: usize,
    seen: usize,
    wakers: Vec<Waker>,
}

impl Command {
    pub(super) fn new(
        id: u64,
        argv: Vec<Bytes>,
        main: bool,
        detached: bool,
        (stdout, stderr): (PipeReader, PipeReader),
        bug: Option<Bug>,
        has_timeout: bool,
    ) -> Self {
        let output = Output {
            stdout: Some(stdout),
            stderr: Some(stderr),
            kept: VecDeque::new(),
            first: 0,
            length: 0,
            seen: 0,
            wakers: Vec::new(),
        };
        Self {
            id,
            argv,
            main,
            detached: AtomicBool::new(detached),
            started: Instant::now(),
            bug,
            has_timeout,
            output: Mutex::new(output),
            sessions: AtomicUsize::new(0),
            leader: AtomicU32::new(0),
            killed: AtomicBool::new(false),
            exit: Mutex::new(None),
        }
    }

    pub(super) fn set_leader(&self, pid: u32) {
        self.leader.store(pid, Ordering::SeqCst);
    }

    pub(super) fn leader(&self) -> Option<u32> {
        Some(self.leader.load(Ordering::SeqCst)).filter(|pid| *pid != 0)
    }

    pub(super) fn is_killed(&self) -> bool {
        self.killed.load(Ordering::SeqCst)
    }

    pub(super) fn set_killed(&self) {
        self.killed.store(true, Ordering::SeqCst);
    }

    pub(super) fn exit(&self) -> Option<ExitStatus> {
        *lock(&self.exit)
    }

    /// Notes how it ended; only the first end counts.
    pub(super) fn set_exit(&self, status: ExitStatus) {
        lock(&self.exit).get_or_insert(status);
        self.wake();
    }

    pub(super) fn wake(&self) {
        let wakers = std::mem::take(&mut lock(&self.output).wakers);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Returns what is kept of the output.
    pub(super) fn kept(&self) -> Vec<ExecEvent> {
        lock(&self.output).kept.iter().cloned().collect()
    }

    /// Returns where the output that is still to come begins.
    fn end(&self) -> u64 {
        let output = lock(&self.output);
        output.first + output.kept.len() as u64
    }

    /// Returns the event at the cursor, taking more of the output if needed; `None` when there is no more.
    fn poll_event(&self, context: &mut Context<'_>, cursor: &mut u64) -> Poll<Option<ExecEvent>> {
        // The end is looked at under the lock that `set_exit` takes to wake us, and before the pipes: what was written
        // before the end is then in them.
        let mut output = lock(&self.output);
        let exited = self.exit().is_some();
        *cursor = (*cursor).max(output.first);
        if let Ok(index) = usize::try_from(*cursor - output.first)
            && let Some(event) = output.kept.get(index)
        {
            *cursor += 1;
            return Poll::Ready(Some(event.clone()));
        }
        let event = match output.poll_pipes(context) {
            Poll::Ready(Some(event)) => event,
            Poll::Ready(None) if exited => return Poll::Ready(None),
            Poll::Pending if exited && self.bug != Some(Bug::WaitsForBackground) => return Poll::Ready(None),
            Poll::Ready(None) | Poll::Pending => {
                output.wakers.push(context.waker().clone());
                return Poll::Pending;
            }
        };
        let event = match event {
            ExecEvent::Stderr(bytes) if self.bug == Some(Bug::MergedStreams) => ExecEvent::Stdout(bytes),
            event => event,
        };
        output.keep(event.clone());
        *cursor = output.first + output.kept.len() as u64;
        let wakers = std::mem::take(&mut output.wakers);
        drop(output);
        wakers.into_iter().for_each(Waker::wake);
        Poll::Ready(Some(event))
    }

    /// Reads the output of a detached command as long as nobody else does, so that it is not held back.
    async fn drain(self: Arc<Self>) {
        let mut cursor = self.end();
        std::future::poll_fn(|context| {
            loop {
                if self.sessions.load(Ordering::SeqCst) > 0 {
                    return Poll::Ready(());
                }
                match self.poll_event(context, &mut cursor) {
                    Poll::Ready(Some(_)) => {}
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
    }
}

impl Output {
    fn poll_pipes(&mut self, context: &mut Context<'_>) -> Poll<Option<ExecEvent>> {
        let mut open = false;
        for stdout in [true, false] {
            let pipe = if stdout { &mut self.stdout } else { &mut self.stderr };
            let Some(reader) = pipe else { continue };
            match reader.poll_take(context, 64 << 10) {
                Poll::Ready(Some(bytes)) if stdout => return Poll::Ready(Some(ExecEvent::Stdout(bytes))),
                Poll::Ready(Some(bytes)) => return Poll::Ready(Some(ExecEvent::Stderr(bytes))),
                Poll::Ready(None) => *pipe = None,
                Poll::Pending => open = true,
            }
        }
        if open { Poll::Pending } else { Poll::Ready(None) }
    }

    fn keep(&mut self, event: ExecEvent) {
        let size = |event: &ExecEvent| match event {
            ExecEvent::Stdout(bytes) | ExecEvent::Stderr(bytes) => bytes.len(),
            _ => 0,
        };
        self.length += size(&event);
        self.seen += size(&event);
        self.kept.push_back(event);
        while self.length > KEPT
            && let Some(oldest) = self.kept.pop_front()
        {
            self.length -= size(&oldest);
            self.first += 1;
        }
    }
}

/// A session's events; dropping it kills the command, unless that is detached.
#[derive(Debug)]
pub(super) struct Session {
    command: Arc<Command>,
    world: Weak<World>,
    cursor: u64,
    passed: usize,
    attached: bool,
    fate: Fate,
}

/// How the end of a session is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// As it is.
    Told,
    /// The stream breaks before it.
    Lost,
    /// Nothing is told, ever.
    Silent,
}

impl Fate {
    pub(super) fn of(struck: &Struck) -> Self {
        if struck.has(Fault::Silent) {
            Self::Silent
        } else if struck.has(Fault::LostExit) {
            Self::Lost
        } else {
            Self::Told
        }
    }
}

impl Session {
    /// Makes the first session of a command.
    pub(super) fn first(command: &Arc<Command>, world: &Arc<World>, fate: Fate) -> Self {
        Self::new(command, world, 0, false, fate)
    }

    /// Joins a command: with what is kept, or only with what comes.
    pub(super) fn attached(command: &Arc<Command>, world: &Arc<World>, kept: bool, fate: Fate) -> Self {
        Self::new(command, world, if kept { 0 } else { command.end() }, true, fate)
    }

    fn new(command: &Arc<Command>, world: &Arc<World>, cursor: u64, attached: bool, fate: Fate) -> Self {
        command.sessions.fetch_add(1, Ordering::SeqCst);
        command.wake();
        let (command, world) = (Arc::clone(command), Arc::downgrade(world));
        Self { command, world, cursor, passed: 0, attached, fate }
    }
}

impl Stream for Session {
    type Item = Result<ExecEvent>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.fate == Fate::Silent {
            return Poll::Pending;
        }
        loop {
            let event = match this.command.poll_event(context, &mut this.cursor) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(event)) => event,
                Poll::Ready(None) if this.fate == Fate::Lost => return Poll::Ready(None),
                Poll::Ready(None) => match this.command.exit() {
                    Some(ExitStatus::Code(_)) if this.command.bug == Some(Bug::LostExitStatus) => {
                        ExecEvent::Exited(ExitStatus::Code(0))
                    }
                    Some(status) => ExecEvent::Exited(status),
                    None => return Poll::Pending,
                },
            };
            if let ExecEvent::Stdout(bytes) | ExecEvent::Stderr(bytes) = &event {
                this.passed += bytes.len();
                let lost = match this.command.bug {
                    Some(Bug::TruncatedOutput) => this.passed > 1 << 20,
                    Some(Bug::TimeoutLosesOutput) => this.command.has_timeout,
                    _ => false,
                };
                if lost {
                    continue;
                }
            }
            return Poll::Ready(Some(Ok(event)));
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.command.sessions.fetch_sub(1, Ordering::SeqCst);
        if self.command.detached.load(Ordering::SeqCst) {
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(Arc::clone(&self.command).drain());
            }
        } else if !self.attached
            && self.command.exit().is_none()
            && let Some(world) = self.world.upgrade()
        {
            world.kill_tree(&self.command);
        }
    }
}

/// Returns an error for a command that is not there.
pub(super) fn no_command(id: &str) -> Error {
    Error::new(agentkernel_core::ErrorKind::NotFound, "attach to command", "there is no such command")
        .with_context("command", id)
}
