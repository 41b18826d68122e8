//! Running `container`: argument arrays, a clean environment, a deadline on every call, both pipes drained.
use std::{
    env,
    ffi::OsString,
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use agentkernel_core::{Error, ErrorKind, Result};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    time::timeout,
};

use crate::error;

/// The most that is kept of an answer.
const MAX_ANSWER: usize = 64 << 20;
/// The most that is kept of what is said beside it.
const MAX_WORDS: usize = 256 << 10;
/// How long a killed call may take to be gone.
const DYING: Duration = Duration::from_secs(2);
/// What `container` is given of our environment: enough to find its files, and nothing that changes what it does.
const KEPT: [&str; 6] = ["HOME", "LOGNAME", "PATH", "TMPDIR", "USER", "__CF_USER_TEXT_ENCODING"];

/// One call: the arguments, and variables that the arguments name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Line {
    /// Arguments after `container`.
    pub argv: Vec<String>,
    /// Values that are in no argument list, since everybody on the machine can read those.
    pub env: Vec<Secret>,
}

/// A variable whose value is not shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret {
    pub name: String,
    pub value: String,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<const N: usize> From<[&str; N]> for Line {
    fn from(argv: [&str; N]) -> Self {
        Self { argv: argv.map(str::to_owned).to_vec(), env: Vec::new() }
    }
}

/// How a call ended.
#[derive(Debug)]
pub(crate) struct Answer {
    /// `None` if a signal ended it.
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// The executable.
#[derive(Debug, Clone)]
pub(crate) struct Program(PathBuf);

impl Program {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Prepares a call whose pipes the caller carries. Dropping the child kills it.
    pub(crate) fn command(&self, line: &Line) -> Command {
        let mut command = Command::new(&self.0);
        command.args(&line.argv).env_clear();
        command.envs(KEPT.iter().filter_map(|name| Some((*name, env::var_os(name)?))));
        command.envs(line.env.iter().map(|secret| (&secret.name, OsString::from(&secret.value))));
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        command
    }

    /// Starts a call whose pipes the caller carries.
    pub(crate) fn spawn(&self, operation: &'static str, command: &mut Command) -> Result<Child> {
        command.spawn().map_err(|source| {
            let kind = match source.kind() {
                std::io::ErrorKind::ArgumentListTooLong => ErrorKind::InvalidConfig,
                _ => ErrorKind::Unavailable,
            };
            Error::new(kind, operation, "`container` cannot be started")
                .with_context("program", self.0.display())
                .with_source(source)
        })
    }

    /// Runs a call to its end, whatever that is.
    ///
    /// # Errors
    /// `Timeout` if it had to be killed: what it did is then to be looked up.
    pub(crate) async fn run(
        &self,
        operation: &'static str,
        line: &Line,
        deadline: Duration,
    ) -> Result<Answer> {
        self.run_with(operation, line, deadline, None, None).await
    }

    /// Runs a call that reads a file, or writes one instead of its stdout.
    pub(crate) async fn run_with(
        &self,
        operation: &'static str,
        line: &Line,
        deadline: Duration,
        stdin: Option<File>,
        stdout: Option<File>,
    ) -> Result<Answer> {
        let mut command = self.command(line);
        if let Some(stdin) = stdin {
            command.stdin(stdin);
        }
        if let Some(stdout) = stdout {
            command.stdout(stdout);
        }
        let mut child = self.spawn(operation, &mut command)?;
        // It holds the files.
        drop(command);
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let ended = timeout(deadline, async {
            let (stdout, stderr, status) =
                tokio::join!(drain(stdout, MAX_ANSWER), drain(stderr, MAX_WORDS), child.wait());
            status.map(|status| (status, stdout, stderr))
        })
        .await;
        match ended {
            Ok(Ok((status, (stdout, is_whole), (stderr, _)))) => {
                if !is_whole {
                    return Err(Error::new(
                        ErrorKind::ResourceExhausted,
                        operation,
                        "the answer is too long",
                    )
                    .with_context("backend", "apple"));
                }
                Ok(Answer { code: status.code(), stdout, stderr })
            }
            Ok(Err(source)) => {
                Err(Error::unexpected(operation, "the end of `container` is not known", source))
            }
            Err(_) => {
                end(&mut child).await;
                Err(error::timed_out(operation))
            }
        }
    }

    /// Runs a call that must succeed, and returns its stdout.
    pub(crate) async fn ask(
        &self,
        operation: &'static str,
        line: &Line,
        deadline: Duration,
    ) -> Result<Vec<u8>> {
        let answer = self.run(operation, line, deadline).await?;
        match answer.code {
            Some(0) => Ok(answer.stdout),
            code => Err(error::failed(operation, code, &answer.stderr)),
        }
    }
}

/// Kills a call and takes its end, but does not wait for it without end.
pub(crate) async fn end(child: &mut Child) {
    if child.start_kill().is_ok() && timeout(DYING, child.wait()).await.is_err() {
        tracing::debug!("a killed `container` is not gone");
    }
}

/// Reads to the end, keeps the first bytes, and tells whether those are all.
pub(crate) async fn drain(pipe: Option<impl AsyncRead + Unpin>, most: usize) -> (Vec<u8>, bool) {
    let Some(mut pipe) = pipe else { return (Vec::new(), true) };
    let (mut kept, mut is_whole) = (Vec::new(), true);
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = pipe.read(&mut buffer).await {
        let chunk = buffer.get(..length).unwrap_or_default();
        let room = most.saturating_sub(kept.len()).min(chunk.len());
        is_whole &= room == chunk.len();
        kept.extend_from_slice(chunk.get(..room).unwrap_or_default());
    }
    (kept, is_whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(script: &str) -> Line {
        Line::from(["-c", script])
    }

    fn sh() -> Program {
        Program::new("/bin/sh".into())
    }

    #[tokio::test]
    async fn more_than_a_pipe_holds_on_both_streams_is_read() {
        let script = "head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2";
        let answer = sh().run("try", &line(script), Duration::from_secs(30)).await.unwrap();
        assert_eq!((answer.code, answer.stdout.len(), answer.stderr.len()), (Some(0), 1_000_000, MAX_WORDS));
    }

    #[tokio::test]
    async fn a_call_that_hangs_is_killed() {
        let ended = sh().run("try", &line("exec sleep 1000"), Duration::from_millis(200)).await;
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::Timeout);
    }

    #[tokio::test]
    async fn noise_on_stderr_of_a_success_is_no_failure() {
        let told = sh().ask("try", &line("echo 1; echo Warning >&2"), Duration::from_secs(30)).await;
        assert_eq!(told.unwrap(), b"1\n");
    }

    #[tokio::test]
    async fn our_environment_stays_ours() {
        let told = sh().ask("try", &line("env"), Duration::from_secs(30)).await.unwrap();
        assert!(!String::from_utf8(told).unwrap().contains("CARGO"));
    }

    #[test]
    fn values_are_never_shown() {
        let secret = Secret { name: "TOKEN".into(), value: "hunter2".into() };
        assert!(!format!("{secret:?}").contains("hunter2"));
    }
}
