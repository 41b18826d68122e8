//! Volumes, of old and new answers alike.
use std::collections::BTreeMap;

use agentkernel_core::Result;
use serde::Deserialize;

use super::array;

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Volume {
    pub name: String,
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct Raw {
    /// Since 1.0; before, everything was at the top.
    configuration: Volume,
}

/// Reads `volume list`. One that cannot be read is left out.
pub(crate) fn volumes(operation: &'static str, bytes: &[u8]) -> Result<Vec<Volume>> {
    let read = |value| match Raw::deserialize(&value) {
        Ok(raw) => Some(raw.configuration),
        Err(_) => Volume::deserialize(&value).ok().filter(|volume| !volume.name.is_empty()),
    };
    Ok(array(operation, bytes)?.into_iter().filter_map(read).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_of_each_version_reads_alike() {
        for text in [
            r#"[{"configuration":{"creationDate":"2026-08-07T16:17:54Z","driver":"local","labels":{"a":"b"},"name":"v1"},"id":"v1"}]"#,
            r#"[{"createdAt":776276281.2,"driver":"local","labels":{"a":"b"},"name":"v1","options":{}}]"#,
        ] {
            let volume = volumes("x", text.as_bytes()).unwrap().remove(0);
            assert_eq!((volume.name.as_str(), volume.labels["a"].as_str()), ("v1", "b"));
        }
        assert_eq!(volumes("x", b"[{\"labels\":3},{}]").unwrap(), []);
    }
}
