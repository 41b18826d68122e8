//! Whether a machine starts at all: a service that answers may lack the kernel, or the right to make machines.
use std::sync::Arc;

use agentkernel_core::{
    Error, ErrorKind, ImageRef, ImageStore, PullPolicy, Result, Sandbox, SandboxConfig, SandboxExt,
    SandboxName,
};

use crate::{backend::Shared, images::AppleImages, random, sandbox::AppleSandbox};

/// Starts an image without any file, and removes both. That there is nothing in it to run is the last that a start finds
/// out: the machine is up by then.
///
/// # Errors
/// `Unavailable` with the reason.
pub(crate) async fn probe(shared: &Arc<Shared>) -> Result<()> {
    let id = format!("agentkernel-probe-{}", random::hex16()?);
    let (image, name) = (id.parse::<ImageRef>()?, id.parse::<SandboxName>()?);
    let images = AppleImages { shared: Arc::clone(shared) };
    let archive =
        empty_root().map_err(|source| Error::unexpected("probe", "no archive can be made", source))?;
    images.import(&mut archive.as_slice(), &image).await?;
    let sandbox = AppleSandbox::of(Arc::clone(shared), name);
    let mut config = SandboxConfig::new(id);
    config.pull = PullPolicy::Never;
    let started = sandbox.start(&config).await;
    let removed = sandbox.remove().await;
    let forgotten = images.remove(&image).await;
    match started {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::CommandNotFound => {}
        Err(source) => return Err(nothing_starts(source)),
    }
    removed.and(forgotten)
}

/// A root file system with nothing but itself.
fn empty_root() -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o755);
    header.set_size(0);
    tar.append_data(&mut header, "./", std::io::empty())?;
    tar.into_inner()
}

fn nothing_starts(source: Error) -> Error {
    let hint = source.hint().unwrap_or("see why: container system logs --last 5m").to_owned();
    Error::new(ErrorKind::Unavailable, "use Apple's containers", "the service answers, and starts nothing")
        .with_context("backend", "apple")
        .with_hint(hint)
        .with_source(source)
}
