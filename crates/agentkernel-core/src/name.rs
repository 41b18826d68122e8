//! The name of a sandbox.
use std::{fmt, ops::Deref, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A sandbox's name: 1 to 48 of `a-z`, `0-9` and `-`, beginning and ending with a letter or digit.
///
/// The limit keeps `agentkernel-<name>` a valid host name (63 bytes, RFC 1123). Lower case only, so that two names
/// never differ only by case. Derefs to `str`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SandboxName(String);

impl SandboxName {
    /// The longest name, in bytes.
    pub const MAX_LEN: usize = 48;
}

impl FromStr for SandboxName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let fail = |message: &'static str| {
            Err(Error::invalid("sandbox name", message)
                .with_context("name", text.chars().take(64).collect::<String>())
                .with_hint("use 1 to 48 of a-z, 0-9 and `-`, beginning and ending with a letter or digit"))
        };
        if text.is_empty() {
            return fail("the name is empty");
        }
        if text.len() > Self::MAX_LEN {
            return fail("the name is longer than 48 bytes");
        }
        if !text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-')) {
            return fail("the name has a character that is not allowed");
        }
        if text.starts_with('-') || text.ends_with('-') {
            return fail("the name begins or ends with `-`");
        }
        Ok(Self(text.to_owned()))
    }
}

impl Deref for SandboxName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SandboxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for SandboxName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<SandboxName> for String {
    fn from(name: SandboxName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_could_be_paths_flags_or_control_are_refused() {
        for bad in [
            "", ".", "..", "../x", "a/b", "/etc", "-x", "--help", "x-", "a\nb", "a b", "A", "é", "a\0b",
            "a_b", "a.b",
        ] {
            assert!(bad.parse::<SandboxName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn length_limit_is_48() {
        assert!("a".repeat(48).parse::<SandboxName>().is_ok());
        assert!("a".repeat(49).parse::<SandboxName>().is_err());
    }

    #[test]
    fn message_does_not_repeat_control_characters() {
        let shown = "a\x1b[2J".parse::<SandboxName>().unwrap_err().to_string();
        assert!(!shown.contains('\x1b'), "{shown:?}");
    }

    proptest! {
        #[test]
        fn parse_never_panics_and_accepts_only_host_name_labels(text in ".{0,60}") {
            if let Ok(name) = text.parse::<SandboxName>() {
                prop_assert_eq!(&*name, text.as_str());
                prop_assert!("agentkernel-".len() + name.len() <= 63);
            }
        }

        #[test]
        fn every_well_formed_name_is_accepted(text in "[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?") {
            prop_assert!(text.parse::<SandboxName>().is_ok());
        }
    }
}
