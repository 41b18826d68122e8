//! An engine's socket, and what is said when it cannot be reached.
use std::{
    fs, io,
    path::{Path, PathBuf},
};

use agentkernel_core::{Error, ErrorKind, Result};
use sha2::{Digest, Sha256};

use crate::{
    EngineKind,
    address::Address,
    context,
    greeting::{Greeting, Listener},
    tls::{self, Security, Tls},
};

/// The hint for an engine that is not reached directly.
pub(crate) const TUNNEL: &str = "go through ssh: `ssh -NL 127.0.0.1:2375:/var/run/docker.sock HOST`, DOCKER_TLS_VERIFY unset, and \
                      DOCKER_HOST=tcp://127.0.0.1:2375";

/// Where the engine listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Its address.
    pub address: Address,
    /// Who named it: a variable, a context, or the list of usual places.
    pub origin: String,
    /// What was tried before, each with the reason for passing it over.
    pub tried: Vec<(PathBuf, String)>,
    /// What answers there.
    pub kind: EngineKind,
    /// The process that listens, if it can be seen from here.
    pub listener: Option<Listener>,
    /// The engine's version, if it told that already.
    pub version: Option<String>,
}

impl Endpoint {
    /// Makes one of a path. What answers there is guessed by the path until it has answered.
    pub(crate) fn new(path: PathBuf, origin: impl Into<String>) -> Self {
        let is_podmans = path.file_name().is_some_and(|name| name == "podman.sock");
        let kind = if is_podmans { EngineKind::Podman } else { EngineKind::Docker };
        let address = Address::Unix(path);
        Self { address, origin: origin.into(), tried: Vec::new(), kind, listener: None, version: None }
    }

    /// Reads an address that somebody gave. Behind tcp it is spoken to over TLS if the address says `https://` or that is
    /// required, and never without it instead.
    ///
    /// # Errors
    /// `InvalidConfig` for an address that cannot be read; `Unsupported` for one that cannot be reached, or for TLS where
    /// it is not built; what the files of TLS give.
    pub(crate) fn named(address: &str, origin: String, security: &Security) -> Result<Self> {
        let refuse = |kind, message: &'static str, hint: &'static str| {
            Err(Error::new(kind, "find the engine", message)
                .with_context("address", address)
                .with_context("from", &origin)
                .with_hint(hint))
        };
        for scheme in ["tcp://", "http://", "https://"] {
            let Some(rest) = address.strip_prefix(scheme) else { continue };
            let Some(mut found) = Address::tcp(rest) else {
                return refuse(
                    ErrorKind::InvalidConfig,
                    "the address is not of the form tcp://host:port",
                    "write tcp://127.0.0.1:2375",
                );
            };
            if let Address::Tcp { host, tls, .. } = &mut found
                && (security.required || scheme == "https://")
            {
                let prepared = Tls::prepare(security.files.clone(), host);
                let told =
                    |error: Error| error.with_context("address", address).with_context("from", &origin);
                *tls = Some(prepared.map_err(told)?);
            }
            return Ok(Self { address: found, ..Self::new(PathBuf::new(), origin) });
        }
        let Some(path) = address.strip_prefix("unix://") else {
            let remote = ["ssh://", "npipe://", "fd://"];
            if remote.iter().any(|scheme| address.starts_with(scheme)) {
                return refuse(
                    ErrorKind::Unsupported,
                    "an engine is reached over a unix socket or tcp",
                    TUNNEL,
                );
            }
            return refuse(
                ErrorKind::InvalidConfig,
                "the address is not of the form unix:///path",
                "write unix:///path",
            );
        };
        let path = PathBuf::from(path);
        if !path.is_absolute() || path.as_os_str().len() > 107 {
            return refuse(
                ErrorKind::InvalidConfig,
                "the socket's path is not absolute or longer than 107 bytes",
                "write unix:///path",
            );
        }
        Ok(Self::new(path, origin))
    }

    /// Takes over what was learned from who listens there.
    pub(crate) fn greeted(mut self, greeting: &Greeting) -> Self {
        self.kind = greeting.kind.unwrap_or(self.kind);
        self.listener = greeting.listener;
        self.version.clone_from(&greeting.version);
        self
    }

    /// Returns a short name of the address, the same by whatever path a socket was reached.
    pub(crate) fn key(&self) -> String {
        let address = match &self.address {
            Address::Unix(path) => {
                format!("unix://{}", fs::canonicalize(path).unwrap_or_else(|_| path.clone()).display())
            }
            other => other.to_string(),
        };
        context::hex(&Sha256::digest(address))[..8].to_owned()
    }

    /// Says why the engine cannot be reached.
    pub(crate) fn unreachable(&self, source: io::Error) -> Error {
        let (kind, message, hint) = match (tls::trouble(&source), source.kind()) {
            (Some((kind, message, hint)), _) => (kind, message.to_owned(), hint.to_owned()),
            (None, io::ErrorKind::PermissionDenied) => {
                (ErrorKind::PermissionDenied, reason(&source), self.kind.closed())
            }
            (None, _) => (ErrorKind::Unavailable, reason(&source), self.kind.install().to_owned()),
        };
        let error = Error::new(kind, "reach the engine", message)
            .with_context("backend", self.kind.backend_type())
            .with_context("socket", &self.address)
            .with_context("from", &self.origin)
            .with_hint(hint)
            .with_source(source);
        with_tried(error, &self.tried)
    }

    /// Says that something else answers there than what was asked for.
    pub(crate) fn is_another(&self, wanted: EngineKind) -> Error {
        let (message, hint) = match self.kind {
            EngineKind::Podman => ("Podman answers there", "use `--backend podman`, or name Docker's socket"),
            EngineKind::Docker => ("Docker answers there", "use `--backend docker`, or name Podman's socket"),
        };
        Error::new(ErrorKind::Unavailable, "find the engine", message)
            .with_context("backend", wanted.backend_type())
            .with_context("socket", &self.address)
            .with_context("from", &self.origin)
            .with_hint(hint)
    }
}

/// Adds what was tried to an error.
pub(crate) fn with_tried(error: Error, tried: &[(PathBuf, String)]) -> Error {
    tried.iter().fold(error, |error, (path, why)| {
        error.with_context("tried", format_args!("{}: {why}", path.display()))
    })
}

/// Says in words why a socket cannot be reached.
pub(crate) fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::ConnectionRefused => "nobody listens there".to_owned(),
        _ => error.to_string(),
    }
}

/// Returns whether a path leads to a socket; a missing file is an error of its own.
pub(crate) fn is_socket(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::FileTypeExt;
    Ok(fs::metadata(path)?.file_type().is_socket())
}

#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(address: &str) {
    let plain = Security { required: false, files: None };
    if let Ok(endpoint) = Endpoint::named(address, "a test".to_owned(), &plain) {
        let _key = endpoint.key();
        let _error = endpoint.unreachable(io::ErrorKind::NotFound.into()).to_string();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_engines_and_malformed_addresses_are_refused() {
        let plain = Security { required: false, files: None };
        let refused = |address| Endpoint::named(address, String::new(), &plain).unwrap_err().kind();
        for remote in ["ssh://user@host", "npipe:////./pipe/docker_engine"] {
            assert_eq!(refused(remote), ErrorKind::Unsupported, "{remote}");
        }
        for bad in
            ["", "/var/run/docker.sock", "unix://relative", "gopher://x", "tcp://", "tcp://h", "http://h:1/x"]
        {
            assert_eq!(refused(bad), ErrorKind::InvalidConfig, "{bad}");
        }
    }

    #[test]
    fn two_paths_of_one_socket_have_one_key() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "").unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("b")).unwrap();
        let key = |name| Endpoint::new(dir.path().join(name), "").key();
        assert_eq!(key("a"), key("b"));
        assert_eq!(key("a").len(), 8);
    }

    #[test]
    fn another_engine_than_asked_for_is_named_with_the_way_to_it() {
        let podmans = Endpoint::new("/run/podman/podman.sock".into(), "DOCKER_HOST");
        let error = podmans.is_another(EngineKind::Docker);
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("Podman answers there (backend: docker"), "{error}");
        assert!(error.hint().unwrap().contains("--backend podman"));
    }
}
