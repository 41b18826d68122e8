//! Starting the helper: the guest's program, found once, with a plan on its stdin.
use std::{
    io::Write,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use agentkernel_core::{Error, ErrorKind, Result};
use agentkernel_host::{
    BootConnection, Configure, ControlSocket, GuestClient, GuestProgram, Report, find_guest,
};
use tokio::{io::AsyncReadExt, process::ChildStderr, sync::OnceCell, time::timeout};

use crate::error;

/// How long the helper may take to say why it ended.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// The most that it says, in bytes.
const MAX_WORDS: u64 = 4096;

/// The helper's program.
#[derive(Debug)]
pub(crate) struct Helper {
    explicit: Option<PathBuf>,
    found: OnceCell<GuestProgram>,
}

impl Helper {
    pub(crate) fn new(explicit: Option<PathBuf>) -> Self {
        Self { explicit, found: OnceCell::new() }
    }

    /// Finds it, once.
    pub(crate) async fn find(&self) -> Result<&GuestProgram> {
        self.found.get_or_try_init(|| find_guest(self.explicit.as_deref())).await
    }

    /// Makes a sandbox and returns the connection to its guest.
    pub(crate) async fn boot(
        &self,
        plan: &[u8],
        configure: Configure,
        control: Option<ControlSocket>,
    ) -> Result<(GuestClient, Report)> {
        let (stream, mut stderr) = self.start(plan).await?;
        let connection = BootConnection::inherited(stream)?;
        match connection.configure(configure, control).await {
            Ok(met) => Ok(met),
            Err(failure) => Err(why(&mut stderr, failure).await),
        }
    }

    /// Starts it with its plan. Nothing of this process goes with it but one end of a socket.
    async fn start(&self, plan: &[u8]) -> Result<(UnixStream, ChildStderr)> {
        let failed = |source: std::io::Error| {
            Error::new(ErrorKind::Unavailable, "boot sandbox", "the helper cannot be started")
                .with_source(source)
                .with_hint("see that `agentkernel-guest` is built for this machine")
        };
        let argv = self.find().await?.here("sandbox");
        let (program, args) =
            argv.split_first().ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
        let (mut ours, theirs) = UnixStream::pair().map_err(failed)?;
        let mut child = tokio::process::Command::new(program)
            .args(args)
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| failed(source).with_context("path", program.display()))?;
        let stderr = child.stderr.take().ok_or_else(|| failed(std::io::ErrorKind::BrokenPipe.into()))?;
        // So that it cannot wait for ever: a plan is far smaller than what the kernel holds for a reader.
        ours.set_write_timeout(Some(Duration::from_secs(5))).map_err(failed)?;
        ours.write_all(plan).map_err(failed)?;
        Ok((ours, stderr))
    }
}

/// Returns what the helper says of its end, else what the connection tells.
async fn why(stderr: &mut ChildStderr, failure: Error) -> Error {
    let mut said = Vec::new();
    let read = timeout(LAST_WORDS, stderr.take(MAX_WORDS).read_to_end(&mut said)).await;
    match read {
        Ok(Ok(_)) if !said.is_empty() => error::helper(&String::from_utf8_lossy(&said)),
        _ => failure,
    }
}
