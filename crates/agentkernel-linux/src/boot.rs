//! Starting the helper and meeting the guest that it becomes.
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use agentkernel_core::{BackendType, ErrorKind, Lifetime, Result};
use agentkernel_host::{BoundPorts, Configure, GuestSandbox, PublishedPorts, RunDir, StateLabels};

use crate::{
    backend::Shared,
    error,
    state::{Commands, StateDir},
    verify,
};

/// What boots a sandbox holds of it.
#[derive(Debug)]
pub(crate) struct Booted {
    pub guest: GuestSandbox,
    pub ports: PublishedPorts,
}

/// Boots a sandbox that was made or has ended. For an owned one the connection is the lease.
pub(crate) async fn boot(
    shared: &Shared,
    dir: &StateDir,
    run_dir: &RunDir,
    labels: &StateLabels,
    ports: BoundPorts,
) -> Result<Booted> {
    let plan = dir.plan()?;
    let commands = dir.commands()?;
    let configure = configure(labels, &commands)?;
    let control = run_dir.bind_control()?;
    let (client, report) = shared.helper.boot(&plan, configure, Some(control)).await?;
    let planned = dir.setup()?;
    if let Some(difference) = verify::booted(&labels.config, &planned, &report) {
        client.close();
        return Err(difference);
    }
    let ports = ports.serve(&client);
    Ok(Booted { guest: GuestSandbox::new(client, labels.name.clone(), BackendType::Linux), ports })
}

fn configure(labels: &StateLabels, commands: &Commands) -> Result<Configure> {
    let deadline_ms = match labels.deadline {
        None => None,
        Some(deadline) => Some(milliseconds_left(deadline).ok_or_else(|| {
            error::about(&labels.name, ErrorKind::Conflict, "boot sandbox", "its deadline has passed")
                .with_hint(format!("remove it: agentkernel remove {}", labels.name))
        })?),
    };
    Ok(Configure {
        lease: labels.config.lifetime == Lifetime::Owned,
        deadline_ms,
        user: commands.user.as_ref().map(|user| user.as_bytes().to_vec()),
        cwd: commands.cwd.clone(),
        env: commands.env.clone(),
        keep_capabilities: commands.capabilities,
        no_new_privileges: commands.no_new_privileges,
        drop_privileges: commands.own_user,
        log_output: false,
        listener: true,
    })
}

fn milliseconds_left(deadline: u64) -> Option<u64> {
    let deadline = UNIX_EPOCH + Duration::from_secs(deadline);
    let left = deadline.duration_since(SystemTime::now()).ok()?;
    u64::try_from(left.as_millis()).ok().filter(|left| *left > 0)
}
