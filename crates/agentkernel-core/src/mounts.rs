//! Host directories, volumes and memory file systems that appear inside.
use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A host file or directory shown inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Path on the host; relative ones are taken from the caller's working directory.
    pub source: PathBuf,
    /// Absolute path inside.
    pub target: String,
    /// Whether writing is refused. Default: true.
    #[serde(default = "yes")]
    pub read_only: bool,
}

const fn yes() -> bool {
    true
}

/// A named volume of the backend shown inside; it outlives the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// The volume's name; made on first use.
    pub name: VolumeName,
    /// Absolute path inside.
    pub target: String,
    /// Whether writing is refused. Default: false.
    #[serde(default)]
    pub read_only: bool,
}

/// A file system in memory shown inside; gone with the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tmpfs {
    /// Absolute path inside.
    pub target: String,
    /// Size limit in MiB, at least 1.
    pub size_mb: u64,
}

/// A volume's name: 1 to 63 of letters, digits, `_`, `.` and `-`, beginning with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumeName(String);

impl VolumeName {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VolumeName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let well_formed = (1..=63).contains(&text.len())
            && text.as_bytes()[0].is_ascii_alphanumeric()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
        if well_formed {
            return Ok(Self(text.to_owned()));
        }
        Err(Error::invalid("volume name", "the name is not 1 to 63 of letters, digits, `_`, `.` and `-`")
            .with_context("volume", text.chars().take(64).collect::<String>())
            .with_hint("for a host directory begin with `/` or `./`"))
    }
}

impl TryFrom<String> for VolumeName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<VolumeName> for String {
    fn from(name: VolumeName) -> Self {
        name.0
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_and_flags_are_no_volume_names() {
        for bad in ["", "/x", "./x", "..", "-v", "a/b", "a:b", "é"] {
            assert!(bad.parse::<VolumeName>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn parse_never_panics(text in ".{0,80}") {
            if let Ok(name) = text.parse::<VolumeName>() {
                prop_assert!(!name.as_str().contains(['/', ':', ' ']));
            }
        }
    }
}
