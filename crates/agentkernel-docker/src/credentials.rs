//! The docker command's credentials for registries: in its config file, or with a helper program
//! (<https://docs.docker.com/reference/cli/docker/login/>). They go to the engine with a pull and nowhere else.
use std::{collections::HashMap, fmt, io, path::Path, process::Stdio, time::Duration};

use agentkernel_core::{Error, ErrorKind, ImageRef, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bollard::auth::DockerCredentials;
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
    time::timeout,
};

use crate::context::read_bounded;

/// The key of the default registry, for historical reasons.
const DEFAULT_REGISTRY: &str = "https://index.docker.io/v1/";
/// The user name by which a helper says that the secret is a token.
const TOKEN: &str = "<token>";
/// How long a helper may take: it may have to ask a person.
const HELPER_DEADLINE: Duration = Duration::from_secs(60);
/// The longest answer of a helper, in bytes.
const MAX_ANSWER: u64 = 64 << 10;

#[derive(Default, Deserialize)]
struct ConfigFile {
    #[serde(default)]
    auths: HashMap<String, Auth>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
    #[serde(default, rename = "credHelpers")]
    helpers: HashMap<String, String>,
}

#[derive(Default, Deserialize)]
struct Auth {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default, rename = "identitytoken")]
    token: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// Returns what a pull of an image is to be authorized with; `None` where nothing is known.
///
/// # Errors
/// `InvalidConfig` for a config file or a helper that cannot be used.
pub(crate) async fn find(directory: &Path, image: &ImageRef) -> Result<Option<DockerCredentials>> {
    let path = directory.join("config.json");
    let failed = |source: io::Error| {
        Error::new(ErrorKind::InvalidConfig, "pull image", "the docker command's config cannot be read")
            .with_context("file", path.display())
            .with_hint("mend it, or name another directory: DOCKER_CONFIG=DIR")
            .with_source(source)
    };
    let config = match read_bounded(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(failed)?,
    };
    // Not the parser's own error: it may quote what it could not read.
    let config = serde_json::from_slice::<ConfigFile>(&config);
    let config =
        config.map_err(|_| failed(io::Error::new(io::ErrorKind::InvalidData, "it is no such JSON")))?;
    let registry = registry(image);
    let helper = config.helpers.get(registry).or(config.store.as_ref()).filter(|name| !name.is_empty());
    if let Some(helper) = helper {
        return ask(helper, registry).await.map(|answer| answer.map(|answer| of_answer(answer, registry)));
    }
    let host = host_of(registry);
    let auth = config.auths.get(registry).or_else(|| {
        let mut same = config.auths.iter().filter(|(key, _)| host_of(key) == host);
        same.next().map(|(_, auth)| auth)
    });
    auth.and_then(|auth| of_auth(auth, registry).transpose()).transpose().map_err(failed)
}

/// Returns the key of an image's registry.
fn registry(image: &ImageRef) -> &str {
    let named = image.registry().filter(|registry| !["docker.io", "index.docker.io"].contains(registry));
    named.unwrap_or(DEFAULT_REGISTRY)
}

/// Keys may be addresses with a path.
fn host_of(key: &str) -> &str {
    let bare = key.strip_prefix("https://").or(key.strip_prefix("http://")).unwrap_or(key);
    bare.split('/').next().unwrap_or(bare)
}

fn of_auth(auth: &Auth, registry: &str) -> io::Result<Option<DockerCredentials>> {
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "an entry of `auths` is malformed");
    if let Some(secret) = auth.token.as_ref().filter(|token| !token.is_empty()) {
        return Ok(Some(token(secret.clone(), registry)));
    }
    let Some(encoded) = auth.auth.as_ref().filter(|auth| !auth.is_empty()) else { return Ok(None) };
    let text = STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let text = text.ok_or_else(broken)?;
    let (user, secret) = text.split_once(':').ok_or_else(broken)?;
    Ok(Some(password(user.to_owned(), secret.trim_end_matches('\0').to_owned(), registry)))
}

fn of_answer(Answer { username, secret }: Answer, registry: &str) -> DockerCredentials {
    if username == TOKEN { token(secret, registry) } else { password(username, secret, registry) }
}

fn token(secret: String, registry: &str) -> DockerCredentials {
    DockerCredentials {
        identitytoken: Some(secret),
        serveraddress: Some(registry.to_owned()),
        ..Default::default()
    }
}

fn password(user: String, secret: String, registry: &str) -> DockerCredentials {
    DockerCredentials {
        username: Some(user),
        password: Some(secret),
        serveraddress: Some(registry.to_owned()),
        ..Default::default()
    }
}

/// Asks a helper; one that has nothing to say says so with its exit code.
async fn ask(name: &str, registry: &str) -> Result<Option<Answer>> {
    let failed = |message: &'static str| {
        Error::new(ErrorKind::InvalidConfig, "pull image", message)
            .with_context("helper", name)
            .with_context("registry", registry)
            .with_hint("log in again: docker login")
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !name.bytes().all(is_name) {
        return Err(failed("the credential helper's name is none"));
    }
    let program = format!("docker-credential-{name}");
    let spawned = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        // A config that came from another machine must not stand in the way of public images.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            tracing::warn!(program, registry, "the credential helper is not installed");
            return Ok(None);
        }
        Err(error) => return Err(failed("the credential helper cannot be run").with_source(error)),
    };
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let talk = async {
        if let Some(mut stdin) = stdin {
            // It may not read at all.
            stdin.write_all(registry.as_bytes()).await.ok();
        }
        let mut answer = Vec::new();
        if let Some(stdout) = stdout {
            stdout.take(MAX_ANSWER).read_to_end(&mut answer).await?;
        }
        Ok::<_, io::Error>((answer, child.wait().await?))
    };
    let (answer, status) = match timeout(HELPER_DEADLINE, talk).await {
        Ok(talked) => talked.map_err(|error| failed("the credential helper failed").with_source(error))?,
        Err(_) => return Err(failed("the credential helper did not answer in time")),
    };
    if !status.success() {
        return Ok(None);
    }
    serde_json::from_slice(&answer)
        .map(Some)
        .map_err(|_| failed("the credential helper's answer is malformed"))
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    async fn find_in(config: &str, image: &str) -> Result<Option<(String, String)>> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.json"), config).unwrap();
        let found = find(dir.path(), &image.parse().unwrap()).await?;
        Ok(found.map(|it| (it.username.unwrap_or_default(), it.password.or(it.identitytoken).unwrap())))
    }

    fn pair(user: &str, secret: &str) -> Option<(String, String)> {
        Some((user.to_owned(), secret.to_owned()))
    }

    #[tokio::test]
    async fn without_a_config_there_are_none() {
        let dir = tempfile::tempdir().unwrap();
        assert!(find(dir.path(), &"a/b".parse().unwrap()).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_registry_is_found_by_its_host() {
        // user:p:w
        let config = r#"{"auths":{"https://registry.example:5000/v2/":{"auth":"dXNlcjpwOnc="}}}"#;
        assert_eq!(find_in(config, "registry.example:5000/a").await.unwrap(), pair("user", "p:w"));
        assert_eq!(find_in(config, "registry.example/a").await.unwrap(), None);
        assert_eq!(find_in(config, "a/b").await.unwrap(), None);
    }

    #[tokio::test]
    async fn the_default_registry_has_a_key_of_its_own() {
        let config = r#"{"auths":{"https://index.docker.io/v1/":{"identitytoken":"t"}}}"#;
        for image in ["busybox", "library/busybox", "docker.io/library/busybox"] {
            assert_eq!(find_in(config, image).await.unwrap(), pair("", "t"), "{image}");
        }
    }

    #[tokio::test]
    async fn a_helper_that_is_not_installed_stands_in_no_way() {
        let config = r#"{"credsStore":"agentkernel-has-no-such-helper"}"#;
        assert_eq!(find_in(config, "busybox").await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_helper_that_would_be_a_path_is_refused() {
        let error = find_in(r#"{"credsStore":"x/../../bin/sh"}"#, "busybox").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    }

    #[tokio::test]
    async fn a_broken_config_is_an_error_that_tells_no_secret() {
        for config in ["{", r#"{"auths":{"a.example":{"auth":"c2VjcmV0"}}}"#, r#"{"auths":"c2VjcmV0"}"#] {
            let error = find_in(config, "a.example/b").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(!format!("{error:?}").contains("ecret"), "{error:?}");
            assert!(!format!("{error:?}").contains("c2Vj"), "{error:?}");
        }
    }
}
