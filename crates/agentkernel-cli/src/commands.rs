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
mod init;
mod inspect;
mod kill;
mod list;
mod logs;
mod man;
mod plan;
mod ports;
mod ps;
mod remove;
mod restart;
mod run;
mod snapshot;
mod start;
mod stats;
mod stop;
pub(crate) mod tree;
mod trust;
mod volume;

use agentkernel_core::{ErrorKind, Result, Signal};

pub(crate) use completions::VARIABLE as COMPLETE;

use crate::{
    args::{Cli, SandboxVerb, Verb},
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
    let (Verb::Sandbox(verb) | Verb::Group(verb)) = verb else { return report::FAILED };
    match verb {
        SandboxVerb::Run(_) | SandboxVerb::Exec(_) | SandboxVerb::Attach(_) => report::AROUND_COMMAND,
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
            report::report(&error, cli.is_json());
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
        Verb::Init(args) => return init::init(args),
        Verb::Trust(args) => return trust::trust(args),
        _ => {}
    }
    let context = Context::new(&cli.global)?;
    let mut signals = Signals::install()?;
    let done = match &cli.verb {
        Verb::Sandbox(verb) | Verb::Group(verb) => on_sandboxes(&context, verb, &mut signals).await,
        verb => interruptible(&mut signals, on_stored(&context, verb)).await,
    };
    match done {
        Err(error) => Err(context.with_nearest(error).await),
        done => done,
    }
}

/// Those that end at once when told to, and undo what is half done.
async fn interruptible(
    signals: &mut Signals,
    work: impl Future<Output = Result<Outcome>>,
) -> Result<Outcome> {
    signals.race(work).await.unwrap_or_else(|signal| Ok(ended_by(signal)))
}

async fn on_sandboxes(context: &Context, verb: &SandboxVerb, signals: &mut Signals) -> Result<Outcome> {
    match verb {
        SandboxVerb::Run(args) => run::run(context, args, signals).await,
        SandboxVerb::Exec(args) => exec::exec(context, args, signals).await,
        SandboxVerb::Attach(args) => attach::attach(context, args, signals).await,
        SandboxVerb::Logs(args) => logs::logs(context, args, signals).await,
        SandboxVerb::Create(args) => interruptible(signals, create::create(context, args)).await,
        SandboxVerb::Start(args) => interruptible(signals, start::start(context, args)).await,
        SandboxVerb::Stop(args) => interruptible(signals, stop::stop(context, args)).await,
        SandboxVerb::Restart(args) => interruptible(signals, restart::restart(context, args)).await,
        SandboxVerb::Remove(args) => interruptible(signals, remove::remove(context, args)).await,
        SandboxVerb::List(args) => interruptible(signals, list::list(context, args)).await,
        SandboxVerb::Inspect(args) => interruptible(signals, inspect::inspect(context, args)).await,
        SandboxVerb::Ps(args) => interruptible(signals, ps::ps(context, args)).await,
        SandboxVerb::Kill(args) => interruptible(signals, kill::kill(context, args)).await,
        SandboxVerb::Stats(args) => interruptible(signals, stats::stats(context, args)).await,
        SandboxVerb::Ports(args) => interruptible(signals, ports::ports(context, args)).await,
        SandboxVerb::Cp(args) => interruptible(signals, cp::cp(context, args)).await,
        SandboxVerb::Gc(args) => interruptible(signals, gc::gc(context, args)).await,
    }
}

async fn on_stored(context: &Context, verb: &Verb) -> Result<Outcome> {
    match verb {
        Verb::Snapshot(verb) => snapshot::snapshot(context, verb).await,
        Verb::Image(verb) => image::image(context, verb).await,
        Verb::Volume(verb) => volume::volume(context, verb).await,
        Verb::Backends => backends::backends(context).await,
        Verb::Doctor => doctor::doctor(context).await,
        // Answered before there is a context.
        Verb::Init(_)
        | Verb::Trust(_)
        | Verb::Completions(_)
        | Verb::Man(_)
        | Verb::Sandbox(_)
        | Verb::Group(_) => Ok(Outcome::Code(0)),
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
                report::report(&context.with_nearest(error).await, context.json);
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
