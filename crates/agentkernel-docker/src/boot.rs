//! Starting a container and meeting its guest.
use std::time::Duration;

use agentkernel_core::{
    Error, ErrorKind, Lifetime, Result, SandboxConfig, SandboxPath, State, User, WORKSPACE,
};
use agentkernel_host::{
    BootConnection, BootSocket, Configure, GuestClient, GuestSandbox, PublishedPorts, Report, RunDir,
};
use tokio::{task::JoinHandle, time::interval};

use crate::{
    accounts,
    backend::Shared,
    create::{Meeting, Prepared},
    elsewhere::{self, Lease},
    engine::absent_is_none,
    hosts,
    id::ContainerId,
    images::ImageDefaults,
    info, peer, verify,
};

/// How often a container whose guest has not connected is looked at.
pub(crate) const LOOK: Duration = Duration::from_millis(250);
/// The guest's exit code when nobody serves its boot socket.
const EXIT_UNSERVED: i64 = 70;

/// What boots a sandbox holds of it.
#[derive(Debug)]
pub(crate) struct Booted {
    pub guest: GuestSandbox,
    pub ports: PublishedPorts,
    pub lease: Option<Lease>,
}

/// Starts a container that was made or stopped, and returns the connection to its guest once both ends agree on what
/// was asked for. For an owned sandbox that connection is the lease.
///
/// # Errors
/// `Unsupported` naming the field that the guest finds otherwise than asked; the container runs then and must go.
pub(crate) async fn boot(shared: &Shared, prepared: Prepared) -> Result<Booted> {
    let name = prepared.labels.name.clone();
    let tell = |error: Error| {
        error.with_context("sandbox", &name).with_context("backend", shared.engine.kind().backend_type())
    };
    meet(shared, prepared).await.map_err(tell)
}

async fn meet(shared: &Shared, prepared: Prepared) -> Result<Booted> {
    let configure = configure(&prepared)?;
    accounts::check(
        &shared.engine,
        &prepared.id,
        &prepared.labels.name,
        &prepared.targets,
        prepared.is_first,
    )
    .await?;
    let Prepared { id, run_dir, meeting, labels, host_config, ports, .. } = prepared;
    let (client, report, lease) = match meeting {
        Meeting::Here(boot) => {
            let (client, report) = meet_here(shared, &id, &run_dir, boot, configure).await?;
            (client, report, None)
        }
        Meeting::Elsewhere => {
            let owned = labels.config.lifetime == Lifetime::Owned;
            let (client, report, lease) = elsewhere::meet(shared, &id, &run_dir, configure).await?;
            (client, report, Some(lease).filter(|_| owned))
        }
    };
    let claimed = shared.health().await?.capabilities;
    let differences = verify::booted(&labels.config, &host_config, claimed, &report);
    if let Some(error) = verify::refuse(&labels.config, &differences, "the guest") {
        client.close();
        return Err(error);
    }
    let ports = ports.serve(&client);
    let guest = GuestSandbox::new(client, labels.name, shared.engine.kind().backend_type());
    Ok(Booted { guest, ports, lease })
}

async fn meet_here(
    shared: &Shared,
    id: &ContainerId,
    run_dir: &RunDir,
    boot: BootSocket,
    configure: Configure,
) -> Result<(GuestClient, Report)> {
    hosts::ensure(run_dir)?;
    let control = run_dir.bind_control()?;
    let connection = connect(shared, id, boot).await?;
    let pid = connection.peer_pid();
    if peer::check(pid, id, || None).is_err() {
        // Where cgroups are not named by containers, the engine's word for the pid must do.
        let told = shared.engine.inspect(id).await?.state.and_then(|state| state.pid);
        peer::check(pid, id, || told)?;
    }
    connection.configure(configure, Some(control)).await
}

/// Starts and accepts at once: the guest connects some 20 ms before the engine says that it started.
async fn connect(shared: &Shared, id: &ContainerId, boot: BootSocket) -> Result<BootConnection> {
    let mut start = {
        let (engine, id) = (shared.engine.clone(), id.clone());
        // A task of its own: dropping the request could make the engine abandon a start that is all but done.
        Start(tokio::spawn(async move { engine.start(&id).await }))
    };
    let accept = boot.accept(shared.engine.config().boot_timeout);
    tokio::pin!(accept);
    let (mut started, mut look) = (false, interval(LOOK));
    look.tick().await;
    loop {
        tokio::select! {
            connection = &mut accept => {
                return match connection {
                    Ok(connection) => Ok(connection),
                    Err(error) => Err(error.with_hint(shared.engine.kind().log())),
                };
            }
            result = &mut start.0, if !started => {
                started = true;
                let lost = |source| Error::unexpected("boot sandbox", "the start was abandoned", source);
                result.map_err(lost)??;
            }
            _ = look.tick(), if started => {
                if let Some(error) = ended(shared, id).await? {
                    return Err(error);
                }
            }
        }
    }
}

struct Start(JoinHandle<Result<()>>);

/// Says how the container ended, if it did before its guest connected.
pub(crate) async fn ended(shared: &Shared, id: &ContainerId) -> Result<Option<Error>> {
    let fail = |message: &'static str| Error::new(ErrorKind::Disconnected, "boot sandbox", message);
    let Some(found) = absent_is_none(shared.engine.inspect(id).await)? else {
        return Ok(Some(fail("the sandbox ended before its guest connected")));
    };
    let Some(state) = found.state.filter(|state| info::state(state) != State::Running) else {
        return Ok(None);
    };
    let code = state.exit_code.unwrap_or_default();
    let error = match code {
        EXIT_UNSERVED => fail("the guest could not reach its boot socket")
            .with_hint("start it with `agentkernel start`, not with the engine's own command"),
        _ => fail("the guest ended before it connected")
            .with_hint("see that the guest runs on this machine's processor"),
    };
    Ok(Some(error.with_context("exit code", code)))
}

fn configure(prepared: &Prepared) -> Result<Configure> {
    let (config, image) = (&prepared.labels.config, &prepared.image);
    let deadline_ms = match prepared.labels.deadline {
        None => None,
        Some(deadline) => Some(milliseconds_left(deadline).ok_or_else(|| {
            Error::new(ErrorKind::Conflict, "boot sandbox", "its deadline has passed")
                .with_hint(format!("remove it: agentkernel remove {}", prepared.labels.name))
        })?),
    };
    Ok(Configure {
        lease: config.lifetime == Lifetime::Owned,
        deadline_ms,
        user: user(config, image)?.map(|user| user.as_str().as_bytes().to_vec()),
        cwd: directory(config, image)?.map(|path| path.as_bytes().to_vec()),
        env: Vec::new(),
        keep_capabilities: verify::keep_mask(config),
        no_new_privileges: config.no_new_privileges.unwrap_or(true),
        drop_privileges: true,
        log_output: config.lifetime == Lifetime::Detached,
        listener: true,
    })
}

fn milliseconds_left(deadline: u64) -> Option<u64> {
    use std::time::{SystemTime, UNIX_EPOCH};
    let deadline = UNIX_EPOCH + Duration::from_secs(deadline);
    let left = deadline.duration_since(SystemTime::now()).ok()?;
    u64::try_from(left.as_millis()).ok().filter(|left| *left > 0)
}

/// The config's user, else the image's. What an image says is not trusted to be well formed.
fn user(config: &SandboxConfig, image: &ImageDefaults) -> Result<Option<User>> {
    if let Some(user) = &config.user {
        return user.parse().map(Some);
    }
    let Some(user) = &image.user else { return Ok(None) };
    user.parse().map(Some).map_err(|error: Error| {
        error.with_operation("read the image's user").with_hint("name the user: `--user 1000:1000`")
    })
}

/// The config's directory, else the image's. A directory below `/proc` leads out of a container on engines with
/// CVE-2024-21626.
fn directory(config: &SandboxConfig, image: &ImageDefaults) -> Result<Option<SandboxPath>> {
    if let Some(cwd) = &config.cwd {
        return cwd.parse().map(Some);
    }
    if config.mount_cwd {
        return WORKSPACE.parse().map(Some);
    }
    let Some(cwd) = &image.cwd else { return Ok(None) };
    let refuse = |error: Error| {
        error
            .with_operation("read the image's working directory")
            .with_hint("name the directory: `--workdir /`")
    };
    let path = cwd.parse::<SandboxPath>().map_err(refuse)?;
    if path.starts_with(&"/proc".parse()?) {
        let below_proc = "the image's working directory is below /proc";
        return Err(
            refuse(Error::new(ErrorKind::InvalidConfig, "boot sandbox", below_proc)).with_context("cwd", cwd)
        );
    }
    Ok(Some(path))
}
