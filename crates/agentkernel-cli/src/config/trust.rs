//! Which files a person vouched for: each by its absolute path and its content, so that any change asks again.
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use agentkernel_core::{Error, ErrorKind, Result};
use sha2::{Digest, Sha256};

use super::inputs::bounded;

/// The largest store, in bytes: about eight thousand files.
const MAX: u64 = 1 << 20;
const OPERATION: &str = "keep what is trusted";

/// Returns whether a file with this content, at this absolute path, was trusted.
pub(crate) fn is_trusted(path: &Path, content: &[u8]) -> Result<bool> {
    let Some(store) = store().ok() else { return Ok(false) };
    let lines = lines(&store).map_err(|error| failed(&store, error))?;
    Ok(lines.contains(&line(path, content)))
}

/// Trusts a file as it is now; what was trusted at this path before is forgotten.
pub(crate) fn trust(path: &Path, content: &[u8]) -> Result<()> {
    change(path, Some(&line(path, content)))
}

/// Forgets a file, whether it was trusted or not.
pub(crate) fn forget(path: &Path) -> Result<()> {
    change(path, None)
}

fn change(path: &Path, new: Option<&str>) -> Result<()> {
    let store = store()?;
    let before = digest(path.as_os_str().as_bytes());
    let write = || {
        let mut lines = lines(&store)?;
        lines.retain(|line| !line.starts_with(&before));
        lines.extend(new.map(str::to_owned));
        replace(&store, &lines)
    };
    write().map_err(|error| failed(&store, error))
}

/// A name is a path of any bytes: its digest has no line breaks, and tells nothing to a reader.
fn line(path: &Path, content: &[u8]) -> String {
    format!("{} {}", digest(path.as_os_str().as_bytes()), digest(content))
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads the store. One that others could have written says nothing.
fn lines(store: &Path) -> io::Result<Vec<String>> {
    let file = match File::open(store) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    let metadata = file.metadata()?;
    if !metadata.is_file()
        || metadata.uid() != rustix::process::geteuid().as_raw()
        || metadata.mode() & 0o022 != 0
    {
        return Err(io::Error::other("others may write to it"));
    }
    let content = bounded(file, MAX)?.ok_or_else(|| io::Error::other("it is larger than 1 MiB"))?;
    Ok(String::from_utf8_lossy(&content).lines().map(str::to_owned).collect())
}

/// Replaces the store at once, so that a reader sees the old one or the new one.
fn replace(store: &Path, lines: &[String]) -> io::Result<()> {
    if let Some(directory) = store.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let new = store.with_extension(format!("{}.new", std::process::id()));
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(lines.iter().map(|line| format!("{line}\n")).collect::<String>().as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, store)
    };
    write().inspect_err(|_| {
        // What is left of it is in nobody's way.
        let _left = fs::remove_file(&new);
    })
}

fn store() -> Result<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || absolute("HOME").map(|home| home.join(".local/share"));
    let data = absolute("XDG_DATA_HOME").or_else(home).ok_or_else(|| {
        Error::new(ErrorKind::Unavailable, OPERATION, "neither XDG_DATA_HOME nor HOME is set")
            .with_hint("set HOME to your home directory")
    })?;
    Ok(data.join("agentkernel").join("trusted"))
}

fn failed(store: &Path, source: io::Error) -> Error {
    Error::new(ErrorKind::PermissionDenied, OPERATION, "the list of trusted files cannot be used")
        .with_context("file", store.display())
        .with_hint(format!("see to its permissions, or begin anew: `rm {}`", store.display()))
        .with_source(source)
}
