//! Named volumes. Ours are known by their label, and a foreign one of that name is left alone.
use std::collections::HashMap;

use agentkernel_core::{Error, ErrorKind, Result, VolumeInfo, VolumeName, VolumeStore, async_trait};
use bollard::{
    models::VolumeCreateRequest,
    query_parameters::{ListVolumesOptions, RemoveVolumeOptions},
};

use crate::{
    engine::{Engine, PREFIX, absent_is_none},
    error,
};

/// Holds the volume's name.
const LABEL: &str = "agentkernel.volume";

/// The volumes of an engine.
#[derive(Debug, Clone)]
pub(crate) struct DockerVolumes {
    engine: Engine,
}

/// Returns the labels of a volume of ours.
pub(crate) fn labels(name: &VolumeName) -> HashMap<String, String> {
    HashMap::from([(LABEL.to_owned(), name.to_string())])
}

impl DockerVolumes {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine }
    }

    /// Returns whether there is such a volume of ours.
    async fn find(&self, name: &VolumeName) -> Result<bool> {
        let full = format!("{PREFIX}{name}");
        let call = self.engine.docker().inspect_volume(&full);
        let Some(found) = absent_is_none(self.engine.ask("inspect volume", call).await)? else {
            return Ok(false);
        };
        if found.labels.get(LABEL).is_some_and(|label| label == name.as_str()) {
            return Ok(true);
        }
        Err(Error::new(ErrorKind::Conflict, "use volume", "a volume that is not ours has its name")
            .with_context("volume", full)
            .with_hint("choose another name"))
    }

    /// Makes a volume unless there is one.
    ///
    /// # Errors
    /// `Conflict` if one that is not ours has the name.
    pub(crate) async fn ensure(&self, name: &VolumeName) -> Result<()> {
        if self.find(name).await? {
            return Ok(());
        }
        let request = VolumeCreateRequest {
            name: Some(format!("{PREFIX}{name}")),
            labels: Some(labels(name)),
            ..Default::default()
        };
        self.engine.order("make volume", self.engine.docker().create_volume(request)).await?;
        // Whoever made one of this name meanwhile was answered with the same success.
        self.find(name).await.map(drop)
    }
}

#[async_trait]
impl VolumeStore for DockerVolumes {
    async fn list(&self) -> Result<Vec<VolumeInfo>> {
        let filters = Some(HashMap::from([("label".to_owned(), vec![LABEL.to_owned()])]));
        let call = self.engine.docker().list_volumes(Some(ListVolumesOptions { filters }));
        let volumes = self.engine.ask("list volumes", call).await?.volumes.unwrap_or_default();
        let mut ours = volumes
            .iter()
            .filter_map(|volume| {
                let name = volume.labels.get(LABEL)?.parse::<VolumeName>().ok()?;
                (volume.name == format!("{PREFIX}{name}")).then(|| VolumeInfo::new(name))
            })
            .collect::<Vec<_>>();
        ours.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(ours)
    }

    async fn remove(&self, name: &VolumeName) -> Result<()> {
        if !self.find(name).await? {
            return Err(Error::new(ErrorKind::NotFound, "remove volume", "there is no such volume")
                .with_context("volume", name)
                .with_hint("see `agentkernel list`"));
        }
        let full = format!("{PREFIX}{name}");
        let call = self.engine.docker().remove_volume(&full, None::<RemoveVolumeOptions>);
        match absent_is_none(self.engine.order("remove volume", call).await) {
            Ok(_) => Ok(()),
            Err(failure) if error::status(&failure) == Some(409) => {
                Err(failure.with_context("volume", name).with_hint("remove the sandboxes that use it first"))
            }
            Err(failure) => Err(failure.with_context("volume", name)),
        }
    }
}
