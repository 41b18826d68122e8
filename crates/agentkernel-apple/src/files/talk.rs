//! A call whose script is talked with: its pipes, its first line, and its end.
use std::{process::Stdio, time::Duration};

use agentkernel_core::{Error, Result, SandboxPath};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin, ChildStdout},
    runtime::Handle,
    task::JoinHandle,
    time::timeout,
};

use super::{Place, fault};
use crate::{argv, command, error, random::hex16, script::KILL};

/// The longest answer of a script in one line; what a program says is longer than a path at most.
const MAX_ANSWER: usize = 32 << 10;
/// The most that is kept of the other stream.
const MAX_WORDS: usize = 16 << 10;
/// How long a call may take to end once everything is said.
pub(super) const ENDING: Duration = Duration::from_secs(5);

/// A script at work. Dropping it ends the script, wherever it is.
#[derive(Debug)]
pub(super) struct Talk {
    pub operation: &'static str,
    pub path: SandboxPath,
    pub nonce: String,
    pub stdin: Option<ChildStdin>,
    pub stdout: Option<ChildStdout>,
    place: Place,
    child: Option<Child>,
    words: Option<JoinHandle<(Vec<u8>, bool)>>,
    /// The shell inside, once it has told that.
    pid: Option<u32>,
    grace: Duration,
    is_over: bool,
}

impl Talk {
    pub(super) fn start(
        place: &Place,
        operation: &'static str,
        path: &SandboxPath,
        script: &'static str,
        arguments: &[&str],
    ) -> Result<Self> {
        let nonce = hex16()?;
        let line = argv::talk(&place.id, script, &nonce, arguments);
        let program = &place.shared.program;
        let mut child = program.spawn(operation, program.command(&line).stdin(Stdio::piped()))?;
        let words = tokio::spawn(command::drain(child.stderr.take(), MAX_WORDS));
        Ok(Self {
            operation,
            path: path.clone(),
            nonce,
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            place: place.clone(),
            child: Some(child),
            words: Some(words),
            pid: None,
            grace: ENDING,
            is_over: false,
        })
    }

    /// How long a script may stand still.
    pub(super) fn patience(&self) -> Duration {
        self.place.shared.config.boot_timeout
    }

    /// Waits for the script's first line and returns what follows `ok`.
    pub(super) async fn begin(&mut self) -> Result<String> {
        let patience = self.place.shared.config.request_timeout;
        timeout(patience, self.line()).await.unwrap_or_else(|_| Err(error::timed_out(self.operation)))
    }

    /// Waits for the verdict of a script that has been told everything.
    pub(super) async fn verdict(&mut self) -> Result<()> {
        timeout(self.patience(), self.line())
            .await
            .unwrap_or_else(|_| Err(error::timed_out(self.operation)))?;
        self.over();
        Ok(())
    }

    async fn line(&mut self) -> Result<String> {
        let Some(stdout) = &mut self.stdout else { return Err(fault::broken(self.operation, &self.path)) };
        // One byte at a time is fine: it is one line.
        let (mut told, mut byte) = (Vec::new(), [0]);
        while told.len() < MAX_ANSWER && stdout.read(&mut byte).await.is_ok_and(|length| length == 1) {
            if byte[0] == b'\n' {
                break;
            }
            told.extend_from_slice(&byte);
        }
        let told = String::from_utf8_lossy(&told).into_owned();
        match told.strip_prefix(&self.nonce) {
            Some(" ok") => Ok(String::new()),
            Some(rest) => match (rest.strip_prefix(" ok "), rest.strip_prefix(" fail ")) {
                (Some(rest), _) => Ok(rest.to_owned()),
                (_, Some(text)) => {
                    let mut more = Vec::new();
                    let limit = u64::try_from(MAX_ANSWER).unwrap_or_default();
                    drop(stdout.take(limit).read_to_end(&mut more).await);
                    self.is_over = true;
                    let text = format!("{text}\n{}", String::from_utf8_lossy(&more));
                    Err(fault::refused(self.operation, &self.path, &text))
                }
                _ => Err(fault::garbled(self.operation, &self.path)),
            },
            None => Err(self.failed().await),
        }
    }

    /// Says why the call ended without an answer.
    async fn failed(&mut self) -> Error {
        self.is_over = true;
        drop((self.stdin.take(), self.stdout.take()));
        let (Some(child), Some(words)) = (&mut self.child, &mut self.words) else {
            return fault::broken(self.operation, &self.path);
        };
        let code = timeout(ENDING, child.wait()).await.ok().and_then(|end| end.ok()?.code());
        let words = timeout(ENDING, words).await.ok().and_then(|words| words.ok()).unwrap_or_default().0;
        if words.is_empty() && code == Some(0) {
            return fault::broken(self.operation, &self.path);
        }
        error::no_shell(error::failed(self.operation, code, &words)).with_context("path", &self.path)
    }

    /// Notes the process that is to be ended should this be dropped, and how long it is given to end by itself.
    pub(super) fn runs(&mut self, told: &str, grace: Duration) {
        (self.pid, self.grace) = (told.parse().ok(), grace);
    }

    /// Writes to the script, which may not stand still for long.
    ///
    /// # Errors
    /// What the script says of its end if it takes no more.
    pub(super) async fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let patience = self.patience();
        let Some(stdin) = &mut self.stdin else { return Err(fault::broken(self.operation, &self.path)) };
        match timeout(patience, stdin.write_all(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => {
                Err(self.line().await.err().unwrap_or_else(|| fault::broken(self.operation, &self.path)))
            }
            Err(_) => Err(error::timed_out(self.operation)),
        }
    }

    /// Tells the script that no more comes, and waits until it has cleaned up.
    pub(super) async fn give_up(&mut self) {
        self.stdin = None;
        drop(timeout(ENDING, self.line()).await);
    }

    /// Everything was said: what is left ends by itself.
    pub(super) fn over(&mut self) {
        self.is_over = true;
        self.stdin = None;
    }
}

/// Ends what was given up: a script that takes ends with its stdin, one that gives has to be killed.
impl Drop for Talk {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        drop(self.stdin.take());
        let Ok(runtime) = Handle::try_current() else { return };
        let (stdout, is_over) = (self.stdout.take(), self.is_over);
        let (place, pid, grace) = (self.place.clone(), self.pid, self.grace);
        runtime.spawn(async move {
            if !is_over {
                let read_on = drained(stdout);
                if timeout(grace, async { tokio::join!(read_on, child.wait()) }).await.is_err()
                    && let Some(pid) = pid
                {
                    let line = argv::exec_script(&place.id, None, KILL, &[&pid.to_string(), "1"]);
                    let deadline = place.shared.config.request_timeout;
                    if let Err(error) = place.shared.program.ask("end transfer", &line, deadline).await {
                        tracing::debug!(%error, "a transfer may live on inside");
                    }
                }
            }
            if timeout(ENDING, child.wait()).await.is_err() {
                command::end(&mut child).await;
            }
        });
    }
}

/// Reads to the end for nothing.
async fn drained(pipe: Option<impl AsyncRead + Unpin>) {
    command::drain(pipe, 0).await;
}
