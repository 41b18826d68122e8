//! `image`: what there is of images, fetching, making and removing them.
use std::{path::Path, sync::Arc};

use agentkernel_core::{Backend, Error, ErrorKind, ImageRef, ImageStore, Result};
use tokio::io::AsyncRead;

use super::{Outcome, each};
use crate::{
    args::{ImageImportArgs, ImageVerb},
    context::Context,
    output::View,
};

pub(crate) async fn image(context: &Context, verb: &ImageVerb) -> Result<Outcome> {
    match verb {
        ImageVerb::List(args) => list(context, args.quiet).await,
        ImageVerb::Pull(args) => {
            let backend = one(context).await?;
            Ok(each(context, &args.images, async |image| pull(&*backend, image).await).await)
        }
        ImageVerb::Import(args) => import(context, args).await,
        ImageVerb::Remove(args) => {
            let backend = one(context).await?;
            Ok(each(context, &args.images, async |image| store(&*backend)?.remove(image).await).await)
        }
        ImageVerb::Prune => {
            let backend = one(context).await?;
            Ok(Outcome::Show(View::Pruned(store(&*backend)?.prune().await?), false))
        }
    }
}

async fn list(context: &Context, quiet: bool) -> Result<Outcome> {
    let (images, is_failed) = context
        .ask_each(|backend| async move {
            let images = match backend.images() {
                Some(images) => images.list().await?,
                None => Vec::new(),
            };
            Ok(images.into_iter().map(|image| (backend.backend_type(), image)).collect())
        })
        .await?;
    let view = if quiet {
        View::Names(images.into_iter().map(|(_, image)| image.name).collect())
    } else {
        View::Images(images)
    };
    Ok(Outcome::Show(view, is_failed))
}

async fn pull(backend: &dyn Backend, image: &ImageRef) -> Result<()> {
    if image.is_local() {
        return Err(Error::new(ErrorKind::InvalidConfig, "pull image", "a local name is never pulled")
            .with_context("image", image)
            .with_hint("it is made here: by `agentkernel image import` or `agentkernel snapshot take`"));
    }
    super::create::pull(store(backend)?, image).await
}

async fn import(context: &Context, args: &ImageImportArgs) -> Result<Outcome> {
    let backend = one(context).await?;
    let mut archive = open(&args.archive).await?;
    let made = store(&*backend)?.import(&mut archive, &args.image).await?;
    Ok(Outcome::Show(View::Names(vec![made.name]), false))
}

async fn open(archive: &Path) -> Result<Box<dyn AsyncRead + Send + Unpin>> {
    if archive == Path::new("-") {
        return Ok(Box::new(tokio::io::stdin()));
    }
    let refused = |source: std::io::Error| {
        Error::new(ErrorKind::InvalidConfig, "import image", "the archive cannot be read")
            .with_context("file", archive.display())
            .with_source(source)
    };
    let file = tokio::fs::File::open(archive).await.map_err(refused)?;
    if file.metadata().await.map_err(refused)?.is_dir() {
        return Err(Error::new(
            ErrorKind::InvalidConfig,
            "import image",
            "it is a directory, not an archive",
        )
        .with_context("file", archive.display())
        .with_hint(format!("tar -C {0} -c . | agentkernel image import - NAME", archive.display())));
    }
    Ok(Box::new(file))
}

/// The backend whose images are meant: the caller's choice, else the first that is there and has images.
async fn one(context: &Context) -> Result<Arc<dyn Backend>> {
    let mut absent = None;
    for backend in context.backend_types() {
        match context.registry.connect(backend).await {
            Ok(backend) if backend.images().is_some() => return Ok(backend),
            Ok(backend) => absent = absent.or(store(&*backend).err()),
            Err(error) => absent = absent.or(Some(error)),
        }
    }
    Err(absent.unwrap_or_else(|| Error::new(ErrorKind::Unavailable, "keep images", "there is no backend")))
}

/// What a backend keeps images in.
pub(super) fn store(backend: &dyn Backend) -> Result<&dyn ImageStore> {
    backend.images().ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, "keep images", "this backend has no images")
            .with_context("backend", backend.backend_type())
            .with_hint("choose another backend: see `agentkernel backends`")
    })
}
