//! What is kept of containers between calls: one directory each, and locks, because every call is a process.
use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime},
};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::call::{Host, failure::Outcome};

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) remove: bool,
    pub(crate) created: u64,
    pub(crate) reference: String,
    pub(crate) descriptor: Value,
    pub(crate) arch: String,
    pub(crate) process: Process,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) networks: Vec<Attachment>,
    pub(crate) ports: Vec<Port>,
    pub(crate) cpus: i64,
    pub(crate) memory: u64,
    pub(crate) read_only: bool,
    pub(crate) init: bool,
    pub(crate) rosetta: bool,
    pub(crate) cap_add: Vec<String>,
    pub(crate) cap_drop: Vec<String>,
    pub(crate) dns: Option<Dns>,
    pub(crate) shm_size: Option<u64>,
    pub(crate) stop_signal: Option<String>,
    pub(crate) masked: Vec<String>,
    pub(crate) read_only_paths: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Process {
    pub(crate) executable: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<String>,
    pub(crate) directory: String,
    /// `name|uid[:gid]`; empty is root.
    pub(crate) user: String,
    /// `--gid` alone: one more group.
    pub(crate) groups: Vec<u32>,
    pub(crate) limits: Vec<Limit>,
    pub(crate) terminal: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Limit {
    pub(crate) limit: String,
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) enum MountKind {
    Bind,
    /// Mode and size are those of `--mount type=tmpfs`.
    Tmpfs,
    Volume(String),
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Mount {
    pub(crate) kind: MountKind,
    pub(crate) source: String,
    pub(crate) destination: String,
    pub(crate) options: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Attachment {
    pub(crate) network: String,
    pub(crate) hostname: String,
    pub(crate) mtu: Option<u32>,
    pub(crate) mac: Option<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Port {
    pub(crate) container_port: u16,
    pub(crate) count: u16,
    pub(crate) host_address: String,
    pub(crate) host_port: u16,
    pub(crate) proto: String,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Dns {
    pub(crate) nameservers: Vec<String>,
    pub(crate) options: Vec<String>,
    pub(crate) search_domains: Vec<String>,
    pub(crate) domain: Option<String>,
}

/// Of a container that runs.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Status {
    pub(crate) started: u64,
    /// PID 1 as this machine counts it.
    pub(crate) pid: i32,
    /// One per attachment: the last byte of the address.
    pub(crate) addresses: Vec<u8>,
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A lower-case UUID.
pub(crate) fn uuid() -> String {
    fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default().trim().to_owned()
}

pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Outcome<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Replaces the file as a whole.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> Outcome<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    fs::write(&beside, serde_json::to_vec_pretty(value)?)?;
    Ok(fs::rename(&beside, path)?)
}

/// Waits for the lock; it ends with the file.
pub(crate) fn lock(path: &Path) -> Outcome<File> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}

impl Host {
    /// The lock over everything, for short.
    pub(crate) fn lock(&self) -> Outcome<File> {
        lock(&self.root.join("lock"))
    }

    pub(crate) fn directory(&self, id: &str) -> PathBuf {
        self.root.join("containers").join(id)
    }

    pub(crate) fn record(&self, id: &str) -> Outcome<Option<Record>> {
        // An id is one word: what is no name names nothing.
        if id.contains('/') || id.starts_with('.') {
            return Ok(None);
        }
        read(&self.directory(id).join("config.json"))
    }

    pub(crate) fn records(&self) -> Outcome<Vec<Record>> {
        let directory = self.root.join("containers");
        fs::create_dir_all(&directory)?;
        let mut records = Vec::new();
        for entry in fs::read_dir(directory)? {
            let id = entry?.file_name().to_string_lossy().into_owned();
            records.extend(self.record(&id)?);
        }
        Ok(records)
    }

    /// Its status, if it runs: its supervisor holds a lock for as long as it does.
    pub(crate) fn running(&self, id: &str) -> Outcome<Option<Status>> {
        if !is_held(&self.directory(id).join("alive"))? {
            return Ok(None);
        }
        read(&self.directory(id).join("status.json"))
    }

    /// Waits until nothing of it runs any more; false if that takes longer.
    pub(crate) fn wait_stopped(&self, id: &str, limit: Duration) -> Outcome<bool> {
        let end = Instant::now() + limit;
        while is_held(&self.directory(id).join("alive"))? {
            if Instant::now() >= end {
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(true)
    }

    pub(crate) fn erase(&self, id: &str) -> Outcome<()> {
        // Out of sight at once, so that no other call sees half of it.
        let gone = self.root.join("containers").join(format!(".gone-{}", uuid()));
        match fs::rename(self.directory(id), &gone) {
            Ok(()) => Ok(fs::remove_dir_all(gone)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn is_held(path: &Path) -> Outcome<bool> {
    let Ok(file) = File::open(path) else { return Ok(false) };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

impl Mount {
    /// Whether its source is still there.
    pub(crate) fn is_there(&self) -> bool {
        matches!(self.kind, MountKind::Tmpfs) || Path::new(&self.source).exists()
    }
}
