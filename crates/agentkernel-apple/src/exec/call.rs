//! A call under way: from the start of the command to its end, in whatever way.
use std::{
    sync::{Arc, atomic::AtomicBool, atomic::Ordering},
    time::Duration,
};

use agentkernel_core::{Error, ErrorKind, ExecEvent, ExitStatus, Lifetime, Result, Signal};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, ChildStderr, ChildStdout},
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};

use super::{
    Control, Running,
    stream::{Ends, Stream},
};
use crate::{
    command, error,
    info::Found,
    sandbox, script,
    sentinel::{Group, Piece, Scanner, Told},
    stdin::Input,
};

/// How long a call may take to end after its command has.
const ENDING: Duration = Duration::from_secs(5);
/// The longest noise before a command that is kept for an error.
const MAX_NOISE: usize = 64 << 10;

pub(super) struct Call {
    pub control: Arc<Control>,
    pub found: Found,
    pub child: Child,
    pub stdout: Option<ChildStdout>,
    pub stderr: Option<ChildStderr>,
    pub input: Input,
    pub is_terminal: bool,
    pub nonce: String,
    pub number: u64,
    pub running: Running,
    pub timeout: Option<Duration>,
    pub sender: mpsc::Sender<Result<ExecEvent>>,
}

impl Call {
    /// Carries everything until the command has ended.
    pub(super) async fn carry(
        mut self,
        ready: oneshot::Sender<Result<()>>,
        mut cancel: oneshot::Receiver<()>,
    ) {
        let (Some(mut stdout), Some(mut stderr)) = (self.stdout.take(), self.stderr.take()) else { return };
        let shared = Arc::clone(&self.control.shared);
        let mut scanner = Scanner::new(&self.nonce);
        // A call that nobody waits for any more is waited for all the same: only then it is known what to kill.
        let begun = match self.is_terminal {
            true => self.begin(&mut stdout, &mut stderr, &mut scanner).await,
            false => self.begin(&mut stderr, &mut tokio::io::empty(), &mut scanner).await,
        };
        let rest = match begun {
            Ok((group, rest)) => {
                let _first = self.control.group.set(group);
                rest
            }
            Err(error) => {
                self.input.close();
                command::end(&mut self.child).await;
                let _gone = ready.send(Err(error));
                return;
            }
        };
        shared.commands().insert(self.number, self.running.clone());
        let _gone = ready.send(Ok(()));
        let deadline = self.timeout.unwrap_or(Duration::MAX);
        let ends = Ends::new(if self.is_terminal { 1 } else { 2 }, self.input.clone());
        let waits = [AtomicBool::new(false), AtomicBool::new(false)];
        let mut timed_out = false;
        let ended = {
            let stream =
                |wrap, waits, scanner| Stream { wrap, sender: &self.sender, ends: &ends, waits, scanner };
            let ended = async {
                let [one, other] = &waits;
                let told = if self.is_terminal {
                    let both = stream(ExecEvent::Stdout, one, scanner);
                    // What the call itself says is none of the command's.
                    let noise = command::drain(Some(&mut stderr), 0);
                    tokio::pin!(noise);
                    let carried = both.carry(&mut stdout, rest);
                    tokio::pin!(carried);
                    tokio::select! {
                        told = &mut carried => told,
                        _ = &mut noise => carried.await,
                    }
                } else {
                    let out = stream(ExecEvent::Stdout, one, Scanner::new(&self.nonce));
                    let err = stream(ExecEvent::Stderr, other, scanner);
                    let streams =
                        tokio::join!(out.carry(&mut stdout, Vec::new()), err.carry(&mut stderr, rest));
                    streams.1
                };
                let last = async {
                    let (stdout, stderr) = (Some(&mut stdout), Some(&mut stderr));
                    tokio::join!(command::drain(stdout, 0), command::drain(stderr, 0), self.child.wait()).2
                };
                (told, timeout(ENDING, last).await.ok().and_then(|status| status.ok()?.code()))
            };
            tokio::pin!(ended);
            let first = tokio::select! {
                ended = &mut ended => Some(ended),
                _ = &mut cancel => None,
                () = sleep(deadline) => { timed_out = true; None }
            };
            match first {
                Some(ended) => Some(ended),
                None => {
                    self.control.kill(false).await;
                    let is_held = || waits.iter().any(|waits| waits.load(Ordering::SeqCst));
                    let mut last = None;
                    while last.is_none() {
                        last = timeout(ENDING, &mut ended).await.ok();
                        // A slow reader is no reason to lose its output.
                        if last.is_none() && (self.sender.is_closed() || !is_held()) {
                            self.control.kill(true).await;
                            last = timeout(ENDING, &mut ended).await.ok();
                            break;
                        }
                    }
                    last
                }
            }
        };
        command::end(&mut self.child).await;
        self.control.is_over.store(true, Ordering::SeqCst);
        shared.commands().remove(&self.number);
        let status = if timed_out {
            Some(ExitStatus::TimedOut)
        } else {
            ended.and_then(|(told, code)| status(told.filter(|_| ends.are_reached()), code))
        };
        if self.running.main {
            self.leave(status).await;
        }
        let event = status.map(ExecEvent::Exited).ok_or_else(lost);
        let _gone = self.sender.send(event).await;
    }

    /// Waits until the command runs, and returns what came after.
    async fn begin(
        &mut self,
        lead: &mut (impl AsyncRead + Unpin),
        other: &mut (impl AsyncRead + Unpin),
        scanner: &mut Scanner,
    ) -> Result<(Group, Vec<Piece>)> {
        let operation = "start command";
        let reading = async {
            let (mut noise, mut buffer) = (Vec::new(), vec![0; 16 << 10]);
            while let Ok(length @ 1..) = lead.read(&mut buffer).await {
                let mut pieces = scanner.push(buffer.get(..length).unwrap_or_default()).into_iter();
                while let Some(piece) = pieces.next() {
                    match piece {
                        Piece::Told(Told::Runs(group)) => return Ok((group, pieces.collect())),
                        Piece::Told(Told::NoDirectory) => {
                            let message = "the working directory does not exist inside";
                            return Err(Error::new(ErrorKind::NotFound, operation, message));
                        }
                        Piece::Told(Told::ClosedDirectory) => {
                            let message = "the command's user may not enter the working directory";
                            return Err(Error::new(ErrorKind::PermissionDenied, operation, message));
                        }
                        Piece::Told(Told::Done | Told::Ended(_)) => {}
                        // What the call itself says before is none of the command's.
                        Piece::Output(bytes) if noise.len() < MAX_NOISE => noise.extend_from_slice(&bytes),
                        Piece::Output(_) => {}
                    }
                }
            }
            noise.extend(command::drain(Some(other), MAX_NOISE).await.0);
            let code = self.child.wait().await.ok().and_then(|status| status.code());
            Err(error::no_shell(error::failed(operation, code, &noise)))
        };
        let begun = timeout(self.control.shared.config.boot_timeout, reading).await;
        begun.unwrap_or_else(|_| Err(error::timed_out(operation)))
    }

    /// The sandbox ends with its main command. How that ended is kept where it can be read later.
    async fn leave(&self, status: Option<ExitStatus>) {
        let labels = &self.found.labels;
        let (name, run_id, shared) = (&labels.name, &labels.run_id, &self.control.shared);
        let left = if labels.config.lifetime == Lifetime::Owned {
            sandbox::delete(shared, name, run_id).await
        } else {
            if let Some(status) = status {
                let code = status.code().to_string();
                if let Err(error) = self.control.script("keep the exit code", script::KEEP, &[&code]).await {
                    tracing::debug!(%error, "the exit code of a main command is lost");
                }
            }
            sandbox::halt(shared, name, run_id, Duration::from_secs(1)).await
        };
        if let Err(error) = left {
            tracing::debug!(%error, sandbox = %name, "a sandbox outlives its main command");
        }
    }
}

/// What ended: as it was told, else as far as the code can mean only one thing.
fn status(told: Option<ExitStatus>, code: Option<i32>) -> Option<ExitStatus> {
    let signal = || {
        let number = u8::try_from(code?.checked_sub(128)?).ok()?;
        Signal::new(number).map(ExitStatus::Signal)
    };
    told.or_else(signal)
}

/// Never a success: what was not read may be missing.
fn lost() -> Error {
    Error::new(ErrorKind::Disconnected, "run command", "how it ended is not known, and output may be lost")
        .with_context("backend", "apple")
        .with_hint("see whether the sandbox still runs, and read output without pauses of seconds")
}
