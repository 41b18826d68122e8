//! The ids that reach the engine's addresses.
use std::fmt;

use agentkernel_core::{Error, Result};

/// A container's id: 64 lower-case hexadecimal digits. Ids are spliced into the engine's addresses as they are, so
/// nothing else may ever get there.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct ContainerId(String);

impl ContainerId {
    /// Reads what the engine says is an id.
    pub(crate) fn read(text: &str) -> Result<Self> {
        let well_formed =
            text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if well_formed {
            return Ok(Self(text.to_owned()));
        }
        let shown = text.chars().take(80).collect::<String>();
        Err(Error::unexpected("ask the engine", "it answered with an id that is none", shown))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0[..12])
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_are_ids() {
        assert!(ContainerId::read(&"a0".repeat(32)).is_ok());
        for bad in ["", "abc", "x/../../version?", &"A0".repeat(32), &"g0".repeat(32)] {
            assert!(ContainerId::read(bad).is_err(), "{bad}");
        }
    }
}
