//! Loading an image from an archive: it is kept in a file that has no name, made an OCI layout, and given to
//! `image load` on its stdin.
use std::{fs::File, io::Seek};

use agentkernel_core::{Error, ErrorKind, ImageRef, Result, Source};
use tokio::{io::AsyncWriteExt, time::timeout};

use super::{layout, whole_name};
use crate::{argv, backend::Shared, error};

const IMPORT: &str = "import image";

/// Loads an archive and gives it a name.
pub(crate) async fn import(shared: &Shared, archive: Source<'_>, name: &ImageRef) -> Result<()> {
    let spool = blocking(tempfile::tempfile).await?.map_err(no_room)?;
    let mut writer = tokio::fs::File::from_std(spool);
    let copied = timeout(shared.config.transfer_timeout, async {
        tokio::io::copy(archive, &mut writer).await?;
        writer.flush().await
    });
    match copied.await {
        Ok(copied) => copied.map_err(Error::from)?,
        Err(_) => {
            return Err(Error::new(ErrorKind::Timeout, IMPORT, "the archive does not come")
                .with_context("image", name));
        }
    }
    load(shared, writer.into_std().await, name).await
}

/// Loads an archive that is in a file.
pub(crate) async fn load(shared: &Shared, archive: File, name: &ImageRef) -> Result<()> {
    let whole = whole_name(name);
    let made = blocking(move || layout::from_archive(archive, &whole, argv::host_arch())).await?;
    load_layout(shared, made?, name).await
}

/// Loads an OCI layout.
pub(crate) async fn load_layout(shared: &Shared, layout: File, name: &ImageRef) -> Result<()> {
    let layout = blocking(move || {
        let mut layout = layout;
        layout.rewind().map(|()| layout)
    });
    let layout = layout.await?.map_err(Error::from)?;
    let answer = shared
        .program
        .run_with(IMPORT, &argv::image_load(), shared.config.transfer_timeout, Some(layout), None)
        .await?;
    if answer.code != Some(0) {
        return Err(error::failed(IMPORT, answer.code, &answer.stderr).with_context("image", name));
    }
    let whole = whole_name(name);
    let printed = String::from_utf8_lossy(&answer.stdout);
    // Before 1.0 a heading comes first.
    let Some(loaded) = printed.lines().rev().map(str::trim).find(|line| !line.is_empty()) else {
        return Err(Error::unexpected(
            IMPORT,
            "`container` does not tell what it has loaded",
            "it printed nothing",
        )
        .with_context("image", name));
    };
    if loaded == whole || loaded == name.as_str() {
        return Ok(());
    }
    let line = argv::image_tag(loaded, &whole).ok_or_else(|| {
        let shown = loaded.chars().take(80).collect::<String>();
        Error::unexpected(IMPORT, "`container` has loaded what has no name", shown)
            .with_context("image", name)
    })?;
    shared.program.ask(IMPORT, &line, shared.config.request_timeout).await.map(drop)
}

/// Runs what blocks on files.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|source| Error::unexpected(IMPORT, "the runtime is shutting down", source))
}

/// Says that there is no place for the archive.
pub(crate) fn no_room(source: std::io::Error) -> Error {
    Error::new(ErrorKind::ResourceExhausted, IMPORT, "the archive cannot be kept in a temporary file")
        .with_source(source)
        .with_hint("make room, or set TMPDIR to a directory that has some")
}
