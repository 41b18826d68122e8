//! The guest's program on an engine elsewhere: in a volume named by its digest, filled once, mounted read-only.
//!
//! It is filled through a container that mounts it and never starts. That container's name is the lock, and it is a
//! sandbox by its labels, with an owner and a deadline, so that reaping removes what a dead process left. The last file of
//! the archive says that the volume is whole.
use std::{
    collections::HashMap,
    fs, io,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use agentkernel_core::{Error, ErrorKind, Liveness, Owner, Result, SandboxConfig, SandboxName};
use agentkernel_host::{GUEST_BIN_DIR, GuestProgram, StateLabels, liveness};
use bollard::models::{
    ContainerCreateBody, HostConfig, Mount, MountType, MountVolumeOptions, Volume, VolumeCreateRequest,
};
use bytes::Bytes;
use tokio::time::{Instant, sleep};

use crate::{
    backend::MAX_PAUSE,
    engine::{Engine, absent_is_none, container_name},
    error,
    id::ContainerId,
    info,
};

/// Holds the digest of what is in the volume.
const LABEL: &str = "agentkernel.guest";
/// The file that comes last.
const COMPLETE: &str = "complete";
/// How long a filling may take, for those who wait and for reaping.
const DEADLINE: Duration = Duration::from_secs(150);

/// A volume with the guest's program.
#[derive(Debug, Clone)]
pub(crate) struct GuestVolume {
    name: String,
    digest: String,
}

impl GuestVolume {
    /// Names the volume of a program: its directory is named by its digest. The `_` keeps it apart from every volume and
    /// container that a caller can name.
    pub(crate) fn of(program: &GuestProgram) -> Result<Self> {
        let digest = program.directory.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match digest.get(..12).filter(|_| digest.bytes().all(|byte| byte.is_ascii_hexdigit())) {
            Some(short) => Ok(Self { name: format!("agentkernel_guest_{short}"), digest: digest.to_owned() }),
            None => Err(Error::unexpected(
                "put the guest there",
                "its directory is not named by a digest",
                digest.to_owned(),
            )),
        }
    }

    /// The mount; nothing of an image's is copied into an empty volume.
    pub(crate) fn mount(&self, read_only: bool) -> Mount {
        Mount {
            typ: Some(MountType::VOLUME),
            source: Some(self.name.clone()),
            target: Some(GUEST_BIN_DIR.to_owned()),
            read_only: Some(read_only),
            volume_options: Some(MountVolumeOptions {
                no_copy: Some(true),
                labels: Some(self.labels()),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// Makes the volume before the container that mounts it, for Podman, which keeps no labels of a mount's.
    pub(crate) async fn make(&self, engine: &Engine) -> Result<()> {
        let request = VolumeCreateRequest {
            name: Some(self.name.clone()),
            labels: Some(self.labels()),
            ..Default::default()
        };
        let made = engine.order("put the guest there", engine.docker().create_volume(request)).await;
        match made {
            Ok(_) => Ok(()),
            // Whose one that was there is, `fill` finds out.
            Err(failure) => match absent_is_none(self.inspect(engine).await)? {
                Some(_) => Ok(()),
                None => Err(failure),
            },
        }
    }

    async fn inspect(&self, engine: &Engine) -> Result<Volume> {
        engine.ask("put the guest there", engine.docker().inspect_volume(&self.name)).await
    }

    fn labels(&self) -> HashMap<String, String> {
        HashMap::from([(LABEL.to_owned(), self.digest.clone())])
    }

    /// Makes sure that the volume, which a container that was just made of `image` mounts, is ours and whole.
    pub(crate) async fn fill(
        &self,
        engine: &Engine,
        program: &GuestProgram,
        mounts_it: &ContainerId,
        image: &str,
        owner: Owner,
    ) -> Result<()> {
        let found = self.inspect(engine).await?;
        if found.labels.get(LABEL) != Some(&self.digest) {
            return Err(Error::new(
                ErrorKind::Conflict,
                "put the guest there",
                "a volume that is not ours has the name of the guest's",
            )
            .with_context("volume", &self.name)
            .with_hint(format!("remove it: {} volume rm {}", engine.kind().command(), self.name)));
        }
        let until = Instant::now() + DEADLINE;
        while !self.is_whole(engine, program, mounts_it).await? {
            if Instant::now() >= until {
                return Err(
                    error::timed_out("put the guest there", engine.kind()).with_context("volume", &self.name)
                );
            }
            self.try_fill(engine, program, image, owner.clone()).await?;
        }
        Ok(())
    }

    async fn is_whole(&self, engine: &Engine, program: &GuestProgram, id: &ContainerId) -> Result<bool> {
        let ours = fs::metadata(program.directory.join("guest"))?.len();
        for (file, length) in [(COMPLETE, self.digest.len() as u64), ("guest", ours)] {
            let path = format!("{GUEST_BIN_DIR}/{file}");
            let stat = absent_is_none(engine.stat_path(id, &path).await)?;
            let fits = |size: i64| u64::try_from(size) == Ok(length);
            if !stat.is_some_and(|stat| stat.file_mode >> 9 == 0 && fits(stat.size)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Fills the volume, or waits a little if somebody else does.
    async fn try_fill(
        &self,
        engine: &Engine,
        program: &GuestProgram,
        image: &str,
        owner: Owner,
    ) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let name = format!("guest-{}", &self.digest[..12]).parse::<SandboxName>()?;
        let labels = StateLabels {
            name: name.clone(),
            run_id: self.digest[..16].to_owned(),
            config: SandboxConfig::default(),
            owner: Some(owner),
            created: now,
            deadline: Some(now + DEADLINE.as_secs()),
        };
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            entrypoint: Some(program.argv.clone()),
            labels: Some(labels.encode()?.into_iter().collect()),
            network_disabled: Some(true),
            host_config: Some(HostConfig {
                mounts: Some(vec![self.mount(false)]),
                network_mode: Some("none".to_owned()),
                ..Default::default()
            }),
            ..Default::default()
        };
        let id = match engine.create_named(&container_name(&name), body).await {
            Ok(made) => ContainerId::read(&made.id)?,
            Err(taken) if error::status(&taken) == Some(409) => {
                return self.wait_for(engine, &name, taken).await;
            }
            Err(failure) => return Err(failure),
        };
        let filled = async {
            // Who had the lock before may have done it.
            if self.is_whole(engine, program, &id).await? {
                return Ok(());
            }
            let (directory, digest) = (program.directory.clone(), self.digest.clone());
            let packed = tokio::task::spawn_blocking(move || pack(&directory, &digest)).await;
            let packed = packed
                .map_err(|source| Error::unexpected("put the guest there", "the runtime ends", source))?;
            engine.upload(&id, GUEST_BIN_DIR, packed?).await
        };
        let filled = filled.await;
        let removed = engine.remove(&id).await;
        filled.and(removed)
    }

    /// Somebody fills it. One that is dead, or late, is removed.
    async fn wait_for(&self, engine: &Engine, name: &SandboxName, taken: Error) -> Result<()> {
        let Some(inspect) = engine.inspect_name(name).await? else { return Ok(()) };
        let Some(found) = info::read(inspect)? else {
            return Err(taken.with_hint("a container that is not ours has this name: remove it"));
        };
        let labels = &found.labels;
        match liveness(labels.config.lifetime, labels.owner.as_ref(), labels.deadline) {
            Liveness::Dead | Liveness::Expired => engine.remove(&found.id).await,
            _ => {
                sleep(MAX_PAUSE).await;
                Ok(())
            }
        }
    }
}

/// Packs the program, and what it needs, with the file that says that all is there at the end.
fn pack(directory: &std::path::Path, digest: &str) -> io::Result<Bytes> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        if entry.file_type()?.is_file() {
            let content = fs::read(entry.path())?;
            append(&mut archive, std::path::Path::new(&entry.file_name()), 0o555, &content)?;
        }
    }
    append(&mut archive, COMPLETE.as_ref(), 0o444, digest.as_bytes())?;
    archive.into_inner().map(Bytes::from)
}

fn append(
    archive: &mut tar::Builder<Vec<u8>>,
    name: &std::path::Path,
    mode: u32,
    content: &[u8],
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    archive.append_data(&mut header, name, content)
}
