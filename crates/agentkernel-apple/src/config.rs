//! Which executable is driven, and how long to wait for it.
use std::{env, path::PathBuf, time::Duration};

use agentkernel_core::{Error, ErrorKind, Result};

/// Where Apple's installer and Homebrew put it.
const USUAL: [&str; 2] = ["/usr/local/bin/container", "/opt/homebrew/bin/container"];

/// Which `container` is driven, and how long it may take.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppleConfig {
    /// The executable. Default: `AGENTKERNEL_CONTAINER`, else `container` in `PATH`, else Apple's usual places.
    pub program: Option<PathBuf>,
    /// The `docker` that images with local names are imported from. Default: `docker` in `PATH`.
    pub docker: Option<PathBuf>,
    /// Whether starting the service may download a kernel, some hundreds of megabytes. Default: false.
    pub allow_kernel_download: bool,
    /// How long a question may take. Default: 15 s.
    pub request_timeout: Duration,
    /// How long a container may take to be made or to start. Default: 120 s.
    pub boot_timeout: Duration,
    /// How long an image may take to be pulled or loaded. Default: 30 min.
    pub transfer_timeout: Duration,
}

impl Default for AppleConfig {
    fn default() -> Self {
        Self {
            program: None,
            docker: None,
            allow_kernel_download: false,
            request_timeout: Duration::from_secs(15),
            boot_timeout: Duration::from_secs(120),
            transfer_timeout: Duration::from_secs(1800),
        }
    }
}

impl AppleConfig {
    /// Sets [`program`](Self::program).
    #[must_use]
    pub fn with_program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = Some(program.into());
        self
    }

    /// Sets [`docker`](Self::docker).
    #[must_use]
    pub fn with_docker(mut self, docker: impl Into<PathBuf>) -> Self {
        self.docker = Some(docker.into());
        self
    }

    /// Sets [`allow_kernel_download`](Self::allow_kernel_download).
    #[must_use]
    pub fn with_kernel_download(mut self, allow: bool) -> Self {
        self.allow_kernel_download = allow;
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

    /// Finds the executable.
    ///
    /// # Errors
    /// `Unavailable` if there is none.
    pub(crate) fn find(&self) -> Result<PathBuf> {
        let named = self.program.clone().or_else(|| env::var_os("AGENTKERNEL_CONTAINER").map(PathBuf::from));
        if let Some(named) = named.filter(|named| !named.as_os_str().is_empty()) {
            return which::which(&named)
                .map_err(|source| absent().with_source(source).with_context("program", named.display()));
        }
        which::which("container")
            .ok()
            .or_else(|| USUAL.iter().map(PathBuf::from).find(|usual| usual.is_file()))
            .ok_or_else(absent)
    }
}

fn absent() -> Error {
    Error::new(ErrorKind::Unavailable, "use Apple's containers", "`container` is not installed")
        .with_context("backend", "apple")
        .with_hint("install it from https://github.com/apple/container/releases, on macOS 26 or newer")
}
