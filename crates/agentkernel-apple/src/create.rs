//! Making a container: all or nothing.
use std::sync::Arc;

use agentkernel_core::{Capability, Error, ErrorKind, ImageRef, Result, SandboxName, SandboxSpec};
use agentkernel_host::StateLabels;
use tokio::sync::oneshot;

use crate::{argv, backend::Shared, error, images, info::image_of, random, sandbox, volumes};

/// Makes a container and returns its run id. If the caller goes away meanwhile, what was made is removed.
pub(crate) async fn create(shared: &Arc<Shared>, name: &SandboxName, spec: &SandboxSpec) -> Result<String> {
    let (sender, receiver) = oneshot::channel();
    let (shared, name, spec) = (Arc::clone(shared), name.clone(), spec.clone());
    tokio::spawn(async move {
        let made = create_now(&shared, &name, &spec).await;
        if let Err(Ok(run_id)) = sender.send(made)
            && let Err(error) = sandbox::delete(&shared, &name, &run_id).await
        {
            tracing::debug!(%error, sandbox = %name, "an abandoned container stays until it is reaped");
        }
    });
    receiver
        .await
        .map_err(|source| Error::unexpected("create sandbox", "the runtime is shutting down", source))?
}

async fn create_now(shared: &Shared, name: &SandboxName, spec: &SandboxSpec) -> Result<String> {
    let operation = "create sandbox";
    shared.health().await?;
    // Looked at before: the engine itself looks only after it has pulled the image.
    if let Some(refusal) = namesake(shared, name).await? {
        return Err(refusal);
    }
    let image: ImageRef = image_of(&spec.config).parse()?;
    let labels = StateLabels::new(name.clone(), random::hex16()?, spec);
    let encoded = labels.encode()?;
    let plan = argv::Create { name, image: &image, spec, labels: &encoded, deadline: labels.deadline };
    let line = plan.line()?;
    images::ensure(shared, &image, spec.pull).await?;
    for volume in spec.volumes.iter().filter(|_| !spec.is_weaker(Capability::Volume)) {
        volumes::ensure(shared, &volume.name).await?;
    }
    match shared.program.run(operation, &line, shared.config.boot_timeout).await {
        Ok(answer) if answer.code == Some(0) => Ok(labels.run_id),
        Ok(answer) => {
            let failure = error::failed(operation, answer.code, &answer.stderr);
            if failure.kind() == ErrorKind::AlreadyExists
                && let Some(refusal) = namesake(shared, name).await?
            {
                return Err(refusal.with_source(failure));
            }
            Err(undo(shared, &labels, failure).await.with_context("image", image))
        }
        // Whether it was made is not known.
        Err(failure) => Err(undo(shared, &labels, failure).await),
    }
}

/// Removes what a failed call may have made all the same.
async fn undo(shared: &Shared, labels: &StateLabels, failure: Error) -> Error {
    match sandbox::delete(shared, &labels.name, &labels.run_id).await {
        Ok(()) => failure,
        Err(cleanup) => failure.with_context("cleanup", cleanup),
    }
}

/// Finds out who has the name: `None` if nobody.
async fn namesake(shared: &Shared, name: &SandboxName) -> Result<Option<Error>> {
    let id = argv::container_name(name);
    let Some(container) = shared.inspect("create sandbox", &id).await? else { return Ok(None) };
    let error = match crate::info::read(container)? {
        Some(_) => Error::new(ErrorKind::AlreadyExists, "create sandbox", "the name is taken")
            .with_hint(format!("choose another name, or remove it: agentkernel remove {name}")),
        None => {
            Error::new(ErrorKind::Conflict, "create sandbox", "a container that is not ours has the name")
                .with_context("container", id)
                .with_hint("choose another name")
        }
    };
    Ok(Some(error.with_context("backend", "apple").with_context("sandbox", name)))
}
