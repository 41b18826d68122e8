//! Snapshots: a sandbox's file system, exported and loaded as an image, with what it was configured with in the labels.
use std::time::SystemTime;

use agentkernel_core::{Capability, Error, ErrorKind, ImageRef, Owner, Result, SandboxConfig, SandboxName};
use agentkernel_host::StateLabels;
use serde_json::json;

use super::{find, layout, load, whole_name};
use crate::{
    argv,
    backend::Shared,
    error,
    info::Found,
    json::{Defaults, Image},
    unsupported::unsupported,
};

pub(crate) const COMMIT: &str = "keep sandbox as image";

/// Exports a sandbox's file system, which stands still meanwhile, and loads it. Mounts, volumes and tmpfs are no part of
/// it.
pub(crate) async fn commit(shared: &Shared, sandbox: &SandboxName, name: &ImageRef) -> Result<()> {
    let about = |error: Error| error.with_context("sandbox", sandbox).with_context("image", name);
    if !shared.health().await?.capabilities.has(Capability::Snapshot) {
        return unsupported(COMMIT, Capability::Snapshot).map_err(about);
    }
    let Some(found) = shared.find(COMMIT, sandbox).await.map_err(about)? else {
        return Err(about(Error::new(ErrorKind::NotFound, COMMIT, "there is no such sandbox"))
            .with_context("backend", "apple")
            .with_hint("see `agentkernel list`"));
    };
    // `load` would move the name.
    if find(shared, name).await?.is_some() {
        return Err(about(Error::new(ErrorKind::AlreadyExists, COMMIT, "an image has the name"))
            .with_context("backend", "apple")
            .with_hint("choose another name, or remove that image first"));
    }
    let base = match found.container.configuration.image.reference.parse() {
        Ok(base) => find(shared, &base).await?,
        Err(_) => None,
    };
    let (spool, layer) = load::blocking(|| {
        let spool = tempfile::tempfile()?;
        Ok((spool.try_clone()?, spool))
    })
    .await?
    .map_err(load::no_room)?;
    let line = argv::export(&found.container.id);
    let patience = shared.config.transfer_timeout;
    let answer = shared.program.run_with(COMMIT, &line, patience, None, Some(spool)).await.map_err(about)?;
    if answer.code != Some(0) {
        return Err(about(error::failed(COMMIT, answer.code, &answer.stderr)));
    }
    let config = image_config(&found, base.as_ref());
    let whole = whole_name(name);
    let made = load::blocking(move || {
        layout::from_root(layer, &whole, argv::host_arch(), &config, SystemTime::now())
    });
    load::load_layout(shared, made.await?.map_err(about)?, name).await.map_err(about)
}

/// What commands in the image get, as OCI has it: the variables that the sandbox had, and the rest as the image that it
/// was made of.
fn image_config(found: &Found, base: Option<&Image>) -> serde_json::Value {
    let defaults = base
        .and_then(|base| base.variant(argv::host_arch()))
        .and_then(|variant| variant.config.config.clone())
        .unwrap_or_default();
    let Defaults { user, working_dir, .. } = defaults;
    let some = |text: Option<String>| text.filter(|text| !text.is_empty());
    let labels = &found.container.configuration.labels;
    let ours = labels.iter().filter(|(name, _)| {
        [StateLabels::VERSION_LABEL, StateLabels::NAME_LABEL, StateLabels::STATE_LABEL]
            .contains(&name.as_str())
    });
    json!({
        "Env": found.container.configuration.init_process.environment,
        "User": some(user).unwrap_or_else(|| "0:0".to_owned()),
        "WorkingDir": some(working_dir).unwrap_or_else(|| "/".to_owned()),
        "Labels": ours.collect::<std::collections::BTreeMap<_, _>>(),
    })
}

/// Returns the config of the sandbox that an image was kept from. Only of one that was kept on this machine: labels of an
/// image from elsewhere could name any directory to be mounted.
pub(crate) fn config(image: &Image, name: &ImageRef, here: &Owner) -> Option<SandboxConfig> {
    let labels = image.variant(argv::host_arch())?.config.config.as_ref()?.labels.as_ref()?;
    let state = StateLabels::decode(|label| labels.get(label).map(String::as_str))?.ok()?;
    let ours = state.owner.is_some_and(|owner| owner.host_id == here.host_id && owner.uid == here.uid);
    (ours && name.is_local()).then_some(state.config)
}
