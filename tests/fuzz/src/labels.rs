//! The labels of an engine's object: version, name and state, one line each. A state that begins like JSON is encoded
//! first: no change of an encoded one is likely to be JSON.
#![expect(clippy::unwrap_used, reason = "a target fails by a panic")]
use agentkernel_host::StateLabels;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

pub(crate) fn labels(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.splitn(3, '\n');
    let (version, name, state) = (lines.next(), lines.next(), lines.next());
    let encoded = state.filter(|state| state.starts_with('{')).map(|state| URL_SAFE_NO_PAD.encode(state));
    let state = encoded.as_deref().or(state);
    let get = |label: &str| match label {
        StateLabels::VERSION_LABEL => version,
        StateLabels::NAME_LABEL => name,
        StateLabels::STATE_LABEL => state,
        _ => None,
    };
    let Some(Ok(labels)) = StateLabels::decode(get) else { return };
    assert!(labels.run_id.bytes().all(|byte| byte.is_ascii_hexdigit()), "it becomes part of a path");
    let written = labels.encode().unwrap();
    let again = StateLabels::decode(|label| written.get(label).map(String::as_str)).unwrap().unwrap();
    assert_eq!(again, labels);
}
