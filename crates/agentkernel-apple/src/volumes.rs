//! Named volumes. Ours are known by their label, and a foreign one of that name is left alone.
//!
//! Each is a disk of its own, and only one machine at a time can have it.
use std::sync::Arc;

use agentkernel_core::{Error, ErrorKind, Result, VolumeInfo, VolumeName, VolumeStore, async_trait};

use crate::{
    argv,
    backend::Shared,
    error,
    json::{self, Volume},
    mounts::volume_name,
};

/// The volumes of `container`.
#[derive(Debug)]
pub(crate) struct AppleVolumes {
    pub shared: Arc<Shared>,
}

async fn all(shared: &Shared, operation: &'static str) -> Result<Vec<Volume>> {
    let answer = shared.ask_again(operation, &argv::volume_list()).await?;
    match answer.code {
        Some(0) => json::volumes(operation, &answer.stdout),
        code => Err(error::failed(operation, code, &answer.stderr)),
    }
}

fn our_name(volume: &Volume) -> Option<VolumeName> {
    let name = volume.labels.get(argv::VOLUME_LABEL)?.parse().ok()?;
    (volume.name == volume_name(&name)).then_some(name)
}

/// Returns whether there is such a volume of ours.
async fn find(shared: &Shared, name: &VolumeName) -> Result<bool> {
    let full = volume_name(name);
    let found = all(shared, "use volume").await?.into_iter().find(|volume| volume.name == full);
    match found {
        None => Ok(false),
        Some(found) if our_name(&found).as_ref() == Some(name) => Ok(true),
        Some(_) => {
            Err(Error::new(ErrorKind::Conflict, "use volume", "a volume that is not ours has its name")
                .with_context("backend", "apple")
                .with_context("volume", full)
                .with_hint("choose another name"))
        }
    }
}

/// Makes a volume unless there is one.
///
/// # Errors
/// `Conflict` if one that is not ours has the name.
pub(crate) async fn ensure(shared: &Shared, name: &VolumeName) -> Result<()> {
    if find(shared, name).await? {
        return Ok(());
    }
    let made =
        shared.program.ask("make volume", &argv::volume_create(name), shared.config.request_timeout).await;
    match made {
        // Somebody may have made one of this name meanwhile.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => find(shared, name).await.map(drop),
        other => other.map(drop).map_err(|error| error.with_context("volume", name)),
    }
}

#[async_trait]
impl VolumeStore for AppleVolumes {
    async fn list(&self) -> Result<Vec<VolumeInfo>> {
        self.shared.health().await?;
        let mut ours = all(&self.shared, "list volumes").await?;
        ours.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(ours.iter().filter_map(our_name).map(VolumeInfo::new).collect())
    }

    async fn remove(&self, name: &VolumeName) -> Result<()> {
        let operation = "remove volume";
        self.shared.health().await?;
        if !find(&self.shared, name).await? {
            return Err(Error::new(ErrorKind::NotFound, operation, "there is no such volume")
                .with_context("backend", "apple")
                .with_context("volume", name)
                .with_hint("see `container volume list`"));
        }
        let line = argv::volume_delete(name);
        let answer = self.shared.program.run(operation, &line, self.shared.config.request_timeout).await?;
        if answer.code == Some(0) {
            return Ok(());
        }
        let failure = error::failed(operation, answer.code, &answer.stderr).with_context("volume", name);
        match failure.kind() {
            // Its words for a volume in use and for one that is gone are the same.
            ErrorKind::Unexpected | ErrorKind::NotFound => match find(&self.shared, name).await? {
                false => Ok(()),
                true => Err(Error::new(ErrorKind::Conflict, operation, "a sandbox uses it")
                    .with_context("backend", "apple")
                    .with_context("volume", name)
                    .with_hint("remove the sandboxes that use it first")
                    .with_source(failure)),
            },
            _ => Err(failure),
        }
    }
}
