//! Commands: what to run, the session with it, and how it ended.
use std::{fmt, future::poll_fn, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use serde::Serialize;

use crate::{
    Arg, EnvVar, Error, ErrorKind, Events, ExecId, Result, SandboxPath, Signal, TtySize, User, Writer,
};

/// How much of each stream [`ExecSession::collect`] keeps unless told otherwise: 16 MiB.
pub const OUTPUT_LIMIT: usize = 16 << 20;

/// A checked command.
#[non_exhaustive]
#[derive(Debug, Clone)]
pub struct ExecSpec {
    /// Program and arguments; never empty. A program without `/` is looked up in the `PATH` of the command.
    pub argv: Vec<Arg>,
    /// How it runs.
    pub options: ExecOptions,
    /// The sandbox ends with this command.
    pub main: bool,
    /// The command outlives its session and its client.
    pub detached: bool,
}

impl ExecSpec {
    /// The most that arguments and variables can hold together, in bytes: a quarter of the usual 8 MiB stack less room
    /// for the kernel's own (execve(2)).
    pub const MAX_TOTAL: usize = (2 << 20) - (16 << 10);

    /// Makes a command from bytes: `ExecSpec::new(["printf".as_bytes(), b"\xff"], options)`.
    ///
    /// # Errors
    /// `InvalidConfig` if there is no program, its name is empty, an argument has a NUL, or all of it is too long.
    pub fn new<A: Into<Vec<u8>>>(argv: impl IntoIterator<Item = A>, options: ExecOptions) -> Result<Self> {
        let argv = argv.into_iter().map(Arg::new).collect::<Result<Vec<_>>>()?;
        if argv.first().is_none_or(|program| program.as_bytes().is_empty()) {
            return Err(Error::invalid("command", "there is no program to run")
                .with_hint("write the program and its arguments after `--`"));
        }
        // Each string costs a pointer and a NUL beside its bytes (execve(2)).
        let total = argv.iter().map(|arg| arg.as_bytes().len() + 9).sum::<usize>()
            + options.env.iter().map(|var| var.name().len() + var.value().len() + 10).sum::<usize>();
        if total > Self::MAX_TOTAL {
            return Err(Error::invalid(
                "command",
                "arguments and environment are longer than the kernel accepts",
            )
            .with_context("bytes", total)
            .with_context("limit", Self::MAX_TOTAL)
            .with_hint("pass the content on stdin or in a file"));
        }
        Ok(Self { argv, options, main: false, detached: false })
    }

    /// Makes the sandbox end with this command.
    #[must_use]
    pub fn main(mut self) -> Self {
        self.main = true;
        self
    }

    /// Makes the command outlive its session and its client.
    #[must_use]
    pub fn detached(mut self) -> Self {
        self.detached = true;
        self
    }
}

/// How a command runs.
#[non_exhaustive]
#[derive(Debug, Clone)]
pub struct ExecOptions {
    /// Variables that replace or add to those of the sandbox; of two with one name the last counts.
    pub env: Vec<EnvVar>,
    /// Working directory; it must exist. Default: that of the sandbox.
    pub cwd: Option<SandboxPath>,
    /// Default: that of the sandbox. Requires [`Capability::ExecUser`](crate::Capability::ExecUser).
    pub user: Option<User>,
    /// Gives the command a terminal of its own of this size; stdout and stderr are then one stream.
    pub tty: Option<TtySize>,
    /// Gives the command a stdin; without it, it reads end-of-file.
    pub stdin: bool,
    /// Ends the command and all that it started, with [`ExitStatus::TimedOut`], counted from its start.
    pub timeout: Option<Duration>,
    /// How much of each stream [`ExecSession::collect`] keeps. Default: [`OUTPUT_LIMIT`].
    pub output_limit: usize,
}

impl Default for ExecOptions {
    fn default() -> Self {
        Self {
            env: Vec::new(),
            cwd: None,
            user: None,
            tty: None,
            stdin: false,
            timeout: None,
            output_limit: OUTPUT_LIMIT,
        }
    }
}

impl ExecOptions {
    /// Sets [`env`](Self::env).
    #[must_use]
    pub fn with_env(mut self, env: Vec<EnvVar>) -> Self {
        self.env = env;
        self
    }

    /// Sets [`cwd`](Self::cwd).
    #[must_use]
    pub fn with_cwd(mut self, cwd: SandboxPath) -> Self {
        self.cwd = Some(cwd);
        self
    }

    /// Sets [`user`](Self::user).
    #[must_use]
    pub fn with_user(mut self, user: User) -> Self {
        self.user = Some(user);
        self
    }

    /// Sets [`tty`](Self::tty).
    #[must_use]
    pub fn with_tty(mut self, size: TtySize) -> Self {
        self.tty = Some(size);
        self
    }

    /// Sets [`stdin`](Self::stdin).
    #[must_use]
    pub fn with_stdin(mut self) -> Self {
        self.stdin = true;
        self
    }

    /// Sets [`timeout`](Self::timeout).
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets [`output_limit`](Self::output_limit).
    #[must_use]
    pub fn with_output_limit(mut self, bytes: usize) -> Self {
        self.output_limit = bytes;
        self
    }
}

/// How a command ended. A timeout and out-of-memory are ends, not errors: the output up to there is kept.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// It ended by itself with this code.
    Code(u8),
    /// A signal ended it.
    Signal(Signal),
    /// Its timeout ended it.
    TimedOut,
    /// The kernel ended it because the sandbox's memory was used up.
    OutOfMemory,
}

impl ExitStatus {
    /// Returns the code by the container convention: 124 for a timeout, 137 for out of memory, 128+n for a signal.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code.into(),
            Self::Signal(signal) => 128 + i32::from(signal.number()),
            Self::TimedOut => 124,
            Self::OutOfMemory => 137,
        }
    }
}

/// What a session tells; `Exited` comes last and once.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecEvent {
    /// Bytes of the command's stdout, in order.
    Stdout(Bytes),
    /// Bytes of the command's stderr, in order.
    Stderr(Bytes),
    /// The command ended; what it wrote before is delivered.
    Exited(ExitStatus),
}

/// The handle to a running command.
#[async_trait]
pub trait ExecControl: fmt::Debug + Send + Sync {
    /// Sends a signal to the command's process group. Requires [`Capability::ExecSignal`](crate::Capability::ExecSignal).
    /// One that has ended takes it without effect.
    async fn signal(&self, signal: Signal) -> Result<()>;
    /// Changes the size of the command's terminal. Requires [`Capability::ExecTty`](crate::Capability::ExecTty).
    async fn resize(&self, size: TtySize) -> Result<()>;
    /// Lets the command outlive the session. Requires [`Capability::ExecDetached`](crate::Capability::ExecDetached).
    async fn detach(&self) -> Result<()>;
}

/// A running command: its output as one stream of events, its stdin and its control.
///
/// A slow reader holds the command back; nothing buffers without bound. Dropping the session kills the command and its
/// whole process tree, unless it was detached.
#[must_use = "dropping the session kills the command"]
pub struct ExecSession {
    id: ExecId,
    events: Events<ExecEvent>,
    stdin: Option<Writer>,
    control: Arc<dyn ExecControl>,
    output_limit: usize,
    exited: bool,
}

impl fmt::Debug for ExecSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecSession").field("id", &self.id).finish_non_exhaustive()
    }
}

impl ExecSession {
    /// Makes a session; for backends. Dropping `events` must kill the command.
    pub fn new(
        id: ExecId,
        events: Events<ExecEvent>,
        stdin: Option<Writer>,
        control: Arc<dyn ExecControl>,
    ) -> Self {
        Self { id, events, stdin, control, output_limit: OUTPUT_LIMIT, exited: false }
    }

    /// Sets how much of each stream [`collect`](Self::collect) keeps.
    pub fn with_output_limit(mut self, bytes: usize) -> Self {
        self.output_limit = bytes;
        self
    }

    /// Returns the command's id in its sandbox.
    pub fn id(&self) -> &ExecId {
        &self.id
    }

    /// Takes the command's stdin, if it was asked for. Dropping it, or shutting it down, is end-of-file.
    pub fn take_stdin(&mut self) -> Option<Writer> {
        self.stdin.take()
    }

    /// Returns the control handle; it may be kept after the session.
    pub fn control(&self) -> Arc<dyn ExecControl> {
        Arc::clone(&self.control)
    }

    /// Returns the next event, and `None` after `Exited`.
    ///
    /// # Cancellation
    /// Safe: no event is lost.
    ///
    /// # Errors
    /// `Disconnected` if the stream breaks before the command's end is known: that is never a success.
    pub async fn next_event(&mut self) -> Option<Result<ExecEvent>> {
        if self.exited {
            return None;
        }
        match poll_fn(|context| self.events.as_mut().poll_next(context)).await {
            Some(Ok(event)) => {
                self.exited = matches!(event, ExecEvent::Exited(_));
                Some(Ok(event))
            }
            Some(Err(error)) => {
                self.exited = true;
                Some(Err(error))
            }
            None => {
                self.exited = true;
                Some(Err(Error::new(
                    ErrorKind::Disconnected,
                    "run command",
                    "the connection ended before the command",
                )
                .with_hint("the outcome is not known: look at `agentkernel inspect`")))
            }
        }
    }

    /// Lets the command live on and returns its id, to attach to it again.
    ///
    /// # Errors
    /// `Unsupported` without [`Capability::ExecDetached`](crate::Capability::ExecDetached); the command is then killed.
    pub async fn detach(self) -> Result<ExecId> {
        self.control.detach().await?;
        Ok(self.id.clone())
    }

    /// Closes stdin, reads both streams to the end and returns how the command ended.
    ///
    /// Keeps the first bytes of each stream up to the limit, reads on, and says so in `truncated`.
    ///
    /// # Errors
    /// `Disconnected` if the connection ends before the command.
    pub async fn collect(mut self) -> Result<ExecOutput> {
        drop(self.take_stdin());
        let (mut stdout, mut stderr, mut truncated) = (BytesMut::new(), BytesMut::new(), false);
        let limit = self.output_limit;
        let mut keep = |kept: &mut BytesMut, bytes: Bytes| {
            let room = limit - kept.len();
            truncated |= bytes.len() > room;
            kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        };
        while let Some(event) = self.next_event().await {
            match event? {
                ExecEvent::Stdout(bytes) => keep(&mut stdout, bytes),
                ExecEvent::Stderr(bytes) => keep(&mut stderr, bytes),
                ExecEvent::Exited(status) => {
                    return Ok(ExecOutput {
                        status,
                        stdout: stdout.freeze(),
                        stderr: stderr.freeze(),
                        truncated,
                    });
                }
            }
        }
        Err(Error::new(ErrorKind::NotRunning, "run command", "the command's end was already read"))
    }
}

/// How a command ended and what it wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutput {
    /// How it ended.
    pub status: ExitStatus,
    /// The first bytes of its stdout.
    pub stdout: Bytes,
    /// The first bytes of its stderr.
    pub stderr: Bytes,
    /// Whether it wrote more than was kept.
    pub truncated: bool,
}

/// [`ExecOutput`] as text, for those who want text: bytes that are no UTF-8 become U+FFFD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecResult {
    /// [`ExitStatus::code`].
    pub exit_code: i32,
    /// stdout as text.
    pub stdout: String,
    /// stderr as text.
    pub stderr: String,
}

impl ExecResult {
    /// Returns whether the command ended with 0.
    pub fn is_success(&self) -> bool {
        self.exit_code == 0
    }
}

impl From<ExecOutput> for ExecResult {
    fn from(output: ExecOutput) -> Self {
        Self {
            exit_code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A command of a sandbox, running or ended.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandInfo {
    /// Its id.
    pub id: ExecId,
    /// Program and arguments; long ones are cut.
    pub argv: Vec<Bytes>,
    /// How it ended, if it did. What it left in the background may live on.
    pub exit: Option<ExitStatus>,
    /// Whether processes of it live, itself or what it started.
    pub running: bool,
    /// Whether it outlives its client.
    pub detached: bool,
    /// Whether the sandbox ends with it.
    pub main: bool,
    /// Time since its start.
    pub age: Duration,
}

impl CommandInfo {
    /// Makes the info of a running command.
    pub fn new(id: ExecId, argv: Vec<Bytes>) -> Self {
        Self { id, argv, exit: None, running: true, detached: false, main: false, age: Duration::ZERO }
    }
}

/// What an attached session is told of the time before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// Nothing.
    None,
    /// What is kept of the output: the last MiB.
    Kept,
}

/// Which part of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Goes on with what comes, until the sandbox ends.
    pub follow: bool,
    /// At most so many of the last lines.
    pub tail: Option<u64>,
}

/// Cumulative use of resources; what a backend does not know is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Processor time in microseconds.
    pub cpu_usec: Option<u64>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        pin::Pin,
        task::{Context, Poll},
    };

    #[derive(Debug)]
    struct NoControl;

    #[async_trait]
    impl ExecControl for NoControl {
        async fn signal(&self, _: Signal) -> Result<()> {
            Ok(())
        }
        async fn resize(&self, _: TtySize) -> Result<()> {
            Ok(())
        }
        async fn detach(&self) -> Result<()> {
            Ok(())
        }
    }

    struct Scripted(std::vec::IntoIter<ExecEvent>);

    impl futures_core::Stream for Scripted {
        type Item = Result<ExecEvent>;

        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            Poll::Ready(self.0.next().map(Ok))
        }
    }

    fn session(events: Vec<ExecEvent>) -> ExecSession {
        ExecSession::new(1.into(), Box::pin(Scripted(events.into_iter())), None, Arc::new(NoControl))
    }

    #[tokio::test]
    async fn a_stream_that_breaks_before_the_exit_is_disconnected() {
        let error = session(vec![ExecEvent::Stdout(Bytes::from_static(b"x"))]).collect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Disconnected);
    }

    #[tokio::test]
    async fn collect_keeps_the_first_bytes_reads_on_and_says_truncated() {
        let events = vec![
            ExecEvent::Stdout(Bytes::from_static(b"abc")),
            ExecEvent::Stdout(Bytes::from_static(b"def")),
            ExecEvent::Exited(ExitStatus::Code(3)),
        ];
        let output = session(events).with_output_limit(4).collect().await.unwrap();
        assert_eq!(
            output,
            ExecOutput {
                status: ExitStatus::Code(3),
                stdout: Bytes::from_static(b"abcd"),
                stderr: Bytes::new(),
                truncated: true
            }
        );
    }

    #[tokio::test]
    async fn nothing_comes_after_the_exit() {
        let mut session = session(vec![
            ExecEvent::Exited(ExitStatus::Code(0)),
            ExecEvent::Stdout(Bytes::from_static(b"forged")),
        ]);
        assert!(session.next_event().await.is_some());
        assert!(session.next_event().await.is_none());
    }

    #[test]
    fn codes_follow_the_container_convention() {
        let codes = [
            ExitStatus::Code(7),
            ExitStatus::Signal(Signal::TERM),
            ExitStatus::TimedOut,
            ExitStatus::OutOfMemory,
        ]
        .map(ExitStatus::code);
        assert_eq!(codes, [7, 143, 124, 137]);
    }

    #[test]
    fn a_command_without_a_program_is_refused() {
        assert!(ExecSpec::new(Vec::<Vec<u8>>::new(), ExecOptions::default()).is_err());
        assert!(ExecSpec::new([""], ExecOptions::default()).is_err());
    }

    #[test]
    fn a_command_that_the_kernel_would_refuse_is_refused_before() {
        let argv = vec!["a".repeat(131_071); 17];
        assert_eq!(ExecSpec::new(argv, ExecOptions::default()).unwrap_err().kind(), ErrorKind::InvalidConfig);
    }
}
