//! `attach`: joins a detached command again, or begins a shell where there is none.
use std::io::{self, IsTerminal};

use agentkernel_core::{
    CommandInfo, Error, ErrorKind, ExecId, ExecOptions, ExecSession, ExecSpec, Replay, Result, Sandbox,
};

use super::{Outcome, ended_by, run::ended};
use crate::{
    args::AttachArgs,
    config,
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
            Some(id) => Some(id.clone()),
            None => only(&*sandbox).await?,
        };
        let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
        let session = match &id {
            Some(id) => sandbox.attach(id, replay).await?,
            None => shell(&*sandbox, is_terminal).await?,
        };
        // Only a command with a terminal takes a size.
        let tty = is_terminal && session.control().resize(terminal::size()).await.is_ok();
        Ok::<_, Error>((session, tty))
    };
    let (session, tty) = match signals.race(joined).await {
        Ok(joined) => joined?,
        Err(signal) => return Ok(ended_by(signal)),
    };
    let end = session::join(session, Join { tty, detach_keys: tty, lines_of: None }, signals).await?;
    Ok(ended(end, &args.name, false))
}

/// Begins a shell: the first of these that there is.
async fn shell(sandbox: &dyn Sandbox, is_terminal: bool) -> Result<ExecSession> {
    let mut options = ExecOptions::default();
    options.stdin = true;
    if is_terminal {
        options.tty = Some(terminal::size());
        options = config::with_terminal_kind(options);
    }
    match sandbox.spawn(&ExecSpec::new(["bash"], options.clone())?).await {
        Err(error) if error.kind() == ErrorKind::CommandNotFound => {}
        begun => return begun,
    }
    sandbox.spawn(&ExecSpec::new(["sh"], options)?).await
}

/// The command that is meant when none is named: the main one, or the only detached one. `None` if none is detached.
async fn only(sandbox: &dyn Sandbox) -> Result<Option<ExecId>> {
    let commands = sandbox.commands().await?;
    let detached = commands.into_iter().filter(|command| command.detached).collect::<Vec<_>>();
    let main = detached.iter().find(|command| command.main);
    match (main, detached.as_slice()) {
        (Some(main), _) => Ok(Some(main.id.clone())),
        (None, [only]) => Ok(Some(only.id.clone())),
        (None, []) => Ok(None),
        (None, several) => {
            let ids =
                several.iter().map(|CommandInfo { id, .. }| id.to_string()).collect::<Vec<_>>().join(", ");
            Err(Error::new(ErrorKind::NotFound, "attach", "there are several commands")
                .with_context("name", sandbox.name())
                .with_context("ids", ids)
                .with_hint(format!(
                    "name one, as `agentkernel ps {0}` shows them, or begin a shell: `agentkernel exec {0} -- sh`",
                    sandbox.name()
                )))
        }
    }
}
