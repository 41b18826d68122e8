//! The name of an image.
use std::{fmt, str::FromStr};

use serde::Serialize;

use crate::{Error, Result};

/// A reference to an image: `[REGISTRY[:PORT]/]PATH[:TAG][@DIGEST]`, by the grammar of the distribution specification.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ImageRef(String);

impl ImageRef {
    /// Returns the text as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name without tag and digest.
    pub fn name(&self) -> &str {
        split(&self.0).0
    }

    /// Returns the registry (`HOST[:PORT]`), if one is given; else the backend's default is meant.
    pub fn registry(&self) -> Option<&str> {
        split_registry(self.name()).0
    }

    /// Returns the tag, if one is given.
    pub fn tag(&self) -> Option<&str> {
        split(&self.0).1
    }

    /// Returns the digest (`sha256:…`), if one is given.
    pub fn digest(&self) -> Option<&str> {
        split(&self.0).2
    }

    /// Returns whether the image can only be on this machine and is never pulled: a snapshot (`agentkernel-snap:NAME`) or
    /// a bare name that begins with `agentkernel-`.
    pub fn is_local(&self) -> bool {
        self.name().starts_with("agentkernel-") && !self.name().contains('/')
    }
}

/// Splits into name, tag and digest; the tag is after the last `:` that no `/` follows.
fn split(text: &str) -> (&str, Option<&str>, Option<&str>) {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag), digest),
        _ => (rest, None, digest),
    }
}

/// Splits a name into registry and path: a first component is a registry if it could be no other name.
fn split_registry(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (Some(first), rest),
        _ => (None, name),
    }
}

/// One component of a path: lower-case letters and digits, joined by `.`, `_`, `__` or dashes.
fn is_component(part: &str) -> bool {
    let bytes = part.as_bytes();
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let joined = bytes.split(alphanumeric).all(|separator| {
        matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|byte| *byte == b'-')
    });
    bytes.first().is_some_and(alphanumeric) && bytes.last().is_some_and(alphanumeric) && joined
}

/// A registry: dot-separated labels of letters, digits and inner dashes, or an IPv6 address in brackets, with a port.
fn is_registry(part: &str) -> bool {
    let (host, port) = match part.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            ("localhost", if rest.is_empty() { None } else { Some(rest.strip_prefix(':').unwrap_or("")) })
        }
        None => match part.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (part, None),
        },
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    host.split('.').all(label) && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn is_tag(tag: &str) -> bool {
    let mut bytes = tag.bytes();
    tag.len() <= 128
        && bytes.next().is_some_and(|first| first.is_ascii_alphanumeric() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

fn is_digest(digest: &str) -> bool {
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        let length = match algorithm {
            "sha256" => 64,
            "sha512" => 128,
            _ => return false,
        };
        hex.len() == length && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

impl FromStr for ImageRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let fail = |message: &'static str| {
            Err(Error::invalid("image name", message)
                .with_context("image", text.chars().take(96).collect::<String>())
                .with_hint("write [REGISTRY[:PORT]/]NAME[:TAG][@sha256:DIGEST], in lower case"))
        };
        let (name, tag, digest) = split(text);
        let (registry, path) = split_registry(name);
        if name.is_empty() || name.len() > 255 {
            return fail("the name is empty or longer than 255 bytes");
        }
        if !registry.is_none_or(is_registry) {
            return fail("the registry is not a host name with an optional port");
        }
        if !path.split('/').all(is_component) {
            return fail("the name has a character or a part that is not allowed");
        }
        if !tag.is_none_or(is_tag) {
            return fail("the tag has a character that is not allowed or is longer than 128 bytes");
        }
        if !digest.is_none_or(is_digest) {
            return fail("the digest is not of the form sha256:<64 hexadecimal digits>");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn references_split_into_name_tag_and_digest() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let image: ImageRef = format!("localhost:5000/a/b:1.0@{digest}").parse().unwrap();
        assert_eq!(
            (image.name(), image.tag(), image.digest()),
            ("localhost:5000/a/b", Some("1.0"), Some(digest.as_str()))
        );
        let bare: ImageRef = "localhost:5000/a".parse().unwrap();
        assert_eq!((bare.name(), bare.tag()), ("localhost:5000/a", None));
    }

    #[test]
    fn flags_urls_paths_and_shell_are_refused() {
        for bad in [
            "",
            "-v/:/host",
            "--privileged",
            "alpine:3.20;id",
            "a b",
            "ALPINE",
            "x@sha256:zz",
            "http://x/y",
            "file:///etc/passwd",
            "../x",
            "/x",
            "x/",
            "a:",
            "a@",
            "x..y",
        ] {
            assert!(bad.parse::<ImageRef>().is_err(), "{bad:?}");
        }
        assert!("a".repeat(300).parse::<ImageRef>().is_err());
    }

    #[test]
    fn usual_names_are_accepted() {
        for good in
            ["busybox", "alpine:3.20", "ghcr.io/a/b_c:v1.2-x", "[::1]:5000/a", "a/b__c", "a--b", "host"]
        {
            assert!(good.parse::<ImageRef>().is_ok(), "{good:?}");
        }
    }

    #[test]
    fn a_registry_is_told_from_the_first_part_of_a_path() {
        let registry = |text: &str| text.parse::<ImageRef>().unwrap().registry().map(ToOwned::to_owned);
        assert_eq!(registry("localhost/a").as_deref(), Some("localhost"));
        assert_eq!(registry("ghcr.io/a/b:1").as_deref(), Some("ghcr.io"));
        assert_eq!(registry("host:5000/a").as_deref(), Some("host:5000"));
        assert_eq!((registry("library/busybox"), registry("busybox:1.36")), (None, None));
    }

    #[test]
    fn only_snapshots_and_bare_agentkernel_names_are_local() {
        let local = |text: &str| text.parse::<ImageRef>().unwrap().is_local();
        assert!(local("agentkernel-snap:before-upgrade"));
        assert!(local("agentkernel-test"));
        assert!(!local("ghcr.io/agentkernel-test"));
        assert!(!local("agentkernel-user/app"));
        assert!(!local("busybox"));
    }

    proptest! {
        #[test]
        fn parse_never_panics_and_accepts_only_ascii_without_space(text in ".{0,120}") {
            if text.parse::<ImageRef>().is_ok() {
                prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()));
                prop_assert!(!text.starts_with(['-', '/', '.']));
            }
        }

        #[test]
        fn well_formed_references_are_accepted(text in "[a-z0-9]{1,8}(/[a-z0-9]{1,8}){0,2}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,12})?") {
            prop_assert!(text.parse::<ImageRef>().is_ok());
        }
    }
}
