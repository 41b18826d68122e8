//! Named bundles of restrictions.
use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Cpus, Error, Network, Result, SandboxConfig};

/// A named bundle. A field that the config sets itself is not touched by it.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// Full network; limits are the backend's defaults.
    Permissive,
    /// No network, 2 GiB of memory, 512 processes, no new privileges.
    Moderate,
    /// No network, read-only root, 512 MiB of memory, one processor, 128 processes, no new privileges.
    Restrictive,
}

impl Profile {
    /// Returns the stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Permissive => "permissive",
            Self::Moderate => "moderate",
            Self::Restrictive => "restrictive",
        }
    }

    /// Fills what the config leaves open.
    pub fn apply(self, config: &mut SandboxConfig) {
        match self {
            Self::Permissive => {
                config.network.get_or_insert(Network::Full);
            }
            Self::Moderate => {
                config.network.get_or_insert(Network::None);
                config.memory_mb.get_or_insert(2048);
                config.pids.get_or_insert(512);
                config.no_new_privileges.get_or_insert(true);
            }
            Self::Restrictive => {
                config.network.get_or_insert(Network::None);
                config.memory_mb.get_or_insert(512);
                config.pids.get_or_insert(128);
                config.no_new_privileges.get_or_insert(true);
                config.read_only.get_or_insert(true);
                if config.vcpus.is_none() {
                    config.vcpus = Cpus::from_milli(1000).ok();
                }
            }
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Profile {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [Self::Permissive, Self::Moderate, Self::Restrictive]
            .into_iter()
            .find(|known| known.as_str() == text)
            .ok_or_else(|| {
                Error::invalid("profile", "there is no such profile")
                    .with_context("profile", text.chars().take(32).collect::<String>())
                    .with_hint("use permissive, moderate or restrictive")
            })
    }
}
