//! Finding an engine: what was named, as the docker and podman commands take it, else the usual places.
use std::{io, path::PathBuf, time::Duration};

use agentkernel_core::{Error, ErrorKind, Result};

use crate::{
    EngineKind, context,
    endpoint::{Endpoint, is_socket, reason, with_tried},
    greeting::greet,
    surroundings::Surroundings,
};

/// How long an engine may take to greet. One that is silent is taken for what it was asked to be: commands in its
/// sandboxes work without it.
const PATIENCE: Duration = Duration::from_millis(500);

/// Finds an engine, of one kind if that is wanted. One that was named is taken even if nobody answers there: then that is
/// the error, and commands in its sandboxes work without it. Of the usual places the first is taken that accepts a
/// connection and is of that kind.
///
/// # Errors
/// `Unavailable` with everything that was tried, or if what was named is another engine than wanted; `PermissionDenied`
/// if a socket of the usual places is there and closed to us; `InvalidConfig` for an address that cannot be read;
/// `Unsupported` for a remote one.
pub(crate) async fn find(
    explicit: Option<&str>,
    wanted: Option<EngineKind>,
    around: &Surroundings,
) -> Result<Endpoint> {
    if let Some(address) = explicit {
        let endpoint = Endpoint::named(address, "the configuration".to_owned(), &around.of_variables())?;
        return reach(endpoint, wanted).await;
    }
    // Docker's variables are none of Podman's business.
    let own = around.security(false, None);
    let of_podman = around.container_host.as_deref();
    let of_podman = of_podman.map(|address| Endpoint::named(address, "CONTAINER_HOST".to_owned(), &own));
    if wanted == Some(EngineKind::Podman) {
        if let Some(endpoint) = of_podman {
            return reach(endpoint?, wanted).await;
        }
        // Docker's own variables may lead to Podman; where they do not, they are none of Podman's business.
        if let Ok(Some(endpoint)) = of_docker(around)
            && let Ok(greeting) = greet(&endpoint.address, PATIENCE).await
            && greeting.kind == wanted
        {
            return Ok(endpoint.greeted(&greeting));
        }
    } else {
        if let Some(endpoint) = of_docker(around)? {
            return reach(endpoint, wanted).await;
        }
        if let Some(endpoint) = of_podman.filter(|_| wanted.is_none()) {
            return reach(endpoint?, wanted).await;
        }
    }
    among_usual(wanted, around).await
}

/// What DOCKER_HOST or the docker command's contexts name.
fn of_docker(around: &Surroundings) -> Result<Option<Endpoint>> {
    match &around.docker_host {
        Some(address) => Endpoint::named(address, "DOCKER_HOST".to_owned(), &around.of_variables()).map(Some),
        None => from_context(around),
    }
}

async fn reach(mut endpoint: Endpoint, wanted: Option<EngineKind>) -> Result<Endpoint> {
    endpoint.kind = wanted.unwrap_or(endpoint.kind);
    if let Ok(greeting) = greet(&endpoint.address, PATIENCE).await {
        endpoint = endpoint.greeted(&greeting);
    }
    match wanted {
        Some(wanted) if wanted != endpoint.kind => Err(endpoint.is_another(wanted)),
        _ => Ok(endpoint),
    }
}

async fn among_usual(wanted: Option<EngineKind>, around: &Surroundings) -> Result<Endpoint> {
    let (mut tried, mut refused) = (Vec::new(), None);
    for path in around.usual(wanted) {
        let mut endpoint = Endpoint::new(path.clone(), "the usual places");
        endpoint.kind = wanted.unwrap_or(endpoint.kind);
        let greeting = match is_socket(&path) {
            Ok(true) => greet(&endpoint.address, PATIENCE).await,
            Ok(false) => Err(io::Error::other("it is not a socket")),
            Err(error) => Err(error),
        };
        match greeting {
            Ok(greeting) => {
                endpoint = endpoint.greeted(&greeting);
                if wanted.is_none_or(|wanted| wanted == endpoint.kind) {
                    endpoint.tried = tried;
                    return Ok(endpoint);
                }
                tried.push((path, format!("{} answers there", endpoint.kind.name())));
            }
            Err(error) => {
                if error.kind() == io::ErrorKind::PermissionDenied {
                    refused.get_or_insert(endpoint);
                }
                tried.push((path, reason(&error)));
            }
        }
    }
    Err(nothing_answers(wanted, &tried, refused))
}

fn from_context(around: &Surroundings) -> Result<Option<Endpoint>> {
    let Some(dir) = around.config_dir() else { return Ok(None) };
    let failed = |message: &'static str, source: io::Error| {
        Error::new(ErrorKind::InvalidConfig, "find the engine", message).with_source(source)
    };
    let (name, origin) = match around.docker_context.as_deref() {
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
    let place = context::place(&dir, &name).map_err(|source| {
        failed("the docker context cannot be read", source)
            .with_context("context", &name)
            .with_hint("see `docker context ls`, or set DOCKER_CONTEXT=default")
    })?;
    let files = context::tls_dir(&dir, &name);
    let security = around.security(files.is_dir(), Some(files));
    if place.unverified && !place.address.starts_with("unix://") {
        let message = "the docker context speaks TLS with whoever answers (SkipTLSVerify)";
        return Err(Error::new(ErrorKind::InvalidConfig, "find the engine", message)
            .with_context("context", &name)
            .with_context("address", &place.address)
            .with_hint(format!(
                "give it the engine's authority: docker context update {name} --docker host={},ca=FILE",
                place.address
            )));
    }
    Endpoint::named(&place.address, origin, &security).map(Some)
}

fn nothing_answers(
    wanted: Option<EngineKind>,
    tried: &[(PathBuf, String)],
    refused: Option<Endpoint>,
) -> Error {
    let error = match refused {
        Some(endpoint) => {
            let message = "its socket is closed to this user";
            Error::new(ErrorKind::PermissionDenied, "find the engine", message)
                .with_context("socket", &endpoint.address)
                .with_hint(wanted.unwrap_or(endpoint.kind).closed())
        }
        None => {
            let (message, kind) = match wanted {
                None => ("no engine answers", EngineKind::Docker),
                Some(EngineKind::Docker) => ("Docker does not answer", EngineKind::Docker),
                Some(EngineKind::Podman) => ("Podman does not answer", EngineKind::Podman),
            };
            Error::new(ErrorKind::Unavailable, "find the engine", message).with_hint(kind.install())
        }
    };
    with_tried(error, tried)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::address::Address;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixListener,
        task::JoinHandle,
    };

    fn surroundings(dir: &Path) -> Surroundings {
        Surroundings {
            runtime_dir: Some(dir.join("run")),
            home: Some(dir.join("home")),
            root: dir.to_owned(),
            ..Surroundings::default()
        }
    }

    /// Listens at a path and answers as this engine.
    struct Fake(PathBuf, JoinHandle<()>);

    impl Fake {
        fn start(path: PathBuf, kind: EngineKind) -> Self {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let listener = UnixListener::bind(&path).unwrap();
            let header = if kind == EngineKind::Podman { "Libpod-Api-Version: 4.3.1\r\n" } else { "" };
            let answer = format!("HTTP/1.1 200 OK\r\n{header}Content-Length: 0\r\n\r\n");
            let server = async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let _closed = stream.read_buf(&mut Vec::with_capacity(4096)).await;
                    let _closed = stream.write_all(answer.as_bytes()).await;
                }
            };
            Self(path, tokio::spawn(server))
        }

        fn address(&self) -> String {
            format!("unix://{}", self.0.display())
        }

        fn place(&self) -> Address {
            Address::Unix(self.0.clone())
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            self.1.abort();
        }
    }

    const DOCKER: Option<EngineKind> = Some(EngineKind::Docker);
    const PODMAN: Option<EngineKind> = Some(EngineKind::Podman);
    /// What TLS gives where it is not built, or has no files.
    const NO_TLS: ErrorKind =
        if cfg!(feature = "tls") { ErrorKind::InvalidConfig } else { ErrorKind::Unsupported };

    #[tokio::test]
    async fn what_is_named_comes_before_what_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let _usual = Fake::start(dir.path().join("var/run/docker.sock"), EngineKind::Docker);
        let host = Fake::start(dir.path().join("host.sock"), EngineKind::Docker);
        let explicit = Fake::start(dir.path().join("explicit.sock"), EngineKind::Docker);
        let mut around = surroundings(dir.path());
        around.docker_host = Some(host.address());
        let found = find(Some(&explicit.address()), None, &around).await.unwrap();
        assert_eq!(found.address, explicit.place());
        assert_eq!(find(None, None, &around).await.unwrap().address, host.place());
    }

    #[tokio::test]
    async fn what_is_named_is_taken_even_if_nobody_answers() {
        let dir = tempfile::tempdir().unwrap();
        let _usual = Fake::start(dir.path().join("var/run/docker.sock"), EngineKind::Docker);
        let mut around = surroundings(dir.path());
        around.docker_host = Some("unix:///nonexistent/s".to_owned());
        let endpoint = find(None, DOCKER, &around).await.unwrap();
        assert_eq!((endpoint.address.to_string().as_str(), endpoint.listener), ("/nonexistent/s", None));
    }

    #[tokio::test]
    async fn what_is_to_be_spoken_to_over_tls_is_never_spoken_to_without() {
        let dir = tempfile::tempdir().unwrap();
        let tcp = Some("tcp://127.0.0.1:1".to_owned());
        let around = Surroundings { docker_host: tcp, docker_tls: true, ..surroundings(dir.path()) };
        for explicit in [None, Some("tcp://127.0.0.1:1")] {
            let error = find(explicit, DOCKER, &around).await.unwrap_err();
            assert_eq!(error.kind(), NO_TLS, "{error:?}");
        }
        let error = find(Some("https://127.0.0.1:1"), DOCKER, &surroundings(dir.path())).await.unwrap_err();
        assert_eq!(error.kind(), NO_TLS, "{error:?}");
        // A context with keys, named by its digest.
        let name = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
        let config = dir.path().join("home/.docker");
        let meta = config.join("contexts/meta").join(name);
        fs::create_dir_all(&meta).unwrap();
        fs::write(meta.join("meta.json"), r#"{"Endpoints":{"docker":{"Host":"tcp://127.0.0.1:1"}}}"#)
            .unwrap();
        let around = Surroundings { docker_context: Some("x".to_owned()), ..surroundings(dir.path()) };
        assert!(find(None, DOCKER, &around).await.is_ok());
        fs::create_dir_all(config.join("contexts/tls").join(name).join("docker")).unwrap();
        let error = find(None, DOCKER, &around).await.unwrap_err();
        assert_eq!(error.kind(), NO_TLS, "{error:?}");
        // And one that is content with whoever answers.
        let skip = r#"{"Endpoints":{"docker":{"Host":"tcp://127.0.0.1:1","SkipTLSVerify":true}}}"#;
        fs::write(meta.join("meta.json"), skip).unwrap();
        let error = find(None, DOCKER, &around).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");
        assert!(error.message().contains("SkipTLSVerify") && error.hint().is_some(), "{error:?}");
    }

    /// None of them is there, and the error names the one that is missed first.
    #[cfg(feature = "tls")]
    #[tokio::test]
    async fn the_files_of_tls_are_the_callers_then_those_of_whoever_named_the_engine() {
        use crate::TlsFiles;
        let dir = tempfile::tempdir().unwrap();
        let tcp = Some("tcp://127.0.0.1:1".to_owned());
        let variables = Surroundings { docker_host: tcp, docker_tls: true, ..surroundings(dir.path()) };
        let of_config = dir.path().join("home/.docker/ca.pem");
        let mut certs = variables.clone();
        certs.docker_cert_path = Some("relative".into());
        let mut callers = certs.clone();
        callers.tls = Some(TlsFiles::new("/own.pem"));
        for (around, expected) in
            [(variables, of_config), (certs, "relative/ca.pem".into()), (callers, "/own.pem".into())]
        {
            let error = find(None, DOCKER, &around).await.unwrap_err();
            let context = error.context();
            assert!(format!("{context:?}").contains(&format!("\"{}\"", expected.display())), "{context:?}");
        }
        let around = Surroundings { tls: Some(TlsFiles::new("/own.pem")), ..surroundings(dir.path()) };
        assert!(find(Some("tcp://127.0.0.1:1"), DOCKER, &around).await.is_err());
        assert!(find(Some("unix:///nonexistent/s"), DOCKER, &around).await.is_ok());
    }

    #[tokio::test]
    async fn the_first_of_the_usual_places_that_accepts_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["var/run", "run"] {
            fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        drop(UnixListener::bind(dir.path().join("var/run/docker.sock")).unwrap());
        fs::write(dir.path().join("run/docker.sock"), "").unwrap();
        let desktop = Fake::start(dir.path().join("home/.docker/run/docker.sock"), EngineKind::Docker);
        let endpoint = find(None, None, &surroundings(dir.path())).await.unwrap();
        assert_eq!(endpoint.address, desktop.place());
        let why = endpoint.tried.iter().map(|(_, why)| why.as_str()).collect::<Vec<_>>();
        assert_eq!(why, ["nobody listens there", "it is not a socket"]);
    }

    #[tokio::test]
    async fn each_kind_finds_its_own_and_either_is_found_if_none_is_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let around = surroundings(dir.path());
        let podman = Fake::start(dir.path().join("run/podman/podman.sock"), EngineKind::Podman);
        assert_eq!(find(None, None, &around).await.unwrap().kind, EngineKind::Podman);
        let docker = Fake::start(dir.path().join("var/run/docker.sock"), EngineKind::Docker);
        assert_eq!(find(None, None, &around).await.unwrap().address, docker.place());
        assert_eq!(find(None, DOCKER, &around).await.unwrap().address, docker.place());
        let found = find(None, PODMAN, &around).await.unwrap();
        assert_eq!((found.address, found.kind), (podman.place(), EngineKind::Podman));
    }

    /// The package podman-docker puts Podman at Docker's usual place.
    #[tokio::test]
    async fn podman_at_dockers_usual_place_is_not_docker() {
        let dir = tempfile::tempdir().unwrap();
        let around = surroundings(dir.path());
        let _podman = Fake::start(dir.path().join("var/run/docker.sock"), EngineKind::Podman);
        let error = find(None, DOCKER, &around).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("Podman answers there"), "{error}");
        assert_eq!(find(None, None, &around).await.unwrap().kind, EngineKind::Podman);
    }

    #[tokio::test]
    async fn podman_is_found_by_either_variable_and_docker_is_refused_there() {
        let dir = tempfile::tempdir().unwrap();
        let podman = Fake::start(dir.path().join("p.sock"), EngineKind::Podman);
        let own = Fake::start(dir.path().join("own.sock"), EngineKind::Podman);
        let mut around = surroundings(dir.path());
        around.docker_host = Some(podman.address());
        assert_eq!(find(None, PODMAN, &around).await.unwrap().address, podman.place());
        assert_eq!(find(None, None, &around).await.unwrap().kind, EngineKind::Podman);
        let error = find(None, DOCKER, &around).await.unwrap_err();
        assert!(error.hint().unwrap().contains("--backend podman"), "{error:?}");
        around.container_host = Some(own.address());
        assert_eq!(find(None, PODMAN, &around).await.unwrap().address, own.place());
        around.docker_host = None;
        assert_eq!(find(None, None, &around).await.unwrap().address, own.place());
    }

    #[tokio::test]
    async fn podman_is_found_where_dockers_variable_leads_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let podman = Fake::start(dir.path().join("run/podman/podman.sock"), EngineKind::Podman);
        let docker = Fake::start(dir.path().join("d.sock"), EngineKind::Docker);
        for host in [docker.address(), "tcp://127.0.0.1:1".to_owned(), "unix:///nonexistent/s".to_owned()] {
            let around = Surroundings { docker_host: Some(host), ..surroundings(dir.path()) };
            assert_eq!(find(None, PODMAN, &around).await.unwrap().address, podman.place());
        }
    }

    #[tokio::test]
    async fn a_silent_engine_is_taken_for_what_it_was_asked_to_be() {
        let dir = tempfile::tempdir().unwrap();
        let _silent = UnixListener::bind(dir.path().join("s")).unwrap();
        let address = format!("unix://{}", dir.path().join("s").display());
        for (wanted, kind) in [(None, EngineKind::Docker), (PODMAN, EngineKind::Podman)] {
            let endpoint = find(Some(&address), wanted, &Surroundings::default()).await.unwrap();
            assert_eq!((endpoint.kind, endpoint.listener.is_some()), (kind, true));
        }
    }

    #[tokio::test]
    async fn an_error_lists_everything_that_was_tried() {
        let dir = tempfile::tempdir().unwrap();
        for (wanted, places, package) in
            [(None, 8, "docker.io"), (DOCKER, 6, "docker.io"), (PODMAN, 2, "install podman")]
        {
            let error = find(None, wanted, &surroundings(dir.path())).await.unwrap_err();
            assert_eq!((error.kind(), error.context().len()), (ErrorKind::Unavailable, places));
            assert!(error.hint().unwrap().contains(package), "{error:?}");
        }
    }

    #[tokio::test]
    async fn a_context_that_does_not_exist_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let around = Surroundings { docker_context: Some("nowhere".to_owned()), ..surroundings(dir.path()) };
        assert_eq!(find(None, None, &around).await.unwrap_err().kind(), ErrorKind::InvalidConfig);
    }
}
