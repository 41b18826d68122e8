//! What is known of a sandbox.
use std::{collections::BTreeMap, fmt, net::IpAddr};

use serde::Serialize;

use crate::{BackendType, Capability, Isolation, Lifetime, Liveness, Owner, PortMapping, SandboxName};

/// The truth about a sandbox, asked of the engine.
#[non_exhaustive]
#[derive(Debug, Clone, Serialize)]
pub struct SandboxInfo {
    /// Its name.
    pub name: SandboxName,
    /// The engine's id of it.
    pub id: String,
    /// The backend that holds it.
    pub backend: BackendType,
    /// How strongly it is isolated.
    pub isolation: Isolation,
    /// What it is doing.
    pub state: State,
    /// How its first process ended, if it did: the container convention, 128+n for a signal.
    pub exit_code: Option<i32>,
    /// The image as asked for.
    pub image: String,
    /// The image's digest, where the backend knows it.
    pub digest: Option<String>,
    /// Creation, in seconds since 1970.
    pub created: u64,
    /// Deadline, in seconds since 1970.
    pub deadline: Option<u64>,
    /// Whether it ends with its owner.
    pub lifetime: Lifetime,
    /// The process that made it.
    pub owner: Option<Owner>,
    /// Whether it still has a reason to exist.
    pub liveness: Liveness,
    /// The caller's labels.
    pub labels: BTreeMap<String, String>,
    /// Its address on the backend's network.
    pub address: Option<IpAddr>,
    /// Host ports that lead inside.
    pub ports: Vec<PortMapping>,
    /// What restricts it.
    pub restrictions: Vec<Enforcement>,
}

impl SandboxInfo {
    /// Makes an info with what every backend knows; the rest is empty and set field by field.
    pub fn new(name: SandboxName, id: impl Into<String>, backend: BackendType, state: State) -> Self {
        Self {
            name,
            id: id.into(),
            backend,
            isolation: Isolation::Process,
            state,
            exit_code: None,
            image: String::new(),
            digest: None,
            created: 0,
            deadline: None,
            lifetime: Lifetime::Owned,
            owner: None,
            liveness: Liveness::Unknown,
            labels: BTreeMap::new(),
            address: None,
            ports: Vec::new(),
            restrictions: Vec::new(),
        }
    }
}

/// One restriction: what was asked for and what is configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Enforcement {
    /// The restriction.
    pub capability: Capability,
    /// What the caller asked for; empty for a default.
    pub asked: String,
    /// What the engine says is configured; empty where the caller allowed it to be weaker and it is not enforced.
    pub configured: String,
    /// Whether the caller allowed it to be weaker.
    pub allowed_weaker: bool,
}

impl Enforcement {
    /// Puts what is configured beside what a config asks for. What is neither is left out.
    pub fn list(
        config: &crate::SandboxConfig,
        configured: impl IntoIterator<Item = (Capability, Option<String>)>,
    ) -> Vec<Self> {
        let asked = config.requirements();
        let beside = |(capability, configured): (Capability, Option<String>)| {
            let asked = asked.iter().find(|(known, _)| *known == capability).map(|(_, asked)| asked.clone());
            let configured = configured.unwrap_or_default();
            let tells = asked.is_some() || !configured.is_empty();
            tells.then(|| Self {
                capability,
                asked: asked.unwrap_or_default(),
                // Leave that was not needed weakened nothing.
                allowed_weaker: configured.is_empty() && config.allow_weaker.contains(&capability),
                configured,
            })
        };
        configured.into_iter().filter_map(beside).collect()
    }
}

/// What a sandbox is doing.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Made and never booted.
    Created,
    /// Running.
    Running,
    /// Frozen by the engine.
    Paused,
    /// Ended or halted; it can be booted again if it is detached.
    Stopped,
    /// Broken beyond use; it can only be removed.
    Dead,
    /// The engine does not say.
    Unknown,
}

impl State {
    /// Returns the stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Dead => "dead",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
