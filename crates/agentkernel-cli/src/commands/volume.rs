//! `volume`: what there is of volumes, and removing them.
use agentkernel_core::{Error, ErrorKind, Result, VolumeName};

use super::{Outcome, each};
use crate::{
    args::{VolumeVerb, VolumesArgs},
    context::Context,
    output::View,
};

pub(crate) async fn volume(context: &Context, verb: &VolumeVerb) -> Result<Outcome> {
    match verb {
        VolumeVerb::List(args) => {
            let volumes = list(context).await?;
            let view = if args.quiet {
                View::Names(volumes.into_iter().map(|(_, name)| name.to_string()).collect())
            } else {
                View::Volumes(volumes)
            };
            Ok(Outcome::Show(view, false))
        }
        VolumeVerb::Remove(VolumesArgs { volumes }) => {
            Ok(each(context, volumes, async |name| remove(context, name).await).await)
        }
    }
}

async fn list(context: &Context) -> Result<Vec<(agentkernel_core::BackendType, VolumeName)>> {
    context
        .ask_all(|backend| async move {
            let volumes = match backend.volumes() {
                Some(volumes) => volumes.list().await?,
                None => Vec::new(),
            };
            Ok(volumes.into_iter().map(|volume| (backend.backend_type(), volume.name)).collect())
        })
        .await
}

async fn remove(context: &Context, name: &VolumeName) -> Result<()> {
    let found = list(context).await?.into_iter().filter(|(_, found)| found == name).collect::<Vec<_>>();
    let backend = match found.as_slice() {
        [(backend, _)] => context.registry.connect(*backend).await?,
        [] => {
            return Err(Error::new(ErrorKind::NotFound, "remove volume", "there is no such volume")
                .with_context("name", name)
                .with_hint("see `agentkernel volume list`"));
        }
        [(first, _), ..] => {
            let message = "several backends have a volume of this name";
            return Err(Error::new(ErrorKind::Conflict, "remove volume", message)
                .with_context("name", name)
                .with_hint(format!("say which: `--backend {first}`")));
        }
    };
    match backend.volumes() {
        Some(volumes) => volumes.remove(name).await,
        None => Ok(()),
    }
}
