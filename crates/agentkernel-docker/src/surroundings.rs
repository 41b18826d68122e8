//! What the search for an engine depends on: this process' variables and directories.
use std::{env, path::PathBuf};

use crate::{
    EngineKind,
    tls::{Security, TlsFiles},
};

/// What the search depends on, so that it can be tested without touching the process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Surroundings {
    pub docker_host: Option<String>,
    pub docker_context: Option<String>,
    pub docker_config: Option<PathBuf>,
    /// `DOCKER_TLS_VERIFY`.
    pub docker_tls: bool,
    pub docker_cert_path: Option<PathBuf>,
    /// The caller's own files, before all others.
    pub tls: Option<TlsFiles>,
    pub container_host: Option<String>,
    pub runtime_dir: Option<PathBuf>,
    pub home: Option<PathBuf>,
    /// Put before the absolute usual places; empty outside tests.
    pub root: PathBuf,
}

impl Surroundings {
    /// Reads them from this process.
    pub(crate) fn of_this_process() -> Self {
        let text = |name| env::var(name).ok().filter(|value| !value.is_empty());
        let path = |name| text(name).map(PathBuf::from).filter(|path| path.is_absolute());
        Self {
            docker_host: text("DOCKER_HOST"),
            docker_context: text("DOCKER_CONTEXT"),
            docker_config: path("DOCKER_CONFIG"),
            docker_tls: text("DOCKER_TLS_VERIFY").is_some(),
            docker_cert_path: text("DOCKER_CERT_PATH").map(PathBuf::from),
            tls: None,
            container_host: text("CONTAINER_HOST"),
            runtime_dir: path("XDG_RUNTIME_DIR"),
            home: path("HOME"),
            root: PathBuf::from("/"),
        }
    }

    /// The directory of the docker command's config.
    pub(crate) fn config_dir(&self) -> Option<PathBuf> {
        self.docker_config.clone().or_else(|| self.home.as_ref().map(|home| home.join(".docker")))
    }

    /// How an engine behind tcp is spoken to, if it is to be over TLS: with these files.
    pub(crate) fn security(&self, required: bool, directory: Option<PathBuf>) -> Security {
        let files = self.tls.clone().or_else(|| directory.map(TlsFiles::in_dir));
        Security { required: required || self.tls.is_some(), files }
    }

    /// As Docker's variables have it.
    pub(crate) fn of_variables(&self) -> Security {
        self.security(self.docker_tls, self.docker_cert_path.clone().or_else(|| self.config_dir()))
    }

    /// The usual places of Docker: rootful, rootless, Desktop, Colima, OrbStack; and of Podman: one's own, then root's.
    pub(crate) fn usual(&self, wanted: Option<EngineKind>) -> Vec<PathBuf> {
        let in_home = |path: &str| self.home.as_ref().map(|home| home.join(path));
        let in_runtime = |path: &str| self.runtime_dir.as_ref().map(|dir| dir.join(path));
        let docker = [
            Some(self.root.join("var/run/docker.sock")),
            in_runtime("docker.sock"),
            in_home(".docker/run/docker.sock"),
            in_home(".docker/desktop/docker.sock"),
            in_home(".colima/default/docker.sock"),
            in_home(".orbstack/run/docker.sock"),
        ];
        let podman = [in_runtime("podman/podman.sock"), Some(self.root.join("run/podman/podman.sock"))];
        let docker = docker.into_iter().flatten().filter(|_| wanted != Some(EngineKind::Podman));
        docker.chain(podman.into_iter().flatten().filter(|_| wanted != Some(EngineKind::Docker))).collect()
    }
}
