//! What callers use: the established names, the same for every backend.
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::AsyncReadExt;

use crate::{
    Depth, EnvVar, Error, ErrorKind, ExecOptions, ExecResult, ExecSession, ExecSpec, Lifetime, Result,
    Sandbox, SandboxConfig, State, WriteOptions,
};

/// The largest file that [`SandboxExt::read_file`] returns: 256 MiB.
pub const READ_FILE_MAX: u64 = 256 << 20;

/// How long [`SandboxExt::stop`] lets commands end by themselves: 5 s.
pub const STOP_GRACE: Duration = Duration::from_secs(5);

/// What callers use. Implemented for every [`Sandbox`], `dyn Sandbox` included.
#[async_trait]
pub trait SandboxExt: Sandbox {
    /// Makes and boots a sandbox and puts the config's files into it; all or nothing.
    ///
    /// # Errors
    /// `Unsupported` before anything is made, if the backend cannot enforce what the config asks for.
    async fn start(&self, config: &SandboxConfig) -> Result<()>;

    /// [`start`](Self::start), then the command as the main one: the sandbox ends with it.
    async fn run(&self, config: &SandboxConfig, command: ExecSpec) -> Result<ExecSession>;

    /// Runs a command to its end and returns its output as text.
    ///
    /// # Cancellation
    /// Dropping the future kills the command and all that it started.
    async fn exec(&self, cmd: &[&str]) -> Result<ExecResult>;

    /// [`exec`](Self::exec) with variables, each `NAME=value`.
    async fn exec_with_env(&self, cmd: &[&str], env: &[String]) -> Result<ExecResult>;

    /// [`exec`](Self::exec) with options. [`ExecOptions::stdin`] makes no sense here and is end-of-file.
    async fn exec_with_options(&self, cmd: &[&str], options: ExecOptions) -> Result<ExecResult>;

    /// Halts the sandbox with [`STOP_GRACE`]; an owned one is then removed. Stopping an absent one succeeds.
    async fn stop(&self) -> Result<()>;

    /// Returns whether it runs, asked of the engine: we may be reconnecting.
    async fn is_running(&self) -> Result<bool>;

    /// Writes a file atomically, making missing parent directories.
    async fn write_file(&self, path: &str, content: &[u8]) -> Result<()>;

    /// Returns the content of a regular file of at most [`READ_FILE_MAX`] bytes.
    ///
    /// # Errors
    /// `ResourceExhausted` for a larger one: [`Sandbox::open`] streams.
    async fn read_file(&self, path: &str) -> Result<Vec<u8>>;

    /// Removes a file or link.
    async fn remove_file(&self, path: &str) -> Result<()>;

    /// Makes a directory.
    async fn mkdir(&self, path: &str, recursive: bool) -> Result<()>;
}

#[async_trait]
impl<S: Sandbox + ?Sized> SandboxExt for S {
    async fn start(&self, config: &SandboxConfig) -> Result<()> {
        let spec = config.resolve(self.capabilities().await?, self.host())?;
        self.create(&spec).await?;
        let made = async {
            self.boot().await?;
            for file in &spec.files {
                let options = WriteOptions { mode: file.mode, parents: true };
                self.write(&file.target, &options, &mut file.content.as_slice()).await?;
            }
            Ok(())
        }
        .await;
        match made {
            Ok(()) => Ok(()),
            Err(error) => Err(undo(self, error).await),
        }
    }

    async fn run(&self, config: &SandboxConfig, command: ExecSpec) -> Result<ExecSession> {
        self.start(config).await?;
        match self.spawn(&command.main()).await {
            Ok(session) => Ok(session),
            Err(error) => Err(undo(self, error).await),
        }
    }

    async fn exec(&self, cmd: &[&str]) -> Result<ExecResult> {
        self.exec_with_options(cmd, ExecOptions::default()).await
    }

    async fn exec_with_env(&self, cmd: &[&str], env: &[String]) -> Result<ExecResult> {
        let env = env.iter().map(|var| EnvVar::parse(var.as_bytes())).collect::<Result<_>>()?;
        self.exec_with_options(cmd, ExecOptions::default().with_env(env)).await
    }

    async fn exec_with_options(&self, cmd: &[&str], options: ExecOptions) -> Result<ExecResult> {
        let limit = options.output_limit;
        let session = self.spawn(&ExecSpec::new(cmd.iter().copied(), options)?).await?;
        Ok(session.with_output_limit(limit).collect().await?.into())
    }

    async fn stop(&self) -> Result<()> {
        let info = match self.inspect().await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        self.halt(STOP_GRACE).await?;
        if info.lifetime == Lifetime::Owned { self.remove().await } else { Ok(()) }
    }

    async fn is_running(&self) -> Result<bool> {
        match self.inspect().await {
            Ok(info) => Ok(info.state == State::Running),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn write_file(&self, path: &str, content: &[u8]) -> Result<()> {
        let options = WriteOptions { parents: true, ..WriteOptions::default() };
        self.write(&path.parse()?, &options, &mut &content[..]).await
    }

    async fn read_file(&self, path: &str) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        let mut reader = self.open(&path.parse()?).await?.take(READ_FILE_MAX + 1);
        reader.read_to_end(&mut content).await?;
        if content.len() as u64 > READ_FILE_MAX {
            return Err(Error::new(
                ErrorKind::ResourceExhausted,
                "read file",
                "the file is larger than 256 MiB",
            )
            .with_context("path", path)
            .with_hint("stream it with `Sandbox::open`"));
        }
        Ok(content)
    }

    async fn remove_file(&self, path: &str) -> Result<()> {
        self.remove_path(&path.parse()?, Depth::One).await
    }

    async fn mkdir(&self, path: &str, recursive: bool) -> Result<()> {
        self.create_dir(&path.parse()?, if recursive { Depth::Recursive } else { Depth::One }).await
    }
}

/// Removes what was half made; a removal that fails too is told and does not hide the first error.
async fn undo<S: Sandbox + ?Sized>(sandbox: &S, error: Error) -> Error {
    match sandbox.remove().await {
        Ok(()) => error,
        Err(cleanup) => error.with_context("cleanup", cleanup),
    }
}
