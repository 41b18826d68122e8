//! The directory on the host that holds a sandbox's sockets. It is never visible inside.
//!
//! ```text
//! <base>/<engine>/<run id>/boot    listened on while the sandbox boots; mounted read-only, as this one file
//! <base>/<engine>/<run id>/ctl     listened on by the guest; later commands connect here
//! <base>/<engine>/<run id>/key     opens the guest's inner socket, where the engine shares no kernel with us
//! <base>/<engine>/names/<name>     link to the run id
//! ```
//! The base is `/run/agentkernel` for root, `$XDG_RUNTIME_DIR/agentkernel` or `/run/user/UID/agentkernel` for others, else
//! `~/.local/state/agentkernel/run`. Every directory is ours and 0700.
use std::{
    env, fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, symlink},
    path::{Path, PathBuf},
};

use agentkernel_core::{Error, ErrorKind, Result, SandboxName};
use agentkernel_guest::protocol::GUEST_DIR;

use crate::{BootSocket, ControlSocket, GuestClient, labels::is_run_id};

/// Where the boot socket appears inside.
pub const BOOT_TARGET: &str = "/.agentkernel/boot";
const _: () =
    assert!(BOOT_TARGET.len() == GUEST_DIR.len() + 5, "the boot socket is in the guest's directory");

/// The longest path of a socket in bytes (`sun_path` of unix(7) less its NUL).
const MAX_SOCKET_PATH: usize = 107;

/// A sandbox's directory of sockets.
#[derive(Debug, Clone)]
pub struct RunDir {
    engine_dir: PathBuf,
    run_id: String,
}

impl RunDir {
    /// Makes a directory with a new run id. `engine` is a short key of the engine's endpoint: letters, digits and `-`.
    ///
    /// # Errors
    /// `PermissionDenied` if a directory on the way is not ours alone; `Unavailable` if none can be made.
    pub fn create(engine: &str) -> Result<Self> {
        let mut random = [0u8; 8];
        getrandom::fill(&mut random)
            .map_err(|source| Error::unexpected("make a run directory", "there is no randomness", source))?;
        let run_id = random.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Self::open(engine, &run_id)
    }

    /// Opens the directory of a run id, making it if it is gone, as after a reboot.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn open(engine: &str, run_id: &str) -> Result<Self> {
        let dir = Self { engine_dir: engine_dir(engine)?, run_id: run_id.to_owned() };
        if !is_run_id(run_id) {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "open a run directory",
                "the run id is malformed",
            ));
        }
        if dir.control_path().as_os_str().len() > MAX_SOCKET_PATH {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "make a run directory",
                "its path is too long for a socket",
            )
            .with_context("path", dir.path().display())
            .with_hint("set XDG_RUNTIME_DIR to a shorter directory"));
        }
        make_private(&dir.path())?;
        Ok(dir)
    }

    /// Finds the directory of the sandbox that last took this name.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn find(engine: &str, name: &SandboxName) -> Result<Option<Self>> {
        let engine_dir = engine_dir(engine)?;
        let Ok(target) = fs::read_link(engine_dir.join("names").join(&**name)) else { return Ok(None) };
        let run_id = target.file_name().and_then(|run_id| run_id.to_str()).unwrap_or_default().to_owned();
        let dir = Self { engine_dir, run_id };
        Ok((is_run_id(&dir.run_id) && dir.path().is_dir()).then_some(dir))
    }

    /// Returns every directory of an engine: what is left of sandboxes that are gone can be found and removed.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn list(engine: &str) -> Result<Vec<Self>> {
        let engine_dir = engine_dir(engine)?;
        let entries = fs::read_dir(&engine_dir)
            .map(|entries| entries.flatten().collect::<Vec<_>>())
            .unwrap_or_default();
        let run_ids = entries.iter().filter_map(|entry| entry.file_name().into_string().ok());
        Ok(run_ids
            .filter(|run_id| is_run_id(run_id))
            .map(|run_id| Self { engine_dir: engine_dir.clone(), run_id })
            .collect())
    }

    /// Returns the run id.
    pub fn run_id(&self) -> &str {
        &self.run_id
    }

    fn path(&self) -> PathBuf {
        self.engine_dir.join(&self.run_id)
    }

    /// Returns the boot socket's path, to be mounted read-only at [`BOOT_TARGET`].
    pub fn boot_path(&self) -> PathBuf {
        self.path().join("boot")
    }

    fn control_path(&self) -> PathBuf {
        self.path().join("ctl")
    }

    pub(crate) fn key_path(&self) -> PathBuf {
        self.path().join("key")
    }

    /// Returns when it was made, if it is there.
    pub fn modified(&self) -> Option<std::time::SystemTime> {
        fs::metadata(self.path()).and_then(|metadata| metadata.modified()).ok()
    }

    /// Lets [`find`](Self::find) find it: called once the engine gave us the name.
    ///
    /// # Errors
    /// `Unexpected` if the link cannot be made.
    pub fn publish(&self, name: &SandboxName) -> Result<()> {
        let names = self.engine_dir.join("names");
        make_private(&names)?;
        let temporary = names.join(format!(".{}", self.run_id));
        let link = || {
            symlink(Path::new("..").join(&self.run_id), &temporary)?;
            fs::rename(&temporary, names.join(&**name))
        };
        link().map_err(|source| {
            let _gone = fs::remove_file(&temporary);
            Error::unexpected("publish the sandbox's sockets", "the link cannot be made", source)
                .with_context("path", names.join(&**name).display())
        })
    }

    /// Removes the directory, and the link from the name if it still leads here. Never fails: what stays is found again
    /// by [`list`](Self::list).
    pub fn remove(&self, name: &SandboxName) {
        let link = self.engine_dir.join("names").join(&**name);
        if fs::read_link(&link).is_ok_and(|target| target.ends_with(&self.run_id)) {
            let _gone = fs::remove_file(link);
        }
        let _gone = fs::remove_file(self.boot_path());
        let _gone = fs::remove_file(self.control_path());
        let _gone = fs::remove_file(self.key_path());
        let _gone = fs::remove_dir(self.path());
    }

    /// Listens on the boot socket.
    ///
    /// # Errors
    /// `Unexpected` if the socket cannot be made.
    pub fn bind_boot(&self) -> Result<BootSocket> {
        BootSocket::bind(self.boot_path())
    }

    /// Makes the control socket, to be handed to the guest.
    ///
    /// # Errors
    /// `Unexpected` if the socket cannot be made.
    pub fn bind_control(&self) -> Result<ControlSocket> {
        ControlSocket::bind(&self.control_path())
    }

    /// Connects to the guest.
    ///
    /// # Errors
    /// `NotRunning` if nothing listens, `Timeout` if it does not say hello: it may be paused.
    pub async fn connect_control(&self) -> Result<GuestClient> {
        let path = self.control_path();
        let stream = tokio::net::UnixStream::connect(&path).await.map_err(|source| {
            Error::new(ErrorKind::NotRunning, "reach the sandbox", "nothing listens on its control socket")
                .with_source(source)
                .with_context("socket", path.display())
        })?;
        GuestClient::connect(stream).await
    }
}

fn engine_dir(engine: &str) -> Result<PathBuf> {
    let well_formed = (1..=24).contains(&engine.len())
        && engine.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if !well_formed {
        return Err(Error::new(
            ErrorKind::InvalidConfig,
            "find the run directory",
            "the engine's key is malformed",
        ));
    }
    Ok(base()?.join(engine))
}

fn base() -> Result<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    if uid == 0 {
        return Ok(PathBuf::from("/run/agentkernel"));
    }
    let ours = |path: &PathBuf| {
        path.is_absolute()
            && fs::metadata(path).is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == uid)
    };
    let xdg = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(ours);
    let systemd = || Some(PathBuf::from(format!("/run/user/{uid}"))).filter(ours);
    if let Some(runtime) = xdg.or_else(systemd) {
        return Ok(runtime.join("agentkernel"));
    }
    let home = env::var_os("HOME").map(PathBuf::from).filter(ours);
    home.map(|home| home.join(".local/state/agentkernel/run")).ok_or_else(|| {
        Error::new(
            ErrorKind::Unavailable,
            "find the run directory",
            "neither XDG_RUNTIME_DIR nor HOME is a directory of ours",
        )
        .with_hint("set XDG_RUNTIME_DIR to a directory that only you can enter")
    })
}

/// Makes a directory and its parents, 0700, and checks that the last is ours and that only we can write it.
///
/// # Errors
/// `PermissionDenied` if it is not; `Unavailable` if it cannot be made.
pub fn make_private(path: &Path) -> Result<()> {
    let failed = |source: io::Error| {
        let kind = if source.kind() == io::ErrorKind::PermissionDenied {
            ErrorKind::PermissionDenied
        } else {
            ErrorKind::Unavailable
        };
        Error::new(kind, "make a directory", "it cannot be made")
            .with_source(source)
            .with_context("path", path.display())
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    let metadata = fs::symlink_metadata(path).map_err(failed)?;
    let ours = metadata.uid() == rustix::process::geteuid().as_raw();
    if !metadata.is_dir() || !ours || metadata.mode() & 0o022 != 0 {
        return Err(Error::new(
            ErrorKind::PermissionDenied,
            "use a directory",
            "it is not a directory of ours that only we can write",
        )
        .with_context("path", path.display())
        .with_hint(format!("remove it, or run: chmod go-w '{}'", path.display())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_directory_is_found_by_name_until_it_is_removed() {
        let name: SandboxName = "run-dir-test".parse().unwrap();
        let engine = format!("test-{}", std::process::id());
        let dir = RunDir::create(&engine).unwrap();
        assert!(RunDir::find(&engine, &name).unwrap().is_none());
        dir.publish(&name).unwrap();
        assert_eq!(RunDir::find(&engine, &name).unwrap().unwrap().run_id(), dir.run_id());
        dir.remove(&name);
        assert!(RunDir::find(&engine, &name).unwrap().is_none());
        let _gone = fs::remove_dir_all(&dir.engine_dir);
    }

    #[test]
    fn removing_a_directory_leaves_the_link_of_its_successor() {
        let name: SandboxName = "run-dir-next".parse().unwrap();
        let engine = format!("test2-{}", std::process::id());
        let (first, second) = (RunDir::create(&engine).unwrap(), RunDir::create(&engine).unwrap());
        first.publish(&name).unwrap();
        second.publish(&name).unwrap();
        first.remove(&name);
        assert_eq!(RunDir::find(&engine, &name).unwrap().unwrap().run_id(), second.run_id());
        second.remove(&name);
        let _gone = fs::remove_dir_all(&first.engine_dir);
    }

    #[test]
    fn a_directory_that_others_can_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        assert_eq!(make_private(&open).unwrap_err().kind(), ErrorKind::PermissionDenied);
    }
}
