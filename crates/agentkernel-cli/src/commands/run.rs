//! `run`: a sandbox for one command.
use std::sync::Arc;

use agentkernel_core::{
    Error, ExecSession, ExecSpec, ExitStatus, Lifetime, Result, Sandbox, SandboxConfig, SandboxExt,
    SandboxName,
};

use super::{Outcome, ended_by, interruptible};
use crate::{
    args::RunArgs,
    config, context,
    context::Context,
    output::{self, View},
    report,
    session::{self, End, Join},
    signals::Signals,
    terminal,
};

pub(crate) async fn run(context: &Context, args: &RunArgs, signals: &mut Signals) -> Result<Outcome> {
    let (mut config, options) = match signals.race(config::sandbox(&args.sandbox)).await {
        Ok(read) => read?,
        Err(signal) => return Ok(ended_by(signal)),
    };
    let mut options = config::limited(options, &args.limits);
    if args.detach || args.keep {
        config.lifetime = Lifetime::Detached;
    }
    if args.sandbox.dry_run {
        let name = args.name.clone().map_or_else(config::made_up_name, Ok)?;
        let plan = interruptible(signals, super::plan::plan(context, &config, &name)).await;
        return plan.map_err(|error| config::hint_at_image(error, &args.command, config.image.is_some()));
    }
    if !args.detach {
        options.tty = terminal::wanted(&args.terminal, context.json || args.limits.json_stream)?;
        options.stdin = true;
    }
    let tty = options.tty.is_some();
    if tty && !config.env.contains_key("TERM") {
        options = config::with_terminal_kind(options);
    }
    let mut command = config::command(&args.command, options)?;
    command.detached = args.detach;
    let name = args.name.clone().map_or_else(config::made_up_name, Ok)?;
    let has_image = config.image.is_some();

    let started = start(context, args, config, command, name.clone());
    let (sandbox, session) = match signals.race(started).await {
        Ok(started) => started.map_err(|error| config::hint_at_image(error, &args.command, has_image))?,
        Err(signal) => return Ok(ended_by(signal)),
    };
    if args.detach {
        return Ok(Outcome::Show(View::Names(vec![name.to_string()]), false));
    }
    let outcome = if context.json {
        show_collected(session, args.limits.output_limit, signals).await
    } else {
        // The detach keys are the command's: this sandbox ends with us.
        let lines_of = args.limits.json_stream.then_some(&name);
        let joined = session::join(session, Join { tty, detach_keys: false, lines_of }, signals).await;
        joined.map(|end| ended(end, &name, args.sandbox.quiet))
    };
    if args.keep && !args.sandbox.quiet {
        report::note(&format!(
            "kept: enter it with `agentkernel exec {name} -- sh`, remove it with `agentkernel remove --force {name}`"
        ));
    }
    // We are its owner: this begins its removal, and nobody waits for that.
    drop(sandbox);
    outcome
}

/// Chooses a backend, makes the sandbox and starts the command. Dropping it undoes what is half done.
async fn start(
    context: &Context,
    args: &RunArgs,
    mut config: SandboxConfig,
    command: ExecSpec,
    name: SandboxName,
) -> Result<(Arc<dyn Sandbox>, ExecSession)> {
    let selection = context.registry.select(context.choice, &config).await?;
    for considered in &selection.considered {
        tracing::info!(target: "agentkernel", backend = %considered.backend, reason = considered.reason, "considered");
    }
    super::create::pull_visibly(&*selection.backend, &mut config, args.sandbox.quiet).await?;
    let sandbox = selection.backend.sandbox(name);
    context::reap(selection.backend);
    let session = match args.keep {
        true => run_and_keep(&*sandbox, &config, &command).await?,
        false => sandbox.run(&config, command).await?,
    };
    Ok((sandbox, session))
}

/// A sandbox whose command never began is not worth keeping.
async fn run_and_keep(
    sandbox: &dyn Sandbox,
    config: &SandboxConfig,
    command: &ExecSpec,
) -> Result<ExecSession> {
    sandbox.start(config).await?;
    match sandbox.spawn(command).await {
        Ok(session) => Ok(session),
        Err(error) => Err(match sandbox.remove().await {
            Ok(()) => error,
            Err(cleanup) => error.with_context("cleanup", cleanup),
        }),
    }
}

/// Prints a collected session as one object.
pub(super) async fn show_collected(
    session: ExecSession,
    limit: usize,
    signals: &mut Signals,
) -> Result<Outcome> {
    match session::collect(session, limit, signals).await? {
        Ok(collected) => {
            let status = collected.status;
            output::show(&View::Command(collected), true)
                .map_err(|error| Error::unexpected("print", "writing to stdout failed", error))?;
            Ok(Outcome::Code(status.code()))
        }
        Err(signal) => Ok(ended_by(signal)),
    }
}

/// What the end of a session means for us.
pub(super) fn ended(end: End, name: &SandboxName, quiet: bool) -> Outcome {
    match end {
        End::Exited(status) => {
            match status {
                _ if quiet => {}
                ExitStatus::TimedOut => report::note("agentkernel: the command's time was up; it was ended"),
                ExitStatus::OutOfMemory => {
                    report::note("agentkernel: the sandbox's memory was used up; the command was ended");
                }
                _ => {}
            }
            Outcome::Code(status.code())
        }
        End::Signaled(signal) => ended_by(signal),
        End::ReaderGone => Outcome::Code(report::READER_GONE),
        End::Detached(id) => {
            report::note(&format!("left running: join it again with `agentkernel attach {name} {id}`"));
            Outcome::Code(0)
        }
    }
}
