//! The docker command's contexts: which one is current, and where it leads. The files belong to the user, and are read
//! as if they did not: bounded, regular files only.
use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use sha2::{Digest, Sha256};

/// The longest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

#[derive(Deserialize)]
struct ConfigFile {
    #[serde(default, rename = "currentContext")]
    current_context: Option<String>,
}

#[derive(Deserialize)]
struct MetaFile {
    #[serde(rename = "Endpoints")]
    endpoints: Endpoints,
}

#[derive(Deserialize)]
struct Endpoints {
    docker: DockerEndpoint,
}

#[derive(Deserialize)]
struct DockerEndpoint {
    #[serde(default, rename = "Host")]
    host: String,
    #[serde(default, rename = "SkipTLSVerify")]
    skip_tls_verify: bool,
}

/// Where a context leads.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub address: String,
    /// Whether TLS is to be spoken with whoever answers.
    pub unverified: bool,
}

/// Returns the current context of a config directory; `None` for the default one, or without a config.
pub(crate) fn current(config_dir: &Path) -> Result<Option<String>, io::Error> {
    let path = config_dir.join("config.json");
    let text = match read_bounded(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let config: ConfigFile = serde_json::from_slice(&text)?;
    Ok(config.current_context.filter(|name| !name.is_empty() && name != "default"))
}

/// Returns where a context leads. Its file is named by the digest of the context's name, so that no name is a path.
pub(crate) fn place(config_dir: &Path, name: &str) -> Result<Place, io::Error> {
    let path = config_dir.join("contexts/meta").join(hex(&Sha256::digest(name))).join("meta.json");
    let meta: MetaFile = serde_json::from_slice(&read_bounded(&path)?)?;
    let DockerEndpoint { host: address, skip_tls_verify: unverified } = meta.endpoints.docker;
    Ok(Place { address, unverified })
}

/// Returns the directory of a context's files of TLS; it is there only if there are any.
pub(crate) fn tls_dir(config_dir: &Path, name: &str) -> PathBuf {
    config_dir.join("contexts/tls").join(hex(&Sha256::digest(name))).join("docker")
}

/// Writes bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A FIFO in place of the file would block the open for ever: the type is looked at first.
pub(crate) fn read_bounded(path: &Path) -> Result<Vec<u8>, io::Error> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() || metadata.len() > MAX_FILE {
        return Err(io::Error::other("it is not a regular file of at most 1 MiB"));
    }
    let mut text = Vec::new();
    fs::File::open(path)?.take(MAX_FILE).read_to_end(&mut text)?;
    Ok(text)
}

/// Puts the bytes where the context `fuzz` has its file, and reads it.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(config_dir: &Path, bytes: &[u8]) {
    let path = config_dir.join("contexts/meta").join(hex(&Sha256::digest("fuzz")));
    let written = fs::create_dir_all(&path).and_then(|()| fs::write(path.join("meta.json"), bytes));
    if written.is_ok() {
        let _place = place(config_dir, "fuzz");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_context_is_read_and_default_is_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(current(dir.path()).unwrap(), None);
        for (text, expected) in [
            (r#"{"currentContext":"colima","auths":{}}"#, Some("colima".to_owned())),
            (r#"{"currentContext":"default"}"#, None),
            ("{}", None),
        ] {
            fs::write(dir.path().join("config.json"), text).unwrap();
            assert_eq!(current(dir.path()).unwrap(), expected);
        }
    }

    #[test]
    fn a_broken_or_endless_config_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.json"), "not json").unwrap();
        assert!(current(dir.path()).is_err());
        fs::write(dir.path().join("config.json"), " ".repeat((1 << 20) + 1)).unwrap();
        assert!(current(dir.path()).is_err());
        fs::remove_file(dir.path().join("config.json")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", dir.path().join("config.json")).unwrap();
        assert!(current(dir.path()).is_err());
    }

    #[test]
    fn a_context_is_found_by_the_digest_of_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let meta = dir.path().join("contexts/meta").join(hex(&Sha256::digest("../x")));
        fs::create_dir_all(&meta).unwrap();
        fs::write(
            meta.join("meta.json"),
            r#"{"Name":"../x","Metadata":{},"Endpoints":{"docker":{"Host":"unix:///tmp/x.sock","SkipTLSVerify":false}}}"#,
        )
        .unwrap();
        let expected = Place { address: "unix:///tmp/x.sock".to_owned(), unverified: false };
        assert_eq!(place(dir.path(), "../x").unwrap(), expected);
        assert!(place(dir.path(), "y").is_err());
    }
}
