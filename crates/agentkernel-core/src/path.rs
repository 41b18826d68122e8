//! A path inside a sandbox.
use std::{fmt, str::FromStr};

use serde::Serialize;

use crate::{Error, Result};

/// An absolute path inside a sandbox, as bytes: names on Linux need not be UTF-8.
///
/// It is normalized once, when made: `//`, `/./` and a trailing `/` are folded. `..` is refused, because what it means
/// depends on links that the sandbox controls. Whether links are followed is said by each operation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SandboxPath(Vec<u8>);

impl SandboxPath {
    /// The longest path in bytes: `PATH_MAX` of Linux less its NUL.
    pub const MAX_LEN: usize = 4095;

    /// Makes a path.
    ///
    /// # Errors
    /// `InvalidConfig` if it is not absolute, has a NUL or a `..` component, or is longer than [`MAX_LEN`](Self::MAX_LEN).
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self> {
        let bytes = bytes.as_ref();
        let fail = |message: &'static str, hint: &'static str| {
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(128)]).into_owned();
            Err(Error::invalid("path", message).with_context("path", shown).with_hint(hint))
        };
        if bytes.first() != Some(&b'/') {
            return fail("the path is not absolute", "begin the path inside the sandbox with `/`");
        }
        if bytes.contains(&0) {
            return fail("the path has a NUL byte", "remove the NUL byte");
        }
        let mut normal = Vec::with_capacity(bytes.len());
        for part in bytes.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".") {
            if part == b".." {
                return fail("the path has a `..` component", "write the path without `..`");
            }
            normal.push(b'/');
            normal.extend_from_slice(part);
        }
        if normal.is_empty() {
            normal.push(b'/');
        }
        if normal.len() > Self::MAX_LEN {
            return fail("the path is longer than 4095 bytes", "use a shorter path");
        }
        Ok(Self(normal))
    }

    /// Returns the normalized bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the last component; `None` for `/`.
    pub fn file_name(&self) -> Option<&[u8]> {
        self.0.rsplit(|byte| *byte == b'/').next().filter(|name| !name.is_empty())
    }

    /// Returns whether `self` is `other` or below it.
    pub fn starts_with(&self, other: &Self) -> bool {
        other.0 == b"/"
            || self.0.strip_prefix(other.0.as_slice()).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    }
}

impl FromStr for SandboxPath {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl fmt::Display for SandboxPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl Serialize for SandboxPath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn normal(text: &str) -> Option<String> {
        SandboxPath::new(text).ok().map(|path| path.to_string())
    }

    #[test]
    fn paths_are_normalized_once() {
        assert_eq!(normal("//a/./b//c/").as_deref(), Some("/a/b/c"));
        assert_eq!(normal("/").as_deref(), Some("/"));
    }

    #[test]
    fn names_that_only_look_dangerous_are_accepted() {
        assert_eq!(normal("/a..b/devel/a%20b").as_deref(), Some("/a..b/devel/a%20b"));
    }

    #[test]
    fn relative_parent_and_nul_are_refused() {
        for bad in ["", "a", "./a", "/a/../b", "/..", "/a\0b"] {
            assert_eq!(normal(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn length_limit_is_path_max() {
        assert!(SandboxPath::new(format!("/{}", "a".repeat(4094))).is_ok());
        assert!(SandboxPath::new(format!("/{}", "a".repeat(4095))).is_err());
    }

    #[test]
    fn starts_with_compares_whole_components() {
        let path = |text: &str| SandboxPath::new(text).unwrap();
        assert!(path("/a/b").starts_with(&path("/a")));
        assert!(!path("/ab").starts_with(&path("/a")));
    }

    proptest! {
        #[test]
        fn normalizing_is_idempotent_and_never_leaves_dots(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut absolute = vec![b'/'];
            absolute.extend(bytes);
            if let Ok(path) = SandboxPath::new(&absolute) {
                prop_assert_eq!(&SandboxPath::new(path.as_bytes()).unwrap(), &path);
                prop_assert!(path.as_bytes().split(|b| *b == b'/').all(|part| part != b".." && part != b"."));
            }
        }
    }
}
