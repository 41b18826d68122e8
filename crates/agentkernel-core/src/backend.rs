//! A reachable engine.
use std::{collections::BTreeMap, fmt, sync::Arc};

use async_trait::async_trait;
use serde::Serialize;

use crate::{Capabilities, ImageStore, Liveness, Result, Sandbox, SandboxInfo, SandboxName, VolumeStore};

/// A reachable engine, made by an async constructor of its crate, like `DockerBackend::connect(config)`.
#[async_trait]
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// Returns which backend this is.
    fn backend_type(&self) -> BackendType;

    /// Returns version, capabilities and warnings of here and now. Asked of the engine once, then cached.
    async fn health(&self) -> Result<Health>;

    /// Starts a sandbox and removes it again, to find out whether one can be had here: what an engine says of itself does
    /// not tell. Takes about as long as a `run`, and needs no image to be there.
    ///
    /// # Errors
    /// `Unavailable` with the reason.
    async fn probe(&self) -> Result<()>;

    /// Returns a reference to a sandbox that may or may not exist: no I/O. Dropping it ends nothing, unless it did
    /// [`create`](Sandbox::create).
    fn sandbox(&self, name: SandboxName) -> Arc<dyn Sandbox>;

    /// Returns our sandboxes in any state, from the engine itself, ordered by name.
    async fn list(&self, filter: &Filter) -> Result<Vec<SandboxInfo>>;

    /// Finds sandboxes whose owner is dead or whose deadline passed, and removes them if told so.
    async fn reap(&self, plan: Reap) -> Result<Vec<Reaped>>;

    /// Returns the images, if the backend has any.
    fn images(&self) -> Option<&dyn ImageStore>;

    /// Returns the volumes, if the backend has any.
    fn volumes(&self) -> Option<&dyn VolumeStore>;
}

/// Which backend. Serialized as its name.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BackendType {
    /// Docker Engine.
    Docker,
    /// Podman.
    Podman,
    /// Apple's `container`.
    Apple,
    /// The kernel's own means, embedded.
    Linux,
    /// A backend of another project.
    External(&'static str),
}

impl BackendType {
    /// Returns the name that `--backend` takes.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Apple => "apple",
            Self::Linux => "linux",
            Self::External(name) => name,
        }
    }
}

impl fmt::Display for BackendType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for BackendType {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// What a backend is, here and now.
#[derive(Debug, Clone, Serialize)]
pub struct Health {
    /// The engine's version, for people.
    pub version: String,
    /// What it can do here, and how strongly it isolates.
    pub capabilities: Capabilities,
    /// What a person should know of it, each a sentence.
    pub warnings: Vec<String>,
}

/// Which sandboxes to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only those with all of these labels.
    pub labels: BTreeMap<String, String>,
    /// Only those in the state running.
    pub running: bool,
}

/// What to do with what can be reaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reap {
    /// Only tell.
    Show,
    /// Remove.
    Remove,
}

/// A sandbox that can be reaped, was reaped, or could not be judged.
#[derive(Debug)]
pub struct Reaped {
    /// Its name.
    pub name: SandboxName,
    /// The engine's id of it.
    pub id: String,
    /// Why: [`Dead`](Liveness::Dead) and [`Expired`](Liveness::Expired) are removed, [`Unknown`](Liveness::Unknown) is
    /// left alone and only told.
    pub why: Liveness,
    /// Whether the removal worked; `Ok` where nothing was to be removed.
    pub outcome: Result<()>,
}
