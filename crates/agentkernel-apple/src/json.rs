//! What `container` answers, of every version: what is not known is ignored, what is missing is empty.
mod image;
mod volume;

use std::{collections::BTreeMap, net::IpAddr};

use agentkernel_core::{Error, Result, State, Stats};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::error::garbled;
pub(crate) use image::{Defaults, Image, images, percent};
pub(crate) use volume::{Volume, volumes};

/// A container, of old and new answers alike.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Container {
    pub id: String,
    pub state: State,
    pub addresses: Vec<IpAddr>,
    pub configuration: Configuration,
}

/// What it was made of.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Configuration {
    pub id: String,
    pub labels: BTreeMap<String, String>,
    pub image: Used,
    pub init_process: InitProcess,
    pub resources: Resources,
    pub networks: Vec<Value>,
    pub read_only: bool,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Used {
    pub reference: String,
    pub descriptor: Descriptor,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Descriptor {
    pub digest: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct InitProcess {
    pub environment: Vec<String>,
    pub rlimits: Vec<Rlimit>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Rlimit {
    pub limit: String,
    pub hard: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Resources {
    pub cpus: u64,
    pub memory_in_bytes: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawContainer {
    id: Option<String>,
    configuration: Configuration,
    /// The state before 1.0, an object with it since.
    status: Value,
    networks: Vec<RawNetwork>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawStatus {
    state: String,
    networks: Vec<RawNetwork>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawNetwork {
    #[serde(rename = "ipv4Address")]
    new: Option<String>,
    #[serde(rename = "address")]
    old: Option<String>,
}

impl RawNetwork {
    fn address(&self) -> Option<IpAddr> {
        let text = self.new.as_ref().or(self.old.as_ref())?;
        text.split('/').next()?.parse().ok()
    }
}

fn container(value: Value) -> serde_json::Result<Container> {
    let raw: RawContainer = serde_json::from_value(value)?;
    let (word, networks) = match raw.status {
        Value::String(word) => (word, raw.networks),
        status => {
            let status = RawStatus::deserialize(&status).unwrap_or_default();
            (status.state, status.networks)
        }
    };
    let state = match word.as_str() {
        "running" | "stopping" => State::Running,
        "stopped" => State::Stopped,
        _ => State::Unknown,
    };
    Ok(Container {
        id: raw.id.unwrap_or_else(|| raw.configuration.id.clone()),
        state,
        addresses: networks.iter().filter_map(RawNetwork::address).collect(),
        configuration: raw.configuration,
    })
}

fn array(operation: &'static str, bytes: &[u8]) -> Result<Vec<Value>> {
    // One that has no images or containers may say `null`.
    let all: Option<Vec<Value>> =
        serde_json::from_slice(bytes).map_err(|source| garbled(operation, source))?;
    Ok(all.unwrap_or_default())
}

/// Reads `list` or `inspect`. One that cannot be read is left out: it must not hide the others.
pub(crate) fn containers(operation: &'static str, bytes: &[u8]) -> Result<Vec<Container>> {
    let read = |value| match container(value) {
        Ok(container) => Some(container),
        Err(error) => {
            tracing::debug!(%error, "a container cannot be read");
            None
        }
    };
    Ok(array(operation, bytes)?.into_iter().filter_map(read).collect())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawStats {
    id: String,
    cpu_usage_usec: Option<u64>,
    memory_usage_bytes: Option<u64>,
    num_processes: Option<u64>,
}

/// Reads `stats` of one container; `None` if it is not among them, as one that has stopped is not.
pub(crate) fn stats(operation: &'static str, bytes: &[u8], id: &str) -> Result<Option<Stats>> {
    let all: Vec<RawStats> = list_of(operation, bytes)?;
    Ok(all.into_iter().find(|one| one.id == id).map(|one| Stats {
        cpu_usec: one.cpu_usage_usec,
        memory_bytes: one.memory_usage_bytes,
        pids: one.num_processes,
    }))
}

fn list_of<T: DeserializeOwned>(operation: &'static str, bytes: &[u8]) -> Result<Vec<T>> {
    serde_json::from_slice(bytes).map_err(|source| garbled(operation, source))
}

/// Reads the word of `system status`.
pub(crate) fn status(bytes: &[u8]) -> Result<String, Error> {
    #[derive(Deserialize)]
    struct Status {
        status: String,
    }
    let status: Status =
        serde_json::from_slice(bytes).map_err(|source| garbled("ask for the service", source))?;
    Ok(status.status)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As 1.0 to 1.2 have it (reference 2.1).
    const NEW: &str = include_str!("json/golden/container-1.2.json");
    /// As 0.12 has it (reference 2.2).
    const OLD: &str = include_str!("json/golden/container-0.12.json");
    /// As 0.7 had it.
    const OLDEST: &str = include_str!("json/golden/container-0.7.json");

    #[test]
    fn a_container_of_each_version_reads_alike() {
        let new = containers("x", NEW.as_bytes()).unwrap().remove(0);
        let address = ["192.168.64.3".parse::<IpAddr>().unwrap()];
        assert_eq!(
            (new.id.as_str(), new.state, new.addresses.as_slice()),
            ("sbx-1", State::Running, &address[..])
        );
        assert_eq!(new.configuration.image.reference, "docker.io/library/alpine:3.20");
        assert_eq!(new.configuration.init_process.rlimits[0].hard, 4096);
        assert_eq!(new.configuration.resources.memory_in_bytes, 1 << 30);
        let old = containers("x", OLD.as_bytes()).unwrap().remove(0);
        assert_eq!(
            (old.id.as_str(), old.state, old.addresses.as_slice()),
            ("sbx-1", State::Running, &address[..])
        );
        let oldest = containers("x", OLDEST.as_bytes()).unwrap().remove(0);
        assert_eq!((oldest.state, oldest.addresses.as_slice()), (State::Stopped, &address[..]));
    }

    #[test]
    fn one_that_cannot_be_read_does_not_hide_the_others() {
        let text = format!(r#"[{{"configuration":7}},{}"#, &NEW[1..]);
        assert_eq!(containers("x", text.as_bytes()).unwrap().len(), 1);
        assert!(containers("x", b"{").is_err());
    }

    #[test]
    fn stats_may_lack_anything() {
        let text =
            br#"[{"id":"b"},{"id":"a","cpuUsageUsec":51234,"memoryUsageBytes":15728640,"networkRxBytes":1}]"#;
        let read = stats("x", text, "a").unwrap().unwrap();
        assert_eq!(read, Stats { cpu_usec: Some(51234), memory_bytes: Some(15_728_640), pids: None });
        assert_eq!(stats("x", text, "c").unwrap(), None);
    }

    #[test]
    fn the_status_is_one_word_among_others() {
        let down = br#"{"apiServerAppName":"","installRoot":"","status":"not running"}"#;
        assert_eq!(status(down).unwrap(), "not running");
    }

    proptest! {
        #[test]
        fn parsers_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _containers = containers("x", &bytes);
            let _stats = stats("x", &bytes, "a");
            let _status = status(&bytes);
        }

        #[test]
        fn a_damaged_answer_never_panics(at in 0..NEW.len(), byte in any::<u8>()) {
            let mut bytes = NEW.as_bytes().to_vec();
            bytes[at] = byte;
            let _containers = containers("x", &bytes);
        }
    }
}
