//! Which program speaks the Engine API.
use agentkernel_core::{BackendType, Capabilities, Capability};

use crate::health::UPPER_BOUND;

/// Which program speaks the Engine API. What differs between them is asked of this, and nowhere guessed from a path.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EngineKind {
    /// Docker Engine.
    Docker,
    /// Podman's service (`podman system service`).
    Podman,
}

impl EngineKind {
    /// Returns which backend this is.
    pub const fn backend_type(self) -> BackendType {
        match self {
            Self::Docker => BackendType::Docker,
            Self::Podman => BackendType::Podman,
        }
    }

    /// Returns what the backend does on an engine of this kind and a kernel that have everything.
    pub const fn upper_bound(self) -> Capabilities {
        match self {
            Self::Docker => UPPER_BOUND,
            // Its option for that was not tried.
            Self::Podman => UPPER_BOUND.without(Capability::DiskLimit),
        }
    }

    /// Returns the name of the command that people drive it with, for hints.
    pub(crate) const fn command(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }

    /// Returns the directories that stay writable, in memory, where the root is read-only: Podman mounts all three, and
    /// those that it is not told to without a limit.
    pub(crate) const fn scratch(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Docker => &[("/tmp", "1777"), ("/run", "755")],
            Self::Podman => &[("/tmp", "1777"), ("/run", "755"), ("/var/tmp", "1777")],
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Docker => "Docker",
            Self::Podman => "Podman",
        }
    }

    /// Returns the hint for a machine where it is missing.
    pub(crate) const fn install(self) -> &'static str {
        match self {
            Self::Docker => {
                "install and start Docker: apt-get install docker.io && sudo systemctl start docker"
            }
            Self::Podman => {
                "install Podman and start its service: apt-get install podman && systemctl --user start podman.socket \
                 (as root without --user)"
            }
        }
    }

    /// Returns the hint for a failure that only its log explains.
    pub(crate) fn log(self) -> String {
        format!("see the engine's log: journalctl -u {}", self.command())
    }

    /// Returns the hint for a socket that is closed to this user.
    pub(crate) fn closed(self) -> String {
        match self {
            Self::Docker => {
                let user = std::env::var("USER").unwrap_or_else(|_| "USER".to_owned());
                format!(
                    "join the docker group, which is as good as root: sudo usermod -aG docker {user}, then log in again"
                )
            }
            Self::Podman => "use a service of your own: systemctl --user start podman.socket".to_owned(),
        }
    }
}
