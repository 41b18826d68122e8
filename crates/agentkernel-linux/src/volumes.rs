//! Named volumes: directories of ours.
use std::{
    fs,
    os::unix::fs::{DirBuilderExt, chown},
    path::PathBuf,
};

use agentkernel_core::{Result, VolumeInfo, VolumeName, VolumeStore, async_trait};

use crate::{error, host_image::Place, state::remove_tree};

/// The volumes of a data directory.
#[derive(Debug)]
pub(crate) struct LinuxVolumes {
    directory: PathBuf,
    /// Who owns what is made.
    owner: u32,
}

impl LinuxVolumes {
    pub(crate) fn new(directory: PathBuf, owner: u32) -> Self {
        Self { directory, owner }
    }

    /// Makes a volume unless there is one.
    pub(crate) fn ensure(&self, name: &VolumeName) -> Result<Place> {
        agentkernel_host::make_private(&self.directory)?;
        let path = self.directory.join(name.as_str());
        let make = || match fs::DirBuilder::new().mode(0o755).create(&path) {
            Ok(()) => chown(&path, Some(self.owner), Some(self.owner)),
            Err(failure) if failure.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            Err(failure) => Err(failure),
        };
        make().and_then(|()| Place::find(&path)).map_err(|source| error::file("make volume", &path, source))
    }
}

#[async_trait]
impl VolumeStore for LinuxVolumes {
    async fn list(&self) -> Result<Vec<VolumeInfo>> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let mut names =
            entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect::<Vec<VolumeName>>();
        names.sort_unstable();
        Ok(names.into_iter().map(VolumeInfo::new).collect())
    }

    async fn remove(&self, name: &VolumeName) -> Result<()> {
        let path = self.directory.join(name.as_str());
        let missing = || {
            agentkernel_core::Error::new(
                agentkernel_core::ErrorKind::NotFound,
                "remove volume",
                "there is no such volume",
            )
        };
        if !path.exists() {
            return Err(missing().with_context("volume", name.as_str()));
        }
        remove_tree(&path).map_err(|source| error::file("remove volume", &path, source))
    }
}
