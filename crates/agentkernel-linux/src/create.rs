//! Making a sandbox: its directory, and nothing that runs yet. All or nothing.
use std::{path::Path, time::Duration};

use agentkernel_core::{Error, ErrorKind, Network, Result, SandboxName, SandboxSpec, State};
use agentkernel_host::{BoundPorts, RunDir, StateLabels};
use tokio::time::{Instant, sleep};

use crate::{
    backend::Shared,
    error,
    host_image::{HOST, Home, Place},
    plan::{BASE, Parts},
    state::StateDir,
};

/// How long a create waits for a namesake that is on its way out.
const NAMESAKE_DEADLINE: Duration = Duration::from_secs(5);

/// A sandbox that was made and not yet booted.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub dir: StateDir,
    pub run_dir: RunDir,
    pub labels: StateLabels,
    pub ports: BoundPorts,
}

pub(crate) async fn create(shared: &Shared, name: &SandboxName, spec: &SandboxSpec) -> Result<Prepared> {
    shared.machine.check()?;
    let image = match spec.image.as_ref().map(|image| image.as_str()) {
        None | Some(HOST) => None,
        Some(image) => Some(shared.images.root(image)?),
    };
    let ports = BoundPorts::of(spec).await?;
    let mounts =
        spec.mounts.iter().map(|mount| place(&mount.source, "mounts")).collect::<Result<Vec<_>>>()?;
    let volumes =
        spec.volumes.iter().map(|volume| shared.volumes.ensure(&volume.name)).collect::<Result<Vec<_>>>()?;
    let run_dir = RunDir::create(shared.key())?;
    match create_in(shared, name, spec, image.as_deref(), (&mounts, &volumes), &run_dir, &ports).await {
        Ok((dir, labels)) => Ok(Prepared { dir, run_dir, labels, ports }),
        Err(error) => {
            run_dir.remove(name);
            Err(error)
        }
    }
}

async fn create_in(
    shared: &Shared,
    name: &SandboxName,
    spec: &SandboxSpec,
    image: Option<&Path>,
    (mounts, volumes): (&[Place], &[Place]),
    run_dir: &RunDir,
    ports: &BoundPorts,
) -> Result<(StateDir, StateLabels)> {
    let home = match image {
        None => Home::look(shared.host.home.as_deref()),
        Some(_) => Home::default(),
    };
    let resolver = match spec.network {
        Network::Full => Place::find(Path::new("/etc/resolv.conf")).ok(),
        _ => None,
    };
    let dir = StateDir::of(&shared.data, name);
    let run = run_dir.boot_path().parent().map(Path::to_path_buf).unwrap_or_default();
    let parts = Parts {
        spec,
        machine: &shared.machine,
        run_id: run_dir.run_id(),
        name,
        state: dir.path(),
        run: &run,
        image,
        home: &home,
        resolver: resolver.as_ref(),
        mounts,
        volumes,
    };
    let (plan, commands) = (parts.setup().encode(), parts.commands());
    let mut labels = StateLabels::new(name.clone(), run_dir.run_id(), spec);
    labels.config.image.get_or_insert_with(|| HOST.to_owned());
    labels.config.ports = ports.mappings();
    let changes_of = image.map(|_| if shared.machine.is_root() { BASE } else { shared.machine.uid });
    let deadline = Instant::now() + NAMESAKE_DEADLINE;
    loop {
        match StateDir::make(&shared.data, &labels, &plan, &commands, changes_of) {
            Err(failure)
                if failure.kind() == ErrorKind::AlreadyExists
                    && Instant::now() < deadline
                    && is_leaving(shared, name) =>
            {
                sleep(Duration::from_millis(2)).await;
            }
            Err(failure) => return Err(failure),
            Ok(dir) => return Ok((dir, labels)),
        }
    }
}

/// Whether the name is held by one that has ended and whose helper removes it.
fn is_leaving(shared: &Shared, name: &SandboxName) -> bool {
    match StateDir::of(&shared.data, name).read() {
        Ok(None) => true,
        Ok(Some(found)) => {
            found.is_owned() && found.dir.file("exit").exists() && found.dir.state() != State::Created
        }
        Err(_) => false,
    }
}

fn place(source: &Path, field: &'static str) -> Result<Place> {
    Place::find(source).map_err(|failure| {
        let kind = match failure.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            _ => ErrorKind::Unexpected,
        };
        Error::new(kind, "create sandbox", "a path that is to be shown inside cannot be found")
            .with_source(failure)
            .with_context("field", field)
            .with_context("path", source.display())
    })
}

impl Prepared {
    /// Gives up what was never booted.
    pub(crate) fn discard(&self) -> Result<()> {
        self.run_dir.remove(&self.labels.name);
        self.dir.remove().map_err(|failure| {
            error::about(&self.labels.name, failure.kind(), "remove sandbox", "its directory stays")
                .with_source(failure)
        })
    }
}
