//! `exec`: a command in a sandbox that runs.
use agentkernel_core::Result;

use super::{
    Outcome, ended_by,
    run::{ended, show_collected},
};
use crate::{
    args::ExecArgs,
    config,
    context::Context,
    output::View,
    session::{self, Join},
    signals::Signals,
    terminal,
};

pub(crate) async fn exec(context: &Context, args: &ExecArgs, signals: &mut Signals) -> Result<Outcome> {
    let mut options = config::exec(args)?;
    if !args.detach {
        options.tty = terminal::wanted(&args.terminal, context.json || args.limits.json_stream)?;
        options.stdin = true;
    }
    let tty = options.tty.is_some();
    if tty {
        options = config::with_terminal_kind(options);
    }
    let mut command = config::command(&args.command, options)?;
    command.detached = args.detach;
    let spawned = async { context.sandbox(&args.name).await?.spawn(&command).await };
    let session = match signals.race(spawned).await {
        Ok(session) => session?,
        Err(signal) => return Ok(ended_by(signal)),
    };
    if args.detach {
        return Ok(Outcome::Show(View::Names(vec![session.id().to_string()]), false));
    }
    if context.json {
        return show_collected(session, args.limits.output_limit, signals).await;
    }
    let lines_of = args.limits.json_stream.then_some(&args.name);
    let end = session::join(session, Join { tty, detach_keys: tty, lines_of }, signals).await?;
    Ok(ended(end, &args.name, args.quiet))
}
