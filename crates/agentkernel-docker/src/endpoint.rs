//! Where the engine listens, found as the docker command finds it.
use std::{
    env, fs, io,
    os::unix::{fs::FileTypeExt, net::UnixStream},
    path::{Path, PathBuf},
};

use agentkernel_core::{Error, ErrorKind, Result};
use sha2::{Digest, Sha256};

use crate::context;

/// The hint for a machine without an engine.
const INSTALL: &str = "install and start Docker: apt-get install docker.io && sudo systemctl start docker";

/// Where the engine listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// The socket.
    pub path: PathBuf,
    /// Who named it: a variable, a context, or the list of usual places.
    pub origin: String,
    /// What was tried before, each with the reason for passing it over.
    pub tried: Vec<(PathBuf, String)>,
}

/// What the search depends on, so that it can be tested without touching the process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Surroundings {
    pub docker_host: Option<String>,
    pub docker_context: Option<String>,
    pub docker_config: Option<PathBuf>,
    pub runtime_dir: Option<PathBuf>,
    pub home: Option<PathBuf>,
    /// Put before the absolute usual places; empty outside tests.
    pub root: PathBuf,
}

impl Surroundings {
    /// Reads them from this process.
    pub(crate) fn of_this_process() -> Self {
        let text = |name| env::var(name).ok().filter(|value| !value.is_empty());
        let path = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        Self {
            docker_host: text("DOCKER_HOST"),
            docker_context: text("DOCKER_CONTEXT"),
            docker_config: path("DOCKER_CONFIG"),
            runtime_dir: path("XDG_RUNTIME_DIR"),
            home: path("HOME"),
            root: PathBuf::from("/"),
        }
    }

    /// The directory of the docker command's config.
    pub(crate) fn config_dir(&self) -> Option<PathBuf> {
        self.docker_config.clone().or_else(|| self.home.as_ref().map(|home| home.join(".docker")))
    }

    /// The usual places: rootful, rootless, Desktop, Colima, OrbStack. Podman's sockets belong to another backend.
    fn usual(&self) -> Vec<PathBuf> {
        let in_home = |path: &str| self.home.as_ref().map(|home| home.join(path));
        [
            Some(self.root.join("var/run/docker.sock")),
            self.runtime_dir.as_ref().map(|dir| dir.join("docker.sock")),
            in_home(".docker/run/docker.sock"),
            in_home(".docker/desktop/docker.sock"),
            in_home(".colima/default/docker.sock"),
            in_home(".orbstack/run/docker.sock"),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Finds the engine's socket. One that was named is taken even if nobody answers there: then that is the error. Of the
/// usual places the first that accepts a connection is taken; nothing is sent.
///
/// # Errors
/// `Unavailable` with everything that was tried; `PermissionDenied` if a socket is there and closed to us;
/// `InvalidConfig` for an address that cannot be read; `Unsupported` for a remote one.
pub(crate) fn resolve(explicit: Option<&str>, surroundings: &Surroundings) -> Result<Endpoint> {
    if let Some(address) = explicit {
        return named(address, "the configuration".to_owned());
    }
    if let Some(address) = &surroundings.docker_host {
        return named(address, "DOCKER_HOST".to_owned());
    }
    if let Some(endpoint) = from_context(surroundings)? {
        return Ok(endpoint);
    }
    let (mut tried, mut refused) = (Vec::new(), None);
    for path in surroundings.usual() {
        match probe(&path) {
            Ok(()) => return Ok(Endpoint { path, origin: "the usual places".to_owned(), tried }),
            Err(error) => {
                if error.kind() == io::ErrorKind::PermissionDenied {
                    refused.get_or_insert(path.clone());
                }
                tried.push((path, reason(&error)));
            }
        }
    }
    Err(nothing_answers(&tried, refused.as_deref()))
}

fn from_context(surroundings: &Surroundings) -> Result<Option<Endpoint>> {
    let Some(dir) = surroundings.config_dir() else { return Ok(None) };
    let failed = |message: &'static str, source: io::Error| {
        Error::new(ErrorKind::InvalidConfig, "find the Docker engine", message).with_source(source)
    };
    let (name, origin) = match surroundings.docker_context.as_deref() {
        Some("default") => return Ok(None),
        Some(name) => (name.to_owned(), format!("DOCKER_CONTEXT={name}")),
        None => match context::current(&dir) {
            Ok(Some(name)) => (name.clone(), format!("the current docker context `{name}`")),
            Ok(None) => return Ok(None),
            Err(source) => {
                return Err(failed("the docker command's config cannot be read", source)
                    .with_context("file", dir.join("config.json").display())
                    .with_hint("repair the file, or set DOCKER_HOST"));
            }
        },
    };
    let address = context::host(&dir, &name).map_err(|source| {
        failed("the docker context cannot be read", source)
            .with_context("context", &name)
            .with_hint("see `docker context ls`, or set DOCKER_CONTEXT=default")
    })?;
    named(&address, origin).map(Some)
}

fn named(address: &str, origin: String) -> Result<Endpoint> {
    let refuse = |kind, message: &'static str, hint: &'static str| {
        Err(Error::new(kind, "find the Docker engine", message)
            .with_context("address", address)
            .with_context("from", &origin)
            .with_hint(hint))
    };
    let Some(path) = address.strip_prefix("unix://") else {
        let remote = ["tcp://", "http://", "https://", "ssh://", "npipe://", "fd://"];
        if remote.iter().any(|scheme| address.starts_with(scheme)) {
            return refuse(
                ErrorKind::Unsupported,
                "only an engine on this machine, behind a unix socket, can be used yet",
                "set DOCKER_HOST=unix:///var/run/docker.sock, or unset it",
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
    Ok(Endpoint { path, origin, tried: Vec::new() })
}

/// Connects and sends nothing: a stale socket is passed over.
fn probe(path: &Path) -> io::Result<()> {
    if !fs::metadata(path)?.file_type().is_socket() {
        return Err(io::Error::other("it is not a socket"));
    }
    UnixStream::connect(path).map(drop)
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::ConnectionRefused => "nobody listens there".to_owned(),
        _ => error.to_string(),
    }
}

fn nothing_answers(tried: &[(PathBuf, String)], refused: Option<&Path>) -> Error {
    let error = match refused {
        Some(path) => Error::new(
            ErrorKind::PermissionDenied,
            "find the Docker engine",
            "its socket is closed to this user",
        )
        .with_context("socket", path.display())
        .with_hint(group_hint()),
        None => Error::new(ErrorKind::Unavailable, "find the Docker engine", "no engine answers")
            .with_hint(INSTALL),
    };
    tried.iter().fold(error, |error, (path, why)| {
        error.with_context("tried", format_args!("{}: {why}", path.display()))
    })
}

fn group_hint() -> String {
    let user = env::var("USER").unwrap_or_else(|_| "USER".to_owned());
    format!(
        "join the docker group, which is as good as root: sudo usermod -aG docker {user}, then log in again"
    )
}

impl Endpoint {
    /// Returns a short name of the socket, the same by whatever path it was reached.
    pub(crate) fn key(&self) -> String {
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        context::hex(&Sha256::digest(format!("unix://{}", path.display())))[..8].to_owned()
    }

    /// Says why the engine cannot be reached.
    pub(crate) fn unreachable(&self, source: io::Error) -> Error {
        let (kind, hint) = match source.kind() {
            io::ErrorKind::PermissionDenied => (ErrorKind::PermissionDenied, group_hint()),
            _ => (ErrorKind::Unavailable, INSTALL.to_owned()),
        };
        let error = Error::new(kind, "reach the Docker engine", reason(&source))
            .with_context("socket", self.path.display())
            .with_context("from", &self.origin)
            .with_hint(hint)
            .with_source(source);
        self.tried.iter().fold(error, |error, (path, why)| {
            error.with_context("tried", format_args!("{}: {why}", path.display()))
        })
    }
}

#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(address: &str) {
    if let Ok(endpoint) = named(address, "a test".to_owned()) {
        let _key = endpoint.key();
        let _error = endpoint.unreachable(io::ErrorKind::NotFound.into()).to_string();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn surroundings(dir: &Path) -> Surroundings {
        Surroundings {
            runtime_dir: Some(dir.join("run")),
            home: Some(dir.join("home")),
            root: dir.to_owned(),
            ..Surroundings::default()
        }
    }

    #[test]
    fn what_is_named_comes_before_what_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let mut around = surroundings(dir.path());
        around.docker_host = Some("unix:///tmp/host.sock".to_owned());
        let explicit = resolve(Some("unix:///tmp/explicit.sock"), &around).unwrap();
        assert_eq!(explicit.path, Path::new("/tmp/explicit.sock"));
        assert_eq!(resolve(None, &around).unwrap().path, Path::new("/tmp/host.sock"));
    }

    #[test]
    fn the_first_of_the_usual_places_that_accepts_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["var/run", "run", "home/.docker/run"] {
            fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        drop(UnixListener::bind(dir.path().join("var/run/docker.sock")).unwrap());
        fs::write(dir.path().join("run/docker.sock"), "").unwrap();
        let _listener = UnixListener::bind(dir.path().join("home/.docker/run/docker.sock")).unwrap();
        let endpoint = resolve(None, &surroundings(dir.path())).unwrap();
        assert_eq!(endpoint.path, dir.path().join("home/.docker/run/docker.sock"));
        let why = endpoint.tried.iter().map(|(_, why)| why.as_str()).collect::<Vec<_>>();
        assert_eq!(why, ["nobody listens there", "it is not a socket"]);
    }

    #[test]
    fn an_error_lists_everything_that_was_tried() {
        let dir = tempfile::tempdir().unwrap();
        let error = resolve(None, &surroundings(dir.path())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(error.context().len(), 6);
        assert!(error.hint().unwrap().contains("apt-get install docker.io"));
    }

    #[test]
    fn remote_engines_and_malformed_addresses_are_refused() {
        let refused = |address| resolve(Some(address), &Surroundings::default()).unwrap_err().kind();
        for remote in ["tcp://127.0.0.1:2375", "ssh://user@host", "npipe:////./pipe/docker_engine"] {
            assert_eq!(refused(remote), ErrorKind::Unsupported, "{remote}");
        }
        for bad in ["", "/var/run/docker.sock", "unix://relative", "gopher://x"] {
            assert_eq!(refused(bad), ErrorKind::InvalidConfig, "{bad}");
        }
    }

    #[test]
    fn a_context_that_does_not_exist_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let around = Surroundings { docker_context: Some("nowhere".to_owned()), ..surroundings(dir.path()) };
        assert_eq!(resolve(None, &around).unwrap_err().kind(), ErrorKind::InvalidConfig);
    }

    #[test]
    fn two_paths_of_one_socket_have_one_key() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "").unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("b")).unwrap();
        let key = |name| {
            named(&format!("unix://{}", dir.path().join(name).display()), String::new()).unwrap().key()
        };
        assert_eq!(key("a"), key("b"));
        assert_eq!(key("a").len(), 8);
    }
}
