//! How to reach the engine, and how long to wait for it.
use std::{path::PathBuf, time::Duration};

use crate::{EngineKind, TlsFiles};

/// How to reach the engine. The default finds it as the docker command does, and Podman's service if there is no Docker.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerConfig {
    /// The engine's address, `unix:///path`, `tcp://host:port` or `https://host:port`. Default: `DOCKER_HOST`, `DOCKER_CONTEXT`, the current context of the docker
    /// command, `CONTAINER_HOST`, then the usual sockets. What names Docker's engine does not concern Podman, and the other
    /// way round.
    pub endpoint: Option<String>,
    /// With which files an engine behind tcp is spoken to over TLS, whoever named its address; a socket is not. Needs the
    /// feature `tls`, else such an engine is `Unsupported`. Default: with `DOCKER_TLS_VERIFY`, or an address `https://`, those
    /// of `DOCKER_CERT_PATH`, else of the docker command's config; the context's own where a context leads there.
    pub tls: Option<TlsFiles>,
    /// The directory of the docker command's config, where credentials for registries are. Default: `DOCKER_CONFIG`, else
    /// `~/.docker`.
    pub credentials: Option<PathBuf>,
    /// Which engine it must be. Default: either, Docker first.
    pub kind: Option<EngineKind>,
    /// The guest's program. Default: found beside the executable.
    pub guest: Option<PathBuf>,
    /// How long the engine may take to answer a question.
    pub request_timeout: Duration,
    /// How long the engine may take to make, start or remove something, and the guest to connect after a start.
    pub boot_timeout: Duration,
    /// How long the engine may be silent while it pulls or loads an image.
    pub transfer_timeout: Duration,
}

impl Default for DockerConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            tls: None,
            credentials: None,
            kind: None,
            guest: None,
            request_timeout: Duration::from_secs(5),
            boot_timeout: Duration::from_secs(30),
            transfer_timeout: Duration::from_secs(120),
        }
    }
}

impl DockerConfig {
    /// Sets [`endpoint`](Self::endpoint).
    #[must_use]
    pub fn with_endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = Some(endpoint.into());
        self
    }

    /// Sets [`tls`](Self::tls).
    #[must_use]
    pub fn with_tls(mut self, files: TlsFiles) -> Self {
        self.tls = Some(files);
        self
    }

    /// Sets [`credentials`](Self::credentials).
    #[must_use]
    pub fn with_credentials(mut self, directory: impl Into<PathBuf>) -> Self {
        self.credentials = Some(directory.into());
        self
    }

    /// Sets [`kind`](Self::kind).
    #[must_use]
    pub fn with_kind(mut self, kind: EngineKind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// Sets [`guest`](Self::guest).
    #[must_use]
    pub fn with_guest(mut self, program: impl Into<PathBuf>) -> Self {
        self.guest = Some(program.into());
        self
    }

    /// Sets [`request_timeout`](Self::request_timeout).
    #[must_use]
    pub fn with_request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Sets [`boot_timeout`](Self::boot_timeout).
    #[must_use]
    pub fn with_boot_timeout(mut self, timeout: Duration) -> Self {
        self.boot_timeout = timeout;
        self
    }

    /// Sets [`transfer_timeout`](Self::transfer_timeout).
    #[must_use]
    pub fn with_transfer_timeout(mut self, timeout: Duration) -> Self {
        self.transfer_timeout = timeout;
        self
    }
}
