//! A sandbox's own directory, which is all that is kept of it.
//!
//! ```text
//! <data>/sandboxes/<name>/state      labels: name, config without variables and files, owner, deadline
//! <data>/sandboxes/<name>/plan       what the helper makes, as it was planned at creation
//! <data>/sandboxes/<name>/commands   user, directory and variables of commands; 0600
//! <data>/sandboxes/<name>/lock       locked by the helper for as long as the sandbox runs
//! <data>/sandboxes/<name>/exit       how it ended
//! <data>/sandboxes/<name>/changes    what was written over the image
//! ```
//! The directory appears with its name at once and whole, and so only one creator has the name.
use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use agentkernel_core::{Error, ErrorKind, Lifetime, Result, SandboxName, State};
use agentkernel_host::{
    StateLabels,
    setup::{self, Setup},
};
use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    process::{
        Flock, FlockOffsetType, FlockType, Pid, PidfdFlags, Signal, fcntl_getlk, pidfd_open,
        pidfd_send_signal,
    },
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::error;

/// The longest file of ours that is read, in bytes.
const MAX_FILE: u64 = 2 << 20;

/// What commands are given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Commands {
    pub user: Option<String>,
    pub cwd: Option<Vec<u8>>,
    pub env: Vec<Vec<u8>>,
    /// Mask of the capabilities that they keep.
    pub capabilities: u64,
    pub no_new_privileges: bool,
    /// Whether the guest has a user of its own.
    pub own_user: bool,
}

/// A sandbox's directory.
#[derive(Debug, Clone)]
pub(crate) struct StateDir(PathBuf);

/// What a directory says.
#[derive(Debug)]
pub(crate) struct Found {
    pub dir: StateDir,
    pub labels: StateLabels,
}

impl StateDir {
    pub(crate) fn of(data: &Path, name: &SandboxName) -> Self {
        Self(data.join("sandboxes").join(&**name))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Makes the directory of a sandbox; the name is ours once it returns.
    pub(crate) fn make(
        data: &Path,
        labels: &StateLabels,
        plan: &[u8],
        commands: &Commands,
        changes_of: Option<u32>,
    ) -> Result<Self> {
        let dir = Self::of(data, &labels.name);
        let all = data.join("sandboxes");
        agentkernel_host::make_private(&all)?;
        let new = all.join(format!(".new-{}-{}", std::process::id(), labels.run_id));
        let encoded = labels.encode()?;
        let fill = || -> io::Result<()> {
            fs::DirBuilder::new().mode(0o700).create(&new)?;
            let write = |name: &str, content: &[u8]| {
                let mut file =
                    fs::File::options().create_new(true).write(true).mode(0o600).open(new.join(name))?;
                io::Write::write_all(&mut file, content)
            };
            write("state", &serde_json::to_vec(&encoded)?)?;
            write("plan", plan)?;
            write("commands", &serde_json::to_vec(commands)?)?;
            if let Some(owner) = changes_of {
                let changes = new.join("changes");
                for (name, mode) in [("", 0o755), ("upper", 0o755), ("work", 0o700)] {
                    let at = changes.join(name);
                    fs::DirBuilder::new().mode(mode).create(&at)?;
                    std::os::unix::fs::chown(&at, Some(owner), Some(owner))?;
                }
            }
            Ok(())
        };
        let made = fill().map_err(|source| error::file("create sandbox", &new, source)).and_then(|()| {
            renameat_with(CWD, &new, CWD, &dir.0, RenameFlags::NOREPLACE).map_err(|errno| match errno {
                rustix::io::Errno::EXIST => error::about(
                    &labels.name,
                    ErrorKind::AlreadyExists,
                    "create sandbox",
                    "the name is taken",
                )
                .with_hint(format!("choose another name, or remove it: agentkernel remove {}", labels.name)),
                errno => error::file("create sandbox", &dir.0, errno.into()),
            })
        });
        match made {
            Ok(()) => Ok(dir),
            Err(error) => {
                let _gone = fs::remove_dir_all(&new);
                Err(error)
            }
        }
    }

    /// Reads what is there; `None` if nothing is.
    pub(crate) fn read(self) -> Result<Option<Found>> {
        let Some(text) = read(&self.file("state"))? else { return Ok(None) };
        let broken = |source: serde_json::Error| {
            Error::unexpected("read sandbox", "its state cannot be read", source)
                .with_context("path", self.0.display())
        };
        let map: BTreeMap<String, String> = serde_json::from_slice(&text).map_err(broken)?;
        let labels = StateLabels::decode(|key| map.get(key).map(String::as_str)).transpose()?;
        Ok(labels.map(|labels| Found { dir: self, labels }))
    }

    pub(crate) fn plan(&self) -> Result<Vec<u8>> {
        self.must_read("plan")
    }

    /// Reads the plan itself.
    pub(crate) fn setup(&self) -> Result<Setup> {
        Setup::decode(self.plan()?.get(setup::HEADER..).unwrap_or_default())
            .map_err(|source| Error::unexpected("boot sandbox", "its plan cannot be read", source))
    }

    pub(crate) fn commands(&self) -> Result<Commands> {
        let content = self.must_read("commands")?;
        serde_json::from_slice(&content)
            .map_err(|source| Error::unexpected("boot sandbox", "its state cannot be read", source))
    }

    fn must_read(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.file(name);
        read(&path)?.ok_or_else(|| error::file("boot sandbox", &path, io::ErrorKind::NotFound.into()))
    }

    /// The helper's process id, if the sandbox runs. 0 is a helper in another process namespace.
    pub(crate) fn holder(&self) -> Option<i32> {
        let lock = fs::File::open(self.file("lock")).ok()?;
        let asked = Flock {
            start: 0,
            length: 0,
            pid: None,
            typ: FlockType::ReadLock,
            offset_type: FlockOffsetType::Set,
        };
        let found = fcntl_getlk(&lock, &asked).ok().flatten()?;
        Some(found.pid.map_or(0, |pid| pid.as_raw_nonzero().get()))
    }

    pub(crate) fn state(&self) -> State {
        if self.holder().is_some() {
            State::Running
        } else if self.file("lock").exists() {
            State::Stopped
        } else {
            State::Created
        }
    }

    pub(crate) fn exit_code(&self) -> Option<i32> {
        fs::read_to_string(self.file("exit")).ok()?.trim().parse().ok()
    }

    /// Waits until the sandbox has ended and its helper is done.
    pub(crate) async fn is_over(&self, patience: Duration) -> bool {
        let (deadline, mut pause) = (Instant::now() + patience, Duration::from_micros(200));
        while self.holder().is_some() {
            if Instant::now() >= deadline {
                return false;
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(10));
        }
        true
    }

    /// Ends the helper by force, and with it the sandbox.
    pub(crate) fn kill(&self) {
        let Some(pid) = self.holder().and_then(Pid::from_raw) else { return };
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        // Still the holder: then this is the process that was meant.
        if self.holder() == Some(pid.as_raw_nonzero().get()) {
            pidfd_send_signal(&process, Signal::KILL).ok();
        }
    }

    /// Removes the directory: out of sight at once.
    pub(crate) fn remove(&self) -> Result<()> {
        let Some((parent, name)) = self.0.parent().zip(self.0.file_name()) else { return Ok(()) };
        let gone = parent.join(format!(".gone-{}-{}", std::process::id(), name.to_string_lossy()));
        match fs::rename(&self.0, &gone) {
            Ok(()) => remove_tree(&gone).map_err(|source| error::file("remove sandbox", &gone, source)),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(error::file("remove sandbox", &self.0, source)),
        }
    }
}

impl Found {
    pub(crate) fn is_owned(&self) -> bool {
        self.labels.config.lifetime == Lifetime::Owned
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let open = || -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(fs::File::open(path)?, MAX_FILE), &mut content)?;
        Ok(content)
    };
    match open() {
        Ok(content) => Ok(Some(content)),
        Err(source) if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(source) => Err(error::file("read sandbox", path, source)),
    }
}

/// Removes a tree, also where directories were closed from inside: they are ours.
pub(crate) fn remove_tree(at: &Path) -> io::Result<()> {
    match fs::remove_dir_all(at) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(at);
            fs::remove_dir_all(at)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn open_up(at: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if !fs::symlink_metadata(at).is_ok_and(|metadata| metadata.is_dir()) {
        return;
    }
    let _ours = fs::set_permissions(at, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(at).into_iter().flatten().flatten() {
        open_up(&entry.path());
    }
}

/// Returns every sandbox of a data directory, ordered by name; what cannot be read is left out.
pub(crate) fn list(data: &Path) -> Vec<Found> {
    let entries = fs::read_dir(data.join("sandboxes")).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<SandboxName>().ok());
    let mut found = names
        .filter_map(|name| match StateDir::of(data, &name).read() {
            Ok(found) => found.filter(|found| found.labels.name == name),
            Err(error) => {
                tracing::debug!(%error, %name, "a sandbox cannot be read");
                None
            }
        })
        .collect::<Vec<_>>();
    found.sort_by(|a, b| a.labels.name.cmp(&b.labels.name));
    found
}
