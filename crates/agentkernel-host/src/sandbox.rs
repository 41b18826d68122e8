//! The exec and file half of a sandbox, written once for every backend whose sandboxes have a guest.
use std::{net::SocketAddr, time::Duration};

use agentkernel_core::{
    BackendType, CommandInfo, Depth, DirEntry, Duplex, Error, Events, ExecId, ExecSession, ExecSpec,
    Metadata, Reader, Replay, Result, SandboxName, SandboxPath, Source, Stats, WriteOptions,
};

use crate::{GuestClient, exec, files, forward};

/// The methods of [`agentkernel_core::Sandbox`] that happen inside, over a [`GuestClient`]. Errors carry the sandbox's
/// name and backend.
#[derive(Debug, Clone)]
pub struct GuestSandbox {
    client: GuestClient,
    name: SandboxName,
    backend: BackendType,
}

impl GuestSandbox {
    /// Makes the half of a sandbox that is reached by `client`.
    pub fn new(client: GuestClient, name: SandboxName, backend: BackendType) -> Self {
        Self { client, name, backend }
    }

    /// Returns the client.
    pub fn client(&self) -> &GuestClient {
        &self.client
    }

    fn named(&self, error: Error) -> Error {
        error.with_context("sandbox", &self.name).with_context("backend", self.backend)
    }

    /// See [`Sandbox::spawn`](agentkernel_core::Sandbox::spawn).
    ///
    pub async fn spawn(&self, spec: &ExecSpec) -> Result<ExecSession> {
        exec::spawn(&self.client, spec).await.map_err(|error| self.named(error))
    }

    /// See [`Sandbox::commands`](agentkernel_core::Sandbox::commands).
    pub async fn commands(&self) -> Result<Vec<CommandInfo>> {
        exec::commands(&self.client).await.map_err(|error| self.named(error))
    }

    /// See [`Sandbox::attach`](agentkernel_core::Sandbox::attach).
    pub async fn attach(&self, id: &ExecId, replay: Replay) -> Result<ExecSession> {
        exec::attach(&self.client, id, replay).await.map_err(|error| self.named(error))
    }

    /// See [`Sandbox::stats`](agentkernel_core::Sandbox::stats).
    pub async fn stats(&self) -> Result<Stats> {
        files::stats(&self.client).await.map_err(|error| self.named(error))
    }

    /// See [`Sandbox::connect`](agentkernel_core::Sandbox::connect).
    pub async fn connect(&self, port: u16) -> Result<Duplex> {
        forward::connect(&self.client, port).await.map_err(|error| self.named(error))
    }

    /// See [`Sandbox::listen`](agentkernel_core::Sandbox::listen).
    pub async fn listen(&self, address: SocketAddr) -> Result<Events<Duplex>> {
        forward::listen(&self.client, address).await.map_err(|error| self.named(error))
    }

    /// See [`Sandbox::open`](agentkernel_core::Sandbox::open).
    pub async fn open(&self, path: &SandboxPath) -> Result<Reader> {
        files::open(&self.client, path).await.map_err(|error| self.named(error))
    }

    /// See [`Sandbox::write`](agentkernel_core::Sandbox::write).
    pub async fn write(&self, path: &SandboxPath, options: &WriteOptions, content: Source<'_>) -> Result<()> {
        files::write(&self.client, path, options, content).await.map_err(|error| self.named(error))
    }

    /// See [`Sandbox::metadata`](agentkernel_core::Sandbox::metadata).
    pub async fn metadata(&self, path: &SandboxPath) -> Result<Metadata> {
        files::metadata(&self.client, path).await.map_err(|error| self.named(error))
    }

    /// See [`Sandbox::read_dir`](agentkernel_core::Sandbox::read_dir).
    pub async fn read_dir(&self, path: &SandboxPath) -> Result<Events<DirEntry>> {
        files::read_dir(&self.client, path).await.map_err(|error| self.named(error))
    }

    /// See [`Sandbox::create_dir`](agentkernel_core::Sandbox::create_dir).
    pub async fn create_dir(&self, path: &SandboxPath, depth: Depth) -> Result<()> {
        files::create_dir(&self.client, path, depth).await.map_err(|error| self.named(error))
    }

    /// See [`Sandbox::remove_path`](agentkernel_core::Sandbox::remove_path).
    pub async fn remove_path(&self, path: &SandboxPath, depth: Depth) -> Result<()> {
        files::remove_path(&self.client, path, depth).await.map_err(|error| self.named(error))
    }

    /// See [`Sandbox::pack`](agentkernel_core::Sandbox::pack).
    pub async fn pack(&self, path: &SandboxPath) -> Result<Reader> {
        files::pack(&self.client, path).await.map_err(|error| self.named(error))
    }

    /// See [`Sandbox::unpack`](agentkernel_core::Sandbox::unpack).
    pub async fn unpack(&self, path: &SandboxPath, tar: Source<'_>) -> Result<()> {
        files::unpack(&self.client, path, tar).await.map_err(|error| self.named(error))
    }

    /// Ends the sandbox; see [`GuestClient::shutdown`].
    pub async fn shutdown(&self, grace: Duration) -> Result<()> {
        self.client.shutdown(grace).await.map_err(|error| self.named(error))
    }
}
