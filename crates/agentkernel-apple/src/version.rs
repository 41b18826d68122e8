//! Which version of `container` is driven, and what it has.
use std::fmt;

/// A version of `container`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

impl Version {
    /// The least that is driven: capabilities cannot be dropped before it, and commands would have all of them.
    pub(crate) const LEAST: Self = Self::new(0, 12, 0);
    /// `inspect` fails for what is missing, `kill` waits, signals of the image are looked at.
    pub(crate) const STABLE: Self = Self::new(1, 0, 0);

    /// `export` takes one that runs, too, while its file system stands still.
    pub(crate) const EXPORTS_RUNNING: Self = Self::new(1, 2, 1);

    pub(crate) const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// Reads what `container --version` prints: `container CLI version 1.2.2 (build: release, commit: 1a2b3c4)`, and
    /// `version 1.0.0-23-g7b94575` of a build from a checkout.
    pub(crate) fn read(text: &str) -> Option<Self> {
        text.match_indices("version ").find_map(|(at, word)| {
            let rest = text.get(at + word.len()..)?;
            let mut numbers = rest.splitn(3, '.').map(|part| {
                let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
                (part.get(..end).and_then(|digits| digits.parse().ok()), end == part.len())
            });
            let (major, minor, patch) = (numbers.next()?, numbers.next()?, numbers.next()?);
            (major.1 && minor.1).then_some(())?;
            Some(Self::new(major.0?, minor.0?, patch.0?))
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn versions_of_releases_and_of_checkouts_are_read() {
        for (text, version) in [
            ("container CLI version 1.2.2 (build: release, commit: 1a2b3c4)\n", Version::new(1, 2, 2)),
            ("container CLI version 0.12.3 (build: release, commit: unspeci)", Version::new(0, 12, 3)),
            ("container CLI version 1.0.0-23-g7b94575 (build: debug, sdk: 1)", Version::new(1, 0, 0)),
        ] {
            assert_eq!(Version::read(text), Some(version), "{text}");
        }
    }

    #[test]
    fn what_has_no_version_has_none() {
        for text in ["", "version", "version 1", "version 1.2", "version a.b.c", "version 1x.2.3", "1.2.3"] {
            assert_eq!(Version::read(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn read_never_panics(text in ".{0,80}") {
            let _version = Version::read(&text);
        }

        #[test]
        fn every_version_reads_back(major in 0..100u32, minor in 0..100u32, patch in 0..100u32) {
            let version = Version::new(major, minor, patch);
            prop_assert_eq!(Version::read(&format!("container CLI version {version} (x)")), Some(version));
        }
    }
}
