//! What is kept with the engine's object, as labels: there is no state file that could drift.
use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use agentkernel_core::{Error, Owner, Result, SandboxConfig, SandboxName, SandboxSpec};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

/// The longest state label that is read, in bytes.
const MAX_STATE: usize = 256 << 10;

/// The state of a sandbox. The config is kept without `env` and `files`, which may hold secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateLabels {
    /// The sandbox's name.
    pub name: SandboxName,
    /// Names its [`RunDir`](crate::RunDir), and tells it from a namesake.
    pub run_id: String,
    /// What was asked for.
    pub config: SandboxConfig,
    /// The process that made it.
    pub owner: Option<Owner>,
    /// Creation, in seconds since 1970.
    pub created: u64,
    /// Deadline, in seconds since 1970.
    pub deadline: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct State {
    run: String,
    config: SandboxConfig,
    owner: Option<Owner>,
    created: u64,
    deadline: Option<u64>,
}

impl StateLabels {
    /// Makes the state of a sandbox that is about to be made.
    pub fn new(name: SandboxName, run_id: impl Into<String>, spec: &SandboxSpec) -> Self {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let mut config = spec.config.clone();
        config.env.clear();
        config.files.clear();
        let deadline = spec.time_to_live.map(|ttl| created + ttl.as_secs());
        Self { name, run_id: run_id.into(), config, owner: Some(spec.owner.clone()), created, deadline }
    }

    /// Says that an object is ours, and in which version its state is written.
    pub const VERSION_LABEL: &str = "agentkernel.version";
    /// Holds the sandbox's name.
    pub const NAME_LABEL: &str = "agentkernel.name";
    /// Holds the state: JSON in base64url without padding, since a `=` breaks Apple's parser.
    pub const STATE_LABEL: &str = "agentkernel.state";
    /// The version written here.
    pub const VERSION: &str = "1";

    /// Returns the labels to put on the engine's object.
    ///
    /// # Errors
    /// `Unexpected` if the state cannot be written as JSON.
    pub fn encode(&self) -> Result<BTreeMap<String, String>> {
        let state = State {
            run: self.run_id.clone(),
            config: self.config.clone(),
            owner: self.owner.clone(),
            created: self.created,
            deadline: self.deadline,
        };
        let json = serde_json::to_vec(&state)
            .map_err(|source| Error::unexpected("create sandbox", "its state cannot be written", source))?;
        Ok(BTreeMap::from([
            (Self::VERSION_LABEL.to_owned(), Self::VERSION.to_owned()),
            (Self::NAME_LABEL.to_owned(), self.name.to_string()),
            (Self::STATE_LABEL.to_owned(), URL_SAFE_NO_PAD.encode(json)),
        ]))
    }

    /// Reads the labels of an object; `None` if it is not ours.
    ///
    /// # Errors
    /// `Unexpected` if it says that it is ours and cannot be read: another version, or edited by hand.
    pub fn decode<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Option<Result<Self>> {
        let version = get(Self::VERSION_LABEL)?;
        let broken = |why: String| Error::unexpected("read the sandbox's labels", "they cannot be read", why);
        let read = || {
            if version != Self::VERSION {
                return Err(broken(format!("version `{version}` is not known here")).with_hint(
                    "it was made by another version of agentkernel: remove it with that one, or with the engine's own command",
                ));
            }
            let name = get(Self::NAME_LABEL).unwrap_or_default().parse()?;
            let text = get(Self::STATE_LABEL).unwrap_or_default();
            if text.len() > MAX_STATE {
                return Err(broken("the state is too long".to_owned()));
            }
            let json = URL_SAFE_NO_PAD.decode(text).map_err(|error| broken(error.to_string()))?;
            let state: State = serde_json::from_slice(&json).map_err(|error| broken(error.to_string()))?;
            if !is_run_id(&state.run) {
                return Err(broken("the run id is malformed".to_owned()));
            }
            let State { run: run_id, config, owner, created, deadline } = state;
            Ok(Self { name, run_id, config, owner, created, deadline })
        };
        Some(read())
    }
}

/// A run id becomes part of a path: 16 lower-case hexadecimal digits and nothing else.
pub(crate) fn is_run_id(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels() -> StateLabels {
        StateLabels {
            name: "demo".parse().unwrap(),
            run_id: "0123456789abcdef".into(),
            config: SandboxConfig::new("busybox"),
            owner: Some(Owner::new("host", "boot", 1, 2, 3, 0)),
            created: 10,
            deadline: Some(20),
        }
    }

    fn decode(map: &BTreeMap<String, String>) -> Option<Result<StateLabels>> {
        StateLabels::decode(|key| map.get(key).map(String::as_str))
    }

    #[test]
    fn labels_read_back() {
        let map = labels().encode().unwrap();
        assert_eq!(decode(&map).unwrap().unwrap(), labels());
        assert!(map.values().all(|value| !value.contains('=')));
    }

    #[test]
    fn an_object_without_our_version_is_not_ours() {
        assert!(decode(&BTreeMap::from([("agentkernel.name".into(), "demo".into())])).is_none());
    }

    #[test]
    fn a_run_id_that_would_be_a_path_is_refused() {
        let map = StateLabels { run_id: "../../../etc/aaaa".into(), ..labels() }.encode().unwrap();
        assert!(decode(&map).unwrap().is_err());
    }

    #[test]
    fn secrets_are_in_no_label() {
        let mut secret = labels();
        secret.config.env.insert("TOKEN".into(), "hunter2".into());
        let state = &secret.encode().unwrap()[StateLabels::STATE_LABEL];
        assert!(!String::from_utf8(URL_SAFE_NO_PAD.decode(state).unwrap()).unwrap().contains("hunter2"));
    }

    proptest! {
        #[test]
        fn edited_labels_never_panic(version in "[12]?", name in ".{0,60}", state in ".{0,200}") {
            let map = BTreeMap::from([
                (StateLabels::VERSION_LABEL.to_owned(), version),
                (StateLabels::NAME_LABEL.to_owned(), name),
                (StateLabels::STATE_LABEL.to_owned(), state),
            ]);
            let _labels = decode(&map);
        }
    }
}
