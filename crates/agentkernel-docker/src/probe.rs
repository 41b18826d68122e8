//! Whether an engine starts anything at all: its own description tells it of one whose runtime refuses this machine's
//! cgroups or limits as of any other.
use std::sync::Arc;

use agentkernel_core::{
    Error, ErrorKind, ImageRef, ImageStore, PullPolicy, Result, Sandbox, SandboxConfig, SandboxExt,
    SandboxName,
};

use crate::{backend::Shared, podman, sandbox::DockerSandbox};

/// Starts an image without any file, which takes about as long as a `run`, and removes both.
///
/// # Errors
/// `Unavailable` with the reason.
pub(crate) async fn probe(shared: &Arc<Shared>) -> Result<()> {
    let mut random = [0; 8];
    getrandom::fill(&mut random)
        .map_err(|source| Error::unexpected("probe the engine", "there is no randomness", source))?;
    let id = format!("agentkernel-probe-{:016x}", u64::from_ne_bytes(random));
    let (image, name) = (id.parse::<ImageRef>()?, id.parse::<SandboxName>()?);
    let archive = podman::root_entry()?;
    shared.images.import(&mut archive.as_slice(), &image).await?;
    let sandbox = DockerSandbox::new(Arc::clone(shared), name);
    let mut config = SandboxConfig::new(id);
    config.pull = PullPolicy::Never;
    let started = sandbox.start(&config).await;
    let removed = sandbox.remove().await;
    let forgotten = shared.images.remove(&image).await;
    started.map_err(|source| nothing_starts(shared, source))?;
    removed.and(forgotten)
}

fn nothing_starts(shared: &Shared, source: Error) -> Error {
    let kind = shared.engine.kind();
    let hint = source.hint().map_or_else(|| kind.log(), str::to_owned);
    Error::new(ErrorKind::Unavailable, "use the engine", "it answers, and starts nothing")
        .with_context("backend", kind.backend_type())
        .with_hint(hint)
        .with_source(source)
}
