//! What a sandbox can reach, and what can reach it.
use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What commands inside can reach. The default is nothing.
#[non_exhaustive]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// The sandbox's own loopback only.
    #[default]
    None,
    /// The named hosts only.
    Allow(Vec<HostName>),
    /// Whatever the backend's network reaches.
    Full,
}

/// A DNS name: labels of letters, digits and inner `-`, at most 253 bytes; lower case; no address, no trailing dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

impl HostName {
    /// Returns the name in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let lower = text.to_ascii_lowercase();
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        };
        // A last label that begins with a digit is an address in one of its many spellings (127.1, 0x7f.1).
        let address =
            lower.rsplit('.').next().is_some_and(|last| last.starts_with(|c: char| c.is_ascii_digit()));
        if lower.len() <= 253 && lower.split('.').all(label) && !address {
            return Ok(Self(lower));
        }
        Err(Error::invalid("host name", "this is not a DNS name")
            .with_context("host", text.chars().take(64).collect::<String>())
            .with_hint("write a name like `crates.io`, without scheme, port, address or wildcard"))
    }
}

impl TryFrom<String> for HostName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<HostName> for String {
    fn from(name: HostName) -> Self {
        name.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A TCP port of the host that leads to a port inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortMapping {
    /// Address on the host; the default is 127.0.0.1.
    #[serde(default)]
    pub address: Option<IpAddr>,
    /// Port on the host; 0 lets the host choose.
    pub host: u16,
    /// Port inside, at least 1.
    pub sandbox: u16,
}

impl FromStr for PortMapping {
    type Err = Error;

    /// Reads `SANDBOX`, `HOST:SANDBOX` or `ADDRESS:HOST:SANDBOX`; an IPv6 address stands in brackets.
    fn from_str(text: &str) -> Result<Self> {
        let read = || {
            let mut parts = text.rsplitn(3, ':');
            let sandbox = parts.next()?.parse::<u16>().ok().filter(|port| *port > 0)?;
            let host = parts.next().map_or(Some(sandbox), |port| port.parse().ok())?;
            let address = match parts.next() {
                None => None,
                Some(address) => {
                    Some(address.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok()?)
                }
            };
            Some(Self { address, host, sandbox })
        };
        read().ok_or_else(|| {
            Error::invalid("port", "this is not of the form [[ADDRESS:]HOST:]SANDBOX")
                .with_context("port", text.chars().take(64).collect::<String>())
                .with_hint("for example `--publish 8080:80`")
        })
    }
}

impl fmt::Display for PortMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:{}:{}", self.host, self.sandbox),
            Some(IpAddr::V4(address)) => write!(f, "{address}:{}:{}", self.host, self.sandbox),
            None => write!(f, "{}:{}", self.host, self.sandbox),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_schemes_and_wildcards_are_no_host_names() {
        for bad in [
            "",
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f.1",
            "::1",
            "*.com",
            "a b",
            "https://a",
            "a:443",
            "a.",
            "ev%69l.com",
        ] {
            assert!(bad.parse::<HostName>().is_err(), "{bad:?}");
        }
        assert_eq!("Crates.IO".parse::<HostName>().unwrap().as_str(), "crates.io");
    }

    #[test]
    fn ports_default_to_loopback_and_to_the_same_number() {
        let port =
            |text: &str| text.parse::<PortMapping>().map(|port| (port.address, port.host, port.sandbox)).ok();
        assert_eq!(port("80"), Some((None, 80, 80)));
        assert_eq!(port("8080:80"), Some((None, 8080, 80)));
        assert_eq!(port("[::1]:0:80"), Some((Some("::1".parse().unwrap()), 0, 80)));
        for bad in ["", "0", "1:0", "a:1", "65536", "1:2:3:x", ":1", "1.2.3:1:1"] {
            assert_eq!(port(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn parsers_never_panic(text in ".{0,60}") {
            let _host = text.parse::<HostName>();
            let _port = text.parse::<PortMapping>();
        }

        #[test]
        fn every_mapping_reads_back_what_it_shows(address in any::<Option<IpAddr>>(), host in any::<u16>(), sandbox in 1u16..) {
            let port = PortMapping { address, host, sandbox };
            prop_assert_eq!(port.to_string().parse::<PortMapping>().unwrap(), port);
        }
    }
}
