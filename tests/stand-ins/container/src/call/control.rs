//! Where the stand-in keeps its state, which version it plays, and which faults it shows.
//!
//! The root is `AGENTKERNEL_STANDIN_ROOT`, or, because a backend may clear the environment, the directory
//! `stand-in` beside the executable as it was called (a copy or hard link, not a symbolic one). The switches are in
//! `<root>/control.json`; the variable `AGENTKERNEL_STANDIN_CONTROL` holds the same JSON and wins key by key.
use std::{env, fs, path::PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

/// The versions that are played; the order is that of their release.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Version {
    #[serde(rename = "0.12")]
    V0_12,
    #[serde(rename = "1.0")]
    V1_0,
    #[serde(rename = "1.2")]
    V1_2,
}

impl Version {
    pub(crate) fn number(self) -> &'static str {
        match self {
            Self::V0_12 => "0.12.3",
            Self::V1_0 => "1.0.0",
            Self::V1_2 => "1.2.2",
        }
    }
}

/// How the service is, before anybody starts it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Service {
    Running,
    /// Not registered with launchd.
    Unregistered,
    /// Registered, but dead.
    NotRunning,
}

/// What a delete does that is wedged.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Wedge {
    /// Never answers, and the container stays.
    Hang,
    /// Says `deleteProcess: exec ... does not exist`, and the container stays.
    Fail,
}

/// The switches; an unknown key is an error, so that a test cannot misspell one.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Control {
    pub(crate) version: Version,
    pub(crate) service: Service,
    /// `system start` does not get the service up.
    pub(crate) start_fails: bool,
    /// Verbs (`list`, `image pull`, ..., or `*`) that never answer.
    pub(crate) hang: Vec<String>,
    /// Verbs that do their work and then lose the connection before they have said so.
    pub(crate) crash: Vec<String>,
    pub(crate) wedged_delete: Option<Wedge>,
    /// Every pull fails with this text.
    pub(crate) pull_failure: Option<String>,
    /// Every call says on stderr that this is a debug build, also one that succeeds.
    pub(crate) noise: bool,
    /// How long a container takes to start, in milliseconds.
    pub(crate) start_delay_ms: u64,
    /// Whether a default kernel is configured before `system start` installs one.
    pub(crate) kernel: bool,
    /// What can be pulled: normalised references, each of which is the built-in busybox.
    pub(crate) registry: Vec<String>,
    /// The architecture of the machine as OCI calls it; that of this one if absent.
    pub(crate) arch: Option<String>,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            version: Version::V1_2,
            service: Service::Running,
            start_fails: false,
            hang: Vec::new(),
            crash: Vec::new(),
            wedged_delete: None,
            pull_failure: None,
            noise: false,
            start_delay_ms: 0,
            kernel: true,
            registry: [
                "docker.io/library/busybox:latest",
                "docker.io/library/alpine:latest",
                "docker.io/library/alpine:3.20",
            ]
            .map(str::to_owned)
            .to_vec(),
            arch: None,
        }
    }
}

impl Control {
    /// The architecture of the machine that is played.
    pub(crate) fn arch(&self) -> String {
        self.arch.clone().unwrap_or_else(|| {
            match env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            }
            .to_owned()
        })
    }
}

/// The root, which exists from here on.
pub(crate) fn root() -> Result<PathBuf, String> {
    let root = match env::var_os("AGENTKERNEL_STANDIN_ROOT") {
        Some(root) => PathBuf::from(root),
        None => {
            let exe = env::current_exe().map_err(|error| format!("cannot find the executable: {error}"))?;
            let beside = exe.with_file_name("stand-in");
            if !beside.is_dir() {
                return Err(format!(
                    "neither AGENTKERNEL_STANDIN_ROOT nor the directory {} is there",
                    beside.display()
                ));
            }
            beside
        }
    };
    fs::create_dir_all(&root).map_err(|error| format!("cannot make {}: {error}", root.display()))?;
    root.canonicalize().map_err(|error| format!("cannot find {}: {error}", root.display()))
}

/// The switches of this call.
pub(crate) fn control(root: &std::path::Path) -> Result<Control, String> {
    let mut all = Map::new();
    let file = root.join("control.json");
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(format!("cannot read {}: {error}", file.display())),
    };
    for text in [text, env::var("AGENTKERNEL_STANDIN_CONTROL").unwrap_or_default()] {
        if text.trim().is_empty() {
            continue;
        }
        let keys: Map<String, Value> = serde_json::from_str(&text)
            .map_err(|error| format!("the switches `{text}` are no object: {error}"))?;
        all.extend(keys);
    }
    serde_json::from_value(Value::Object(all)).map_err(|error| format!("the switches are wrong: {error}"))
}
