//! `snapshot`: the files of sandboxes kept as images of this machine, with the config that they had.
use agentkernel_core::{
    Backend, BackendType, Error, ErrorKind, ImageInfo, ImageRef, Lifetime, Result, SandboxExt, SandboxName,
};

use super::{Outcome, each, image::store};
use crate::{
    args::{SnapshotRestoreArgs, SnapshotTakeArgs, SnapshotVerb},
    context::{self, Context},
    output::{Snapshot, View},
};

/// What the image of a snapshot is called, before the snapshot's name.
const PREFIX: &str = "agentkernel-snap:";

pub(crate) async fn snapshot(context: &Context, verb: &SnapshotVerb) -> Result<Outcome> {
    match verb {
        SnapshotVerb::Take(args) => take(context, args).await,
        SnapshotVerb::List(args) => {
            let snapshots = list(context).await?;
            let view = if args.quiet {
                View::Names(snapshots.into_iter().map(|one| one.name.to_string()).collect())
            } else {
                View::Snapshots(snapshots)
            };
            Ok(Outcome::Show(view, false))
        }
        SnapshotVerb::Restore(args) => restore(context, args).await,
        SnapshotVerb::Remove(args) => Ok(each(context, &args.snapshots, async |name| {
            let backend = having(context, name).await?;
            store(&*backend)?.remove(&image(name)?).await
        })
        .await),
    }
}

async fn take(context: &Context, args: &SnapshotTakeArgs) -> Result<Outcome> {
    let backend = context.sandbox(&args.name).await?.backend_type();
    let backend = context.registry.connect(backend).await?;
    let snapshot = args.snapshot.as_ref().unwrap_or(&args.name);
    let taken = store(&*backend)?.commit(&args.name, &image(snapshot)?).await;
    taken.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => error.with_hint(format!(
            "name it otherwise: `agentkernel snapshot take {} NAME`, or `agentkernel snapshot remove {snapshot}`",
            args.name
        )),
        _ => error,
    })?;
    Ok(Outcome::Show(View::Names(vec![snapshot.to_string()]), false))
}

async fn restore(context: &Context, args: &SnapshotRestoreArgs) -> Result<Outcome> {
    let name = args.name.as_ref().unwrap_or(&args.snapshot);
    let backend = having(context, &args.snapshot).await?;
    let image = image(&args.snapshot)?;
    let found = store(&*backend)?.inspect(&image).await?.ok_or_else(|| not_found(&args.snapshot))?;
    let Some(config) = found.config else {
        let message = "nothing is known of the sandbox that it was taken of";
        return Err(Error::new(ErrorKind::NotFound, "restore snapshot", message)
            .with_context("snapshot", &args.snapshot)
            .with_hint(format!(
                "make a sandbox of its files alone: `agentkernel create {name} --image {image}`"
            )));
    };
    let mut config = *config;
    config.image = Some(image.to_string());
    config.lifetime = Lifetime::Detached;
    // Its deadline was the other sandbox's.
    config.time_to_live = None;
    let sandbox = backend.sandbox(name.clone());
    context::reap(backend);
    sandbox.start(&config).await?;
    Ok(Outcome::Show(View::Names(vec![name.to_string()]), false))
}

async fn list(context: &Context) -> Result<Vec<Snapshot>> {
    context
        .ask_all(|backend| async move {
            let images = match backend.images() {
                Some(images) => images.list().await?,
                None => Vec::new(),
            };
            let of = |image: ImageInfo| {
                let name = image.name.strip_prefix(PREFIX)?.parse::<SandboxName>().ok()?;
                Some(Snapshot { name, backend: backend.backend_type(), image })
            };
            Ok(images.into_iter().filter_map(of).collect())
        })
        .await
}

/// Finds the one backend that has a snapshot.
async fn having(context: &Context, name: &SandboxName) -> Result<std::sync::Arc<dyn Backend>> {
    let found = list(context).await?.into_iter().filter(|snapshot| snapshot.name == *name);
    let found = found.map(|snapshot| snapshot.backend).collect::<Vec<BackendType>>();
    match found.as_slice() {
        [backend] => context.registry.connect(*backend).await,
        [] => Err(not_found(name)),
        [first, ..] => {
            let message = "several backends have a snapshot of this name";
            Err(Error::new(ErrorKind::Conflict, "find snapshot", message)
                .with_context("snapshot", name)
                .with_hint(format!("say which: `--backend {first}`")))
        }
    }
}

fn not_found(name: &SandboxName) -> Error {
    Error::new(ErrorKind::NotFound, "find snapshot", "there is no such snapshot on this machine")
        .with_context("snapshot", name)
        .with_hint("see `agentkernel snapshot list`")
}

fn image(snapshot: &SandboxName) -> Result<ImageRef> {
    format!("{PREFIX}{snapshot}").parse()
}
