//! What a backend implements for one sandbox.
use std::{fmt, net::SocketAddr, time::Duration};

use async_trait::async_trait;

use crate::{
    BackendType, Capabilities, CommandInfo, Depth, DirEntry, Duplex, Events, ExecEvent, ExecId, ExecSession,
    ExecSpec, HostContext, LogOptions, Metadata, Reader, Replay, Result, SandboxInfo, SandboxName,
    SandboxPath, SandboxSpec, Source, Stats, WriteOptions,
};

/// One sandbox, existing or not. Arguments are checked; there are no default methods.
///
/// All methods take `&self`: several commands run at once. A method that needs a capability that the backend does not
/// claim answers [`Unsupported`](crate::ErrorKind::Unsupported). A handle is bound to the engine's id that it made or
/// first saw: a namesake made later is never touched.
#[async_trait]
pub trait Sandbox: fmt::Debug + Send + Sync + 'static {
    /// Returns the name.
    fn name(&self) -> &SandboxName;

    /// Returns which backend holds it.
    fn backend_type(&self) -> BackendType;

    /// Returns what the backend found out about this process.
    fn host(&self) -> &HostContext;

    /// Returns what can be asked for here and now.
    async fn capabilities(&self) -> Result<Capabilities>;

    /// Returns the truth, asked of the engine.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    async fn inspect(&self) -> Result<SandboxInfo>;

    /// Makes the sandbox, all or nothing; this handle now owns it.
    ///
    /// # Errors
    /// `AlreadyExists` if the name is taken, `Conflict` if something that is not ours has it, `Unsupported` naming the
    /// field that the engine did not take over.
    async fn create(&self, spec: &SandboxSpec) -> Result<()>;

    /// Boots it. Booting a running one succeeds.
    async fn boot(&self) -> Result<()>;

    /// Starts a command. With `main` the sandbox ends with it; with `detached` it outlives the session and us.
    ///
    /// # Errors
    /// `CommandNotFound` and `CommandNotExecutable` before anything ran; `NotFound` for a working directory or a user
    /// that does not exist inside.
    async fn spawn(&self, spec: &ExecSpec) -> Result<ExecSession>;

    /// Returns the commands that run, that left something in the background, or that are detached.
    async fn commands(&self) -> Result<Vec<CommandInfo>>;

    /// Joins a running command, or reads the end of one that is kept.
    async fn attach(&self, id: &ExecId, replay: Replay) -> Result<ExecSession>;

    /// Ends everything inside: politely, then after `grace` by force. Halting a stopped one succeeds.
    async fn halt(&self, grace: Duration) -> Result<()>;

    /// Removes it, running or not. Removing an absent one succeeds.
    async fn remove(&self) -> Result<()>;

    /// Returns the output of the main command that was started detached, also after its end.
    async fn logs(&self, options: &LogOptions) -> Result<Events<ExecEvent>>;

    /// Returns one sample of cumulative counters.
    async fn stats(&self) -> Result<Stats>;

    /// Connects to a TCP port inside, on 127.0.0.1; needs no network.
    async fn connect(&self, port: u16) -> Result<Duplex>;

    /// Listens on a TCP address inside and returns each connection; dropping the stream ends it.
    async fn listen(&self, address: SocketAddr) -> Result<Events<Duplex>>;

    /// Opens a regular file for reading. Links are followed inside the sandbox; anything else is refused at once.
    async fn open(&self, path: &SandboxPath) -> Result<Reader>;

    /// Writes a regular file: a reader sees the old content or the new, never a part. A link at the path is replaced,
    /// not followed.
    async fn write(&self, path: &SandboxPath, options: &WriteOptions, content: Source<'_>) -> Result<()>;

    /// Returns what is known of a path, of a link itself.
    async fn metadata(&self, path: &SandboxPath) -> Result<Metadata>;

    /// Returns the entries of a directory, in no order, without `.` and `..`.
    async fn read_dir(&self, path: &SandboxPath) -> Result<Events<DirEntry>>;

    /// Makes a directory, 0o755. With [`Depth::Recursive`] its parents too, and an existing one succeeds.
    async fn create_dir(&self, path: &SandboxPath, depth: Depth) -> Result<()>;

    /// Removes a file, a link or a directory; with [`Depth::Recursive`] all below, never following a link.
    async fn remove_path(&self, path: &SandboxPath, depth: Depth) -> Result<()>;

    /// Packs a file or a tree as a tar stream (ustar with pax headers), names relative to the path's parent. Links are
    /// packed as links; sockets are left out. It is written by the sandbox: unpack it as hostile.
    async fn pack(&self, path: &SandboxPath) -> Result<Reader>;

    /// Unpacks a tar stream below a directory, which is made if missing. Nothing leaves the directory, whatever the
    /// archive's names and links say; devices and set-user-id bits are not made.
    async fn unpack(&self, path: &SandboxPath, tar: Source<'_>) -> Result<()>;
}
