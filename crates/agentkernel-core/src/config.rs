//! What a caller asks for.
use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    Capability, Cpus, Isolation, LinuxCapability, Mount, Network, PortMapping, Profile, SandboxPath, Tmpfs,
    Volume,
};

/// What a caller asks for; [`resolve`](Self::resolve) checks it. Unknown fields are refused when it is deserialized.
///
/// A limit that is given is a requirement: a backend that cannot enforce it refuses. One that is not given gets the
/// backend's documented default.
#[non_exhaustive]
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SandboxConfig {
    /// The image; the default is the backend's own, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<Cpus>,
    /// Memory in MiB, swap included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
    /// Processes and threads at once, the guest's own included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// Disk space in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_mb: Option<u64>,
    /// Open files of a process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
    /// The host directory that [`mount_cwd`](Self::mount_cwd) shows; default: the caller's working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub work_dir: Option<PathBuf>,
    /// Shows `work_dir` at `/workspace`, writable, and makes it the default `cwd`.
    #[serde(skip_serializing_if = "is_false")]
    pub mount_cwd: bool,
    /// Shows the caller's home directory at `/home/user`, read-only.
    #[serde(skip_serializing_if = "is_false")]
    pub mount_home: bool,
    /// Host files and directories shown inside.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Named volumes shown inside.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// File systems in memory shown inside.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tmpfs: Vec<Tmpfs>,
    /// Variables of every command. Never part of a label; not serialized, and not shown by `Debug`.
    #[serde(skip_serializing)]
    pub env: BTreeMap<String, String>,
    /// Working directory of every command; default: `/workspace` if shown, else the image's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// User of every command and file; default: the image's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What commands can reach; default: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// Ports of the host that lead inside; they need no network.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortMapping>,
    /// Makes the root file system read-only; `/tmp`, `/run` and `/dev/shm` stay writable, in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// The least isolation class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// Linux capabilities that commands keep; default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cap_add: Vec<LinuxCapability>,
    /// Whether set-user-id programs gain nothing. Default: true where the backend can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_new_privileges: Option<bool>,
    /// Whether dangerous system calls are refused. Default: true where the backend can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syscall_filter: Option<bool>,
    /// Files written before the first command. Not serialized.
    #[serde(skip_serializing)]
    pub files: Vec<FileInjection>,
    /// Labels for finding it again. Names that begin with `agentkernel` are ours.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Whether it ends with its owner.
    pub lifetime: Lifetime,
    /// Deadline, counted from creation, in whole seconds.
    #[serde(with = "seconds", skip_serializing_if = "Option::is_none")]
    pub time_to_live: Option<Duration>,
    /// Fills what is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
    /// Requirements that may go unenforced; recorded and shown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow_weaker: Vec<Capability>,
    /// When the image is pulled.
    pub pull: PullPolicy,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// Values of variables are often secrets: only their names are shown.
impl fmt::Debug for SandboxConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SandboxConfig")
            .field("image", &self.image)
            .field("vcpus", &self.vcpus)
            .field("memory_mb", &self.memory_mb)
            .field("pids", &self.pids)
            .field("disk_mb", &self.disk_mb)
            .field("open_files", &self.open_files)
            .field("work_dir", &self.work_dir)
            .field("mount_cwd", &self.mount_cwd)
            .field("mount_home", &self.mount_home)
            .field("mounts", &self.mounts)
            .field("volumes", &self.volumes)
            .field("tmpfs", &self.tmpfs)
            .field("env", &self.env.keys())
            .field("cwd", &self.cwd)
            .field("user", &self.user)
            .field("network", &self.network)
            .field("ports", &self.ports)
            .field("read_only", &self.read_only)
            .field("isolation", &self.isolation)
            .field("cap_add", &self.cap_add)
            .field("no_new_privileges", &self.no_new_privileges)
            .field("syscall_filter", &self.syscall_filter)
            .field("files", &self.files)
            .field("labels", &self.labels)
            .field("lifetime", &self.lifetime)
            .field("time_to_live", &self.time_to_live)
            .field("profile", &self.profile)
            .field("allow_weaker", &self.allow_weaker)
            .field("pull", &self.pull)
            .finish()
    }
}

impl SandboxConfig {
    /// Makes a config with an image and nothing else.
    pub fn new(image: impl Into<String>) -> Self {
        Self { image: Some(image.into()), ..Self::default() }
    }
}

/// A file written into a sandbox before its first command.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileInjection {
    /// Absolute path inside.
    pub dest: String,
    /// The content: text, or an array of bytes.
    #[serde(deserialize_with = "content::deserialize")]
    pub content: Vec<u8>,
    /// Permission bits, 0o777 at most. Default: 0o644.
    #[serde(default)]
    pub mode: Option<u32>,
}

/// Content may be secret: only its length is shown.
impl fmt::Debug for FileInjection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileInjection")
            .field("dest", &self.dest)
            .field("length", &self.content.len())
            .field("mode", &self.mode)
            .finish()
    }
}

impl FileInjection {
    /// Makes an injection with the default mode.
    pub fn new(dest: &SandboxPath, content: impl Into<Vec<u8>>) -> Self {
        Self { dest: dest.to_string(), content: content.into(), mode: None }
    }
}

/// Whether a sandbox ends with its owner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lifetime {
    /// It goes when its owner is dropped or dies.
    #[default]
    Owned,
    /// It stays until it is removed or its deadline passes.
    Detached,
}

/// When the image is pulled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullPolicy {
    /// Always, to get what the tag names now.
    Always,
    /// If it is not present.
    #[default]
    Missing,
    /// Never.
    Never,
}

impl std::str::FromStr for PullPolicy {
    type Err = crate::Error;

    fn from_str(text: &str) -> crate::Result<Self> {
        match text {
            "always" => Ok(Self::Always),
            "missing" => Ok(Self::Missing),
            "never" => Ok(Self::Never),
            _ => Err(crate::Error::invalid("pull policy", "there is no such pull policy")
                .with_context("pull", text.chars().take(32).collect::<String>())
                .with_hint("use always, missing or never")),
        }
    }
}

/// A duration as whole seconds.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde calls it with a reference")]
    pub(super) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => serializer.serialize_some(&duration.as_secs()),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_secs))
    }
}

/// Content as text or as an array of bytes.
mod content {
    use std::fmt;

    use serde::{
        Deserializer,
        de::{SeqAccess, Visitor},
    };

    struct Content;

    impl<'de> Visitor<'de> for Content {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("text or an array of bytes")
        }

        fn visit_str<E>(self, text: &str) -> Result<Vec<u8>, E> {
            Ok(text.as_bytes().to_vec())
        }

        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<u8>, A::Error> {
            let mut bytes = Vec::new();
            while let Some(byte) = sequence.next_element()? {
                bytes.push(byte);
            }
            Ok(bytes)
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        deserializer.deserialize_any(Content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_are_refused() {
        assert!(serde_json::from_str::<SandboxConfig>(r#"{"netwrok":"none"}"#).is_err());
        assert!(
            serde_json::from_str::<SandboxConfig>(r#"{"mounts":[{"source":"/a","target":"/b","ro":true}]}"#)
                .is_err()
        );
    }

    #[test]
    fn env_and_files_are_never_serialized() {
        let mut config = SandboxConfig::new("busybox");
        config.env.insert("A".into(), "secret".into());
        config.files.push(FileInjection { dest: "/f".into(), content: b"secret".to_vec(), mode: None });
        assert_eq!(
            serde_json::to_string(&config).unwrap(),
            r#"{"image":"busybox","lifetime":"owned","pull":"missing"}"#
        );
    }

    #[test]
    fn env_and_files_are_never_shown() {
        let mut config = SandboxConfig::new("busybox");
        config.env.insert("TOKEN".into(), "hunter2".into());
        config.files.push(FileInjection { dest: "/f".into(), content: b"hunter2".to_vec(), mode: None });
        let shown = format!("{config:?}");
        assert!(
            shown.contains("TOKEN") && !shown.contains("hunter2") && !shown.contains("104, 117"),
            "{shown}"
        );
    }

    #[test]
    fn what_is_serialized_reads_back() {
        let text = r#"{"image":"a","vcpus":1.5,"memory_mb":64,"network":{"allow":["crates.io"]},"isolation":"vm",
            "cap_add":["NET_RAW"],"time_to_live":60,"profile":"moderate","allow_weaker":["pids"],"lifetime":"detached"}"#;
        let config: SandboxConfig = serde_json::from_str(text).unwrap();
        let again: SandboxConfig = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
        assert_eq!(config, again);
        assert_eq!(config.time_to_live, Some(Duration::from_secs(60)));
    }

    #[test]
    fn content_is_text_or_bytes() {
        let read = |text: &str| serde_json::from_str::<FileInjection>(text).unwrap().content;
        assert_eq!(read(r#"{"dest":"/a","content":"é"}"#), "é".as_bytes());
        assert_eq!(read(r#"{"dest":"/a","content":[0,255]}"#), [0, 255]);
    }
}
