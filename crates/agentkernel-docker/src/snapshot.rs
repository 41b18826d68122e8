//! Snapshots: a sandbox's file system as an image, and what it was configured with in the image's labels.
use std::collections::HashMap;

use agentkernel_core::{Error, ErrorKind, ImageInfo, ImageRef, Owner, Result, SandboxConfig, SandboxName};
use agentkernel_host::StateLabels;
use bollard::{models::ContainerConfig, query_parameters::CommitContainerOptions};

use crate::{
    engine::Engine,
    images::{DockerImages, check_new_name},
    info,
};

const COMMIT: &str = "keep sandbox as image";

/// Commits a sandbox's container. Commands stand still meanwhile, so that files are of one moment; mounts, volumes and
/// tmpfs are no part of it.
pub(crate) async fn commit(
    images: &DockerImages,
    sandbox: &SandboxName,
    name: &ImageRef,
) -> Result<ImageInfo> {
    let engine = images.engine();
    let about = |error: Error| error.with_context("sandbox", sandbox).with_context("image", name);
    check_new_name(COMMIT, name).map_err(|error| error.with_context("sandbox", sandbox))?;
    let inspect = engine.inspect_name(sandbox).await.map_err(about)?;
    let Some(found) = inspect.map(info::read).transpose()?.flatten() else {
        return Err(about(Error::new(ErrorKind::NotFound, COMMIT, "there is no such sandbox"))
            .with_hint("see `agentkernel list`"));
    };
    // The engine would move the name, and leave the image that had it without one.
    if images.defaults_of(name).await?.is_some() {
        return Err(about(Error::new(ErrorKind::AlreadyExists, COMMIT, "an image has the name"))
            .with_hint("choose another name, or remove that image first"));
    }
    let image = images.defaults(found.inspect.image.as_deref().unwrap_or_default()).await?;
    let options = CommitContainerOptions {
        container: Some(found.id.as_str().to_owned()),
        repo: Some(name.name().to_owned()),
        tag: Some(name.tag().unwrap_or("latest").to_owned()),
        pause: true,
        ..Default::default()
    };
    // Of what is ours nothing stays but the labels: the guest is mounted into each sandbox anew.
    let config = ContainerConfig {
        user: Some(image.user.unwrap_or_else(|| "0:0".to_owned())),
        working_dir: Some(image.cwd.unwrap_or_else(|| "/".to_owned())),
        entrypoint: Some(Vec::new()),
        ..ContainerConfig::default()
    };
    take(engine, options, config).await.map_err(about)?;
    images.present(name).await
}

async fn take(engine: &Engine, options: CommitContainerOptions, config: ContainerConfig) -> Result<()> {
    let call = engine.docker().commit_container(options, config);
    engine.within(engine.config().transfer_timeout, COMMIT, call).await.map(drop)
}

/// Returns the config of the sandbox that an image was kept from. Only of one that was kept on this machine: labels
/// of an image from elsewhere could name any directory to be mounted.
pub(crate) fn config(
    labels: Option<&HashMap<String, String>>,
    name: &ImageRef,
    here: &Owner,
) -> Option<SandboxConfig> {
    let state = StateLabels::decode(|label| labels?.get(label).map(String::as_str))?.ok()?;
    let ours = state.owner.is_some_and(|owner| owner.host_id == here.host_id && owner.uid == here.uid);
    (ours && name.is_local()).then_some(state.config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_image_kept_here_brings_a_config() {
        let owner = Owner::new("here", "boot", 1, 2, 3, 0);
        let labels = StateLabels {
            name: "work".parse().unwrap(),
            run_id: "0123456789abcdef".to_owned(),
            config: SandboxConfig::default(),
            owner: Some(owner.clone()),
            created: 0,
            deadline: None,
        };
        let labels = labels.encode().unwrap().into_iter().collect::<HashMap<_, _>>();
        let (local, foreign) = ("agentkernel-snap:a".parse().unwrap(), "example/a:b".parse().unwrap());
        assert!(config(Some(&labels), &local, &owner).is_some());
        assert!(config(Some(&labels), &foreign, &owner).is_none());
        assert!(config(Some(&labels), &local, &Owner::new("there", "boot", 1, 2, 3, 0)).is_none());
        assert!(config(Some(&labels), &local, &Owner::new("here", "boot", 1, 2, 3, 1000)).is_none());
        assert!(config(None, &local, &owner).is_none());
    }
}
