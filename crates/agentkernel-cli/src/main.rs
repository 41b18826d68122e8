//! The command `agentkernel`: thin wiring from the command line to core and back to the terminal.
mod args;
mod backends;
mod commands;
mod complete;
mod config;
mod context;
mod copy;
mod output;
mod panics;
mod report;
mod session;
mod signals;
mod sink;
mod stdin;
mod terminal;
mod values;

use std::{io, process};

use agentkernel_core::{Error, ErrorKind};
use clap::{CommandFactory, Parser};

fn main() {
    #[cfg(target_os = "linux")]
    enter_guest();
    clap_complete::CompleteEnv::with_factory(args::Cli::command).var(commands::COMPLETE).complete();
    if wants_tree() {
        process::exit(commands::tree::print());
    }
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => process::exit(usage(&error)),
    };
    panics::tell_and_end(commands::failed(&cli.verb), cli.is_json());
    if cli.global.verbose {
        let filter = tracing_subscriber::EnvFilter::new("agentkernel=debug");
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).without_time().init();
    }
    let code = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(commands::dispatch(&cli));
            // A thread may sit in a read of our stdin for ever.
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            report::report(&Error::unexpected("start", "the runtime cannot be made", error), cli.is_json());
            report::AROUND_COMMAND
        }
    };
    process::exit(code)
}

/// Whether the whole command is asked for, which needs no verb.
fn wants_tree() -> bool {
    let mut words = std::env::args_os().skip(1);
    words.next().is_some_and(|word| word == "--tree") && words.next().is_none()
}

/// This executable is also what runs inside a sandbox, where nothing of the command's own may run.
#[cfg(target_os = "linux")]
fn enter_guest() {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == "__guest") {
        agentkernel_guest::program::main(args)
    }
    agentkernel_host::offer_own_executable();
}

/// Help and version are answers; everything else is a mistake, told also as JSON if that was asked for.
fn usage(error: &clap::Error) -> i32 {
    // There is nowhere left to tell that telling failed.
    let _closed = error.print();
    if !error.use_stderr() {
        return 0;
    }
    let is_json = std::env::args_os()
        .skip(1)
        .take_while(|arg| arg != "--")
        .any(|arg| arg == "--json" || arg == "--json-stream");
    if is_json {
        let text = error.render().to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        report::object_on_stdout(&Error::new(ErrorKind::InvalidConfig, "read the command line", message));
    }
    report::USAGE
}
