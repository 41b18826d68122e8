//! One verb per file; here they are called, and what they return is rendered.
mod attach;
mod backends;
mod completions;
mod cp;
mod create;
mod doctor;
mod exec;
mod gc;
mod image;
mod inspect;
mod kill;
mod list;
mod logs;
mod man;
mod ports;
mod ps;
mod remove;
mod restart;
mod run;
mod snapshot;
mod start;
mod stats;
mod stop;
mod volume;

use agentkernel_core::{ErrorKind, Result, Signal};

pub(crate) use completions::VARIABLE as COMPLETE;

use crate::{
    args::{Cli, Verb},
    context::Context,
    output, report,
    signals::Signals,
};

/// What a verb leaves to be done.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Print this; `true` if some of the work failed and was told.
    Show(output::View, bool),
    /// Print nothing and end with this code.
    Code(i32),
}

/// Returns what a verb ends with when it fails and nothing says more.
pub(crate) fn failed(verb: &Verb) -> i32 {
    match verb {
        Verb::Run(_) | Verb::Exec(_) | Verb::Attach(_) => report::AROUND_COMMAND,
        _ => report::FAILED,
    }
}

/// Runs the verb and returns the process's exit code.
pub(crate) async fn dispatch(cli: &Cli) -> i32 {
    let failed = failed(&cli.verb);
    let shown = match call(cli).await {
        Ok(Outcome::Code(code)) => return code,
        Ok(Outcome::Show(view, is_failed)) => {
            output::show(&view, cli.global.json).map(|()| if is_failed { failed } else { 0 })
        }
        Err(error) => {
            report::report(&error, cli.global.json);
            return report::code(&error, failed);
        }
    };
    match shown {
        Ok(code) => code,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => report::READER_GONE,
        Err(error) => {
            report::report(
                &agentkernel_core::Error::unexpected("print", "writing to stdout failed", error),
                false,
            );
            failed
        }
    }
}

async fn call(cli: &Cli) -> Result<Outcome> {
    match &cli.verb {
        Verb::Completions(args) => return completions::completions(args),
        Verb::Man(args) => return man::man(args),
        _ => {}
    }
    let context = Context::new(&cli.global)?;
    let mut signals = Signals::install()?;
    // Those that are not here see to signals themselves; the others end at once and undo what is half done.
    let work = async {
        match &cli.verb {
            Verb::Create(args) => create::create(&context, args).await,
            Verb::Start(args) => start::start(&context, args).await,
            Verb::Stop(args) => stop::stop(&context, args).await,
            Verb::Restart(args) => restart::restart(&context, args).await,
            Verb::Remove(args) => remove::remove(&context, args).await,
            Verb::List(args) => list::list(&context, args).await,
            Verb::Inspect(args) => inspect::inspect(&context, args).await,
            Verb::Ps(args) => ps::ps(&context, args).await,
            Verb::Kill(args) => kill::kill(&context, args).await,
            Verb::Stats(args) => stats::stats(&context, args).await,
            Verb::Ports(args) => ports::ports(&context, args).await,
            Verb::Cp(args) => cp::cp(&context, args).await,
            Verb::Snapshot(verb) => snapshot::snapshot(&context, verb).await,
            Verb::Image(verb) => image::image(&context, verb).await,
            Verb::Volume(verb) => volume::volume(&context, verb).await,
            Verb::Gc(args) => gc::gc(&context, args).await,
            Verb::Backends => backends::backends(&context).await,
            Verb::Doctor => doctor::doctor(&context).await,
            Verb::Run(_)
            | Verb::Exec(_)
            | Verb::Attach(_)
            | Verb::Logs(_)
            | Verb::Completions(_)
            | Verb::Man(_) => Ok(Outcome::Code(0)),
        }
    };
    match &cli.verb {
        Verb::Run(args) => run::run(&context, args, &mut signals).await,
        Verb::Exec(args) => exec::exec(&context, args, &mut signals).await,
        Verb::Attach(args) => attach::attach(&context, args, &mut signals).await,
        Verb::Logs(args) => logs::logs(&context, args, &mut signals).await,
        _ => signals.race(work).await.unwrap_or_else(|signal| Ok(ended_by(signal))),
    }
}

/// What a shell says of a program that a signal ended.
fn ended_by(signal: Signal) -> Outcome {
    Outcome::Code(128 + i32::from(signal.number()))
}

/// Does the same with several names: one that fails is told, and the others are done.
async fn each<'a, N, F>(context: &Context, names: &'a [N], work: impl Fn(&'a N) -> F) -> Outcome
where
    N: ToString,
    F: Future<Output = Result<()>>,
{
    let (mut done, mut is_failed) = (Vec::new(), false);
    for name in names {
        match work(name).await {
            Ok(()) => done.push(name.to_string()),
            Err(error) => {
                report::report(&error, context.json);
                is_failed = true;
            }
        }
    }
    Outcome::Show(output::View::Names(done), is_failed)
}

/// Whether the error means that the sandbox is not there.
fn is_absent<T>(result: &Result<T>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound)
}
