//! `attach`: joins a detached command again.
use std::io::{self, IsTerminal};

use agentkernel_core::{CommandInfo, Error, ErrorKind, ExecId, Replay, Result, Sandbox};

use super::{Outcome, ended_by, run::ended};
use crate::{
    args::AttachArgs,
    context::Context,
    session::{self, Join},
    signals::Signals,
    terminal,
};

pub(crate) async fn attach(context: &Context, args: &AttachArgs, signals: &mut Signals) -> Result<Outcome> {
    let replay = if args.no_replay { Replay::None } else { Replay::Kept };
    let joined = async {
        let sandbox = context.sandbox(&args.name).await?;
        let id = match &args.id {
            Some(id) => id.clone(),
            None => only(&*sandbox).await?,
        };
        let session = sandbox.attach(&id, replay).await?;
        // Only a command with a terminal takes a size.
        let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
        let tty = is_terminal && session.control().resize(terminal::size()).await.is_ok();
        Ok::<_, Error>((session, tty))
    };
    let (session, tty) = match signals.race(joined).await {
        Ok(joined) => joined?,
        Err(signal) => return Ok(ended_by(signal)),
    };
    let end = session::join(session, Join { tty, detach_keys: tty }, signals).await?;
    Ok(ended(end, &args.name))
}

/// The command that is meant when none is named: the main one, or the only detached one.
async fn only(sandbox: &dyn Sandbox) -> Result<ExecId> {
    let commands = sandbox.commands().await?;
    let detached = commands.into_iter().filter(|command| command.detached).collect::<Vec<_>>();
    let main = detached.iter().find(|command| command.main);
    let chosen = match (main, detached.as_slice()) {
        (Some(main), _) => Some(main),
        (None, [only]) => Some(only),
        (None, _) => None,
    };
    chosen.map(|command| command.id.clone()).ok_or_else(|| {
        let ids = detached.iter().map(|CommandInfo { id, .. }| id.to_string()).collect::<Vec<_>>().join(", ");
        let message =
            if ids.is_empty() { "there is no detached command" } else { "there are several commands" };
        let error = Error::new(ErrorKind::NotFound, "attach", message).with_context("name", sandbox.name());
        let error = if ids.is_empty() { error } else { error.with_context("ids", ids) };
        error.with_hint(format!("see `agentkernel inspect {}`", sandbox.name()))
    })
}
