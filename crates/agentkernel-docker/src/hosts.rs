//! The hosts file of sandboxes without network, for which the engine makes none.
use std::{
    fs, io,
    path::{Path, PathBuf},
};

use agentkernel_core::{Error, Result};
use agentkernel_host::RunDir;

const CONTENT: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";

/// Returns the file, the same for every sandbox, beside their directories of sockets; makes it if it is gone.
///
/// # Errors
/// `Unexpected` if it cannot be written.
pub(crate) fn ensure(run_dir: &RunDir) -> Result<PathBuf> {
    let boot = run_dir.boot_path();
    let dir = boot.ancestors().nth(2).unwrap_or(Path::new("/"));
    let path = dir.join("hosts");
    if fs::read(&path).is_ok_and(|content| content == CONTENT.as_bytes()) {
        return Ok(path);
    }
    let temporary = dir.join(format!("hosts.{}", run_dir.run_id()));
    let write = || -> io::Result<()> {
        fs::write(&temporary, CONTENT)?;
        fs::set_permissions(&temporary, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        fs::rename(&temporary, &path)
    };
    write().map_err(|source| {
        Error::unexpected("make the hosts file", "it cannot be written", source)
            .with_context("path", path.display())
    })?;
    Ok(path)
}
