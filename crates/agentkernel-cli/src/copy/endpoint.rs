//! The two sides of a copy, as they are written on the command line.
use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
};

use agentkernel_core::{Error, ErrorKind, Result, SandboxName, SandboxPath};

/// One side of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// A path of the host.
    Host(PathBuf),
    /// Our stdin or stdout.
    Stream,
    /// A path inside a sandbox; `is_directory` if it was written with a `/` at its end.
    Sandbox { name: SandboxName, path: SandboxPath, is_directory: bool },
}

impl Endpoint {
    /// Reads `-`, `NAME:PATH` or a host path. A host path with a colon is written with a `/` before it.
    pub(crate) fn parse(text: &OsStr) -> Result<Self> {
        let bytes = text.as_bytes();
        if bytes == b"-" {
            return Ok(Self::Stream);
        }
        let colon = bytes.iter().position(|byte| *byte == b':');
        match colon {
            Some(at) if at > 0 && !bytes[..at].contains(&b'/') => {
                let name = String::from_utf8_lossy(&bytes[..at]).parse().map_err(|error: Error| {
                    error.with_hint(
                        "write NAME:PATH, or ./PATH for a file of the host with a colon in its name",
                    )
                })?;
                let path = SandboxPath::new(&bytes[at + 1..])?;
                Ok(Self::Sandbox { name, path, is_directory: bytes.ends_with(b"/") })
            }
            _ if bytes.is_empty() => Err(usage("a path is empty")),
            _ => Ok(Self::Host(PathBuf::from(text))),
        }
    }

    fn is_sandbox(&self) -> bool {
        matches!(self, Self::Sandbox { .. })
    }
}

/// Reads both sides; exactly one is inside a sandbox.
pub(crate) fn sides(source: &OsString, destination: &OsString) -> Result<(Endpoint, Endpoint)> {
    let sides = (Endpoint::parse(source)?, Endpoint::parse(destination)?);
    match (sides.0.is_sandbox(), sides.1.is_sandbox()) {
        (true, false) | (false, true) => Ok(sides),
        (true, true) => Err(usage("both sides are inside a sandbox")),
        (false, false) => Err(usage("no side is inside a sandbox")),
    }
}

fn usage(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidConfig, "copy", message)
        .with_hint("for example `agentkernel cp NAME:/etc/hosts .` or `agentkernel cp file NAME:/tmp/`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &[u8]) -> Option<Endpoint> {
        Endpoint::parse(OsStr::from_bytes(text)).ok()
    }

    fn inside(path: &[u8], is_directory: bool) -> Option<Endpoint> {
        let (name, path) = ("box".parse().unwrap(), SandboxPath::new(path).unwrap());
        Some(Endpoint::Sandbox { name, path, is_directory })
    }

    #[test]
    fn a_colon_before_any_slash_names_a_sandbox() {
        assert_eq!(parse(b"box:/a:b\xff"), inside(b"/a:b\xff", false));
        assert_eq!(parse(b"box:/a/"), inside(b"/a", true));
        assert_eq!(parse(b"./a:b"), Some(Endpoint::Host("./a:b".into())));
        assert_eq!(parse(b"-"), Some(Endpoint::Stream));
    }

    #[test]
    fn relative_paths_inside_and_bad_names_are_refused() {
        for bad in [b"".as_slice(), b"box:", b"box:a", b"box:/../a", b"Box:/a", b"b x:/a"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn exactly_one_side_is_inside() {
        let both = |source: &str, destination: &str| sides(&source.into(), &destination.into()).is_ok();
        assert_eq!(
            (both("a:/x", "b"), both("a", "b:/x"), both("a:/x", "b:/x"), both("a", "b")),
            (true, true, false, false)
        );
    }
}
