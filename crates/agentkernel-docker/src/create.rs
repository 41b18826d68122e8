//! Making a container: all or nothing, and what was made is what was asked for.
use std::{sync::Arc, time::Duration};

use agentkernel_core::{
    Capability, Error, ErrorKind, Lifetime, PullPolicy, Result, SandboxName, SandboxSpec, State,
};
use agentkernel_host::{BootSocket, BoundPorts, RunDir, StateLabels};
use bollard::models::{ContainerCreateBody, HostConfig};
use tokio::{sync::oneshot, time::Instant};

use crate::{
    EngineKind,
    backend::{MAX_PAUSE, Shared},
    error,
    guest_volume::GuestVolume,
    hosts,
    id::ContainerId,
    images::ImageDefaults,
    info, limits,
    place::Place,
    request::{self, Paths, Plan},
    verify,
};

/// How long a create waits for a namesake whose removal is under way.
const NAMESAKE_DEADLINE: Duration = Duration::from_secs(5);

/// How host and guest meet.
#[derive(Debug)]
pub(crate) enum Meeting {
    /// The guest connects to this socket, made already for the create: the engine refuses to mount a path that is not
    /// there.
    Here(BootSocket),
    /// We go inside, with a key.
    Elsewhere,
}

/// A container that was made and not yet started.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub id: ContainerId,
    pub run_dir: RunDir,
    /// How the guest will be met.
    pub meeting: Meeting,
    pub labels: StateLabels,
    /// What the engine says that it configured.
    pub host_config: HostConfig,
    pub image: ImageDefaults,
    /// Where something is mounted.
    pub targets: Vec<String>,
    /// Nothing has run in it yet.
    pub is_first: bool,
    /// What will lead inside.
    pub ports: BoundPorts,
}

/// Makes a container. If the caller goes away meanwhile, what was made is removed: a request that the engine has begun
/// with cannot be called back.
pub(crate) async fn create(shared: &Arc<Shared>, name: &SandboxName, spec: &SandboxSpec) -> Result<Prepared> {
    let (sender, receiver) = oneshot::channel();
    let (shared, name, spec) = (Arc::clone(shared), name.clone(), spec.clone());
    tokio::spawn(async move {
        let made = create_now(&shared, &name, &spec, || sender.is_closed()).await;
        if let Err(Ok(abandoned)) = sender.send(made) {
            if let Err(error) = shared.engine.remove(&abandoned.id).await {
                tracing::debug!(%error, sandbox = %name, "an abandoned container stays until it is reaped");
            }
            abandoned.run_dir.remove(&name);
        }
    });
    receiver
        .await
        .map_err(|source| Error::unexpected("create sandbox", "the runtime is shutting down", source))?
}

async fn create_now(
    shared: &Shared,
    name: &SandboxName,
    spec: &SandboxSpec,
    is_abandoned: impl Fn() -> bool,
) -> Result<Prepared> {
    for volume in &spec.volumes {
        if !spec.is_weaker(Capability::Volume) {
            shared.volumes.ensure(&volume.name).await?;
        }
    }
    let mut unfinished = Unfinished { run_dir: RunDir::create(&shared.key)?, name, keep: false };
    let prepared = create_in(shared, name, spec, &unfinished.run_dir, is_abandoned).await?;
    unfinished.keep = true;
    Ok(prepared)
}

/// Removes the directory of sockets of a create that fails, or that ends with the runtime.
struct Unfinished<'a> {
    run_dir: RunDir,
    name: &'a SandboxName,
    keep: bool,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if !self.keep {
            self.run_dir.remove(self.name);
        }
    }
}

fn abandoned() -> Error {
    Error::new(ErrorKind::Interrupted, "create sandbox", "nobody waits for it")
}

async fn create_in(
    shared: &Shared,
    name: &SandboxName,
    spec: &SandboxSpec,
    run_dir: &RunDir,
    is_abandoned: impl Fn() -> bool,
) -> Result<Prepared> {
    let (guest, health) = tokio::try_join!(shared.guest(), shared.health())?;
    let ports = BoundPorts::of(spec).await?;
    let mut labels = StateLabels::new(name.clone(), run_dir.run_id(), spec);
    labels.config.ports = ports.mappings();
    let place = shared.place().await?;
    let (boot_path, hosts);
    let (meeting, paths) = match place {
        Place::Here => {
            (boot_path, hosts) = (run_dir.boot_path(), hosts::ensure(run_dir)?);
            let paths = Paths::Ours { boot: &boot_path, hosts: &hosts };
            (Meeting::Here(run_dir.bind_boot()?), paths)
        }
        Place::Elsewhere => {
            let volume = GuestVolume::of(guest)?;
            if shared.engine.kind() == EngineKind::Podman {
                volume.make(&shared.engine).await?;
            }
            (Meeting::Elsewhere, Paths::Volume(volume))
        }
    };
    let limits = limits::of(shared.engine.endpoint().listener.map(|listener| listener.pid));
    let plan = Plan {
        name,
        spec,
        state: labels.encode()?,
        guest,
        paths: &paths,
        open_files: limits.open_files,
        processes: (shared.engine.kind() == EngineKind::Podman).then_some(limits.processes),
        scratch: shared.engine.kind().scratch(),
        recursive_read_only: crate::health::recursive_read_only(health),
        has_pids_limit: health.capabilities.has(Capability::PidsLimit),
    };
    let body = plan.body()?;
    if is_abandoned() {
        return Err(abandoned());
    }
    let (id, warnings, image) = post(shared, name, spec, &body).await?;
    let checked = async {
        if let Some(error) = verify::refuse_warnings(&warnings) {
            return Err(error);
        }
        let found = shared.engine.inspect(&id).await?;
        if let Some(error) = verify::refuse(&spec.config, &verify::made(&body, &found), "the engine") {
            return Err(error);
        }
        let targets = info::targets(&found);
        let used = found.image.unwrap_or_default();
        // The name may have moved to another image between the two calls.
        let image = match image.filter(|image| image.id == used) {
            Some(image) => image,
            None => shared.images.defaults(&used).await?,
        };
        if let Paths::Volume(volume) = &paths {
            let owner = spec.owner.clone();
            volume.fill(&shared.engine, guest, &id, &used, owner).await?;
        }
        if shared.engine.kind() == EngineKind::Podman && !spec.read_only {
            shared.engine.open_root(&id).await?;
        }
        run_dir.publish(name)?;
        Ok(Prepared {
            id: id.clone(),
            run_dir: run_dir.clone(),
            meeting,
            labels,
            host_config: found.host_config.unwrap_or_default(),
            image,
            targets,
            is_first: true,
            ports,
        })
    };
    match checked.await {
        Ok(prepared) => Ok(prepared),
        Err(error) => Err(match shared.engine.remove(&id).await {
            Ok(()) => error,
            Err(cleanup) => error.with_context("cleanup", cleanup),
        }),
    }
}

/// Sends the create, pulling the image and waiting for a dying namesake as needed.
async fn post(
    shared: &Shared,
    name: &SandboxName,
    spec: &SandboxSpec,
    body: &ContainerCreateBody,
) -> Result<(ContainerId, Vec<String>, Option<ImageDefaults>)> {
    let image = body.image.as_deref().unwrap_or_default();
    let reference = request::image_of(&spec.config).parse::<agentkernel_core::ImageRef>()?;
    let mut may_pull = spec.pull != PullPolicy::Never && !reference.is_local();
    if spec.pull == PullPolicy::Always && may_pull {
        shared.images.pull_to_end(&reference).await?;
        may_pull = false;
    }
    let deadline = Instant::now() + NAMESAKE_DEADLINE;
    loop {
        let (made, defaults) =
            tokio::join!(shared.engine.create(name, body.clone()), shared.images.defaults_of(&reference));
        let failure = match made {
            Ok(made) => return Ok((ContainerId::read(&made.id)?, made.warnings, defaults.ok().flatten())),
            Err(failure) => failure,
        };
        match error::status(&failure) {
            Some(404) if may_pull => {
                shared.images.pull_to_end(&reference).await?;
                may_pull = false;
            }
            Some(404) => {
                return Err(missing_image(image, reference.is_local(), failure, shared.engine.kind()));
            }
            Some(409) => match namesake(shared, name, failure).await? {
                None if Instant::now() < deadline => tokio::time::sleep(MAX_PAUSE).await,
                None => return Err(taken(name)),
                Some(refusal) => return Err(refusal),
            },
            _ => return Err(failure.with_context("sandbox", name).with_context("image", image)),
        }
    }
}

fn missing_image(image: &str, local: bool, source: Error, engine: EngineKind) -> Error {
    let hint = if local {
        format!("this name is never pulled: was it made on this machine? see `{} images`", engine.command())
    } else {
        format!("pull it: `--pull missing`, or `{} pull {image}`", engine.command())
    };
    Error::new(ErrorKind::NotFound, "create sandbox", "image not found")
        .with_source(source)
        .with_context("backend", engine.backend_type())
        .with_context("image", image)
        .with_hint(hint)
}

fn taken(name: &SandboxName) -> Error {
    Error::new(ErrorKind::AlreadyExists, "create sandbox", "the name is taken")
        .with_context("sandbox", name)
        .with_hint(format!("choose another name, or remove it: agentkernel remove {name}"))
}

/// Finds out who has the name: `None` if nobody has it any more, or somebody that is about to go.
async fn namesake(shared: &Shared, name: &SandboxName, conflict: Error) -> Result<Option<Error>> {
    let Some(inspect) = shared.engine.inspect_name(name).await? else { return Ok(None) };
    let id = inspect.id.clone().unwrap_or_default();
    match info::read(inspect)? {
        Some(found) => {
            let going = found.labels.config.lifetime == Lifetime::Owned
                && matches!(found.state(), State::Stopped | State::Dead);
            Ok((!going).then(|| taken(name)))
        }
        None => Ok(Some(
            Error::new(ErrorKind::Conflict, "create sandbox", "a container that is not ours has the name")
                .with_source(conflict)
                .with_context("sandbox", name)
                .with_context("container", &id[..id.len().min(12)])
                .with_hint("choose another name"),
        )),
    }
}
