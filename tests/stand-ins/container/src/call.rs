//! One call: the machine that it finds, the command that it is, and how it ends.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command prints")]

mod archive;
mod commands;
mod control;
mod failure;
mod foundation;
mod grammar;
mod options;
mod reference;
mod runtime;
mod state;
mod store;
mod values;
mod verbs;

use std::{env, fs, io::Write, path::PathBuf, process::ExitCode, thread, time::Duration};

use serde_json::json;

use crate::call::{
    commands::{COMMANDS, Command, Needs},
    control::{Control, Service, Version},
    failure::{Failure, Outcome, failed, usage},
};

/// The machine that a call finds: its files and its switches.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) root: PathBuf,
    pub(crate) control: Control,
}

impl Host {
    pub(crate) fn version(&self) -> Version {
        self.control.version
    }

    /// `system start` and `system stop` outlive a call; the switch says how it was before.
    pub(crate) fn service(&self) -> Service {
        match fs::read_to_string(self.root.join("service")).as_deref() {
            Ok("started") => Service::Running,
            Ok(_) => Service::Unregistered,
            Err(_) => self.control.service,
        }
    }

    /// Whether a switch names this verb.
    pub(crate) fn switched(list: &[String], verb: &str) -> bool {
        list.iter().any(|name| name == verb || name == "*")
    }
}

/// The whole program.
pub(crate) fn main() -> ExitCode {
    let arguments =
        env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect::<Vec<_>>();
    if let [role] = arguments.as_slice()
        && let Some(code) = runtime::role(role)
    {
        return ExitCode::from(code);
    }
    let host = match host(&arguments) {
        Ok(host) => host,
        Err(message) => {
            eprintln!("container stand-in: {message}");
            return ExitCode::from(70);
        }
    };
    let (name, outcome) = call(&host, &arguments);
    let code = match outcome {
        Ok(code) | Err(Failure::Silent(code)) => code,
        Err(Failure::Failed(message)) => {
            eprintln!("Error: {message}");
            1
        }
        Err(Failure::Usage(message)) => {
            eprintln!(
                "Error: {message}\nUsage: container {name} [<options>] ...\n  See 'container {name} --help' for more information."
            );
            64
        }
        Err(Failure::Gap(what)) => {
            eprintln!("container stand-in: {name}: {what}");
            70
        }
    };
    let _ = std::io::stdout().flush();
    // Threads may still read or write: the real one does not wait for them either.
    std::process::exit(code)
}

fn host(arguments: &[String]) -> Result<Host, String> {
    let root = control::root()?;
    let line = json!({
        "argv": arguments,
        "pid": std::process::id(),
        "cwd": env::current_dir().unwrap_or_default(),
        "environment": env::vars_os().map(|(key, _)| key.to_string_lossy().into_owned()).collect::<Vec<_>>(),
    });
    let control = control::control(&root)?;
    // A call that this one makes to do its own work is none of the caller's.
    if env::var_os("AGENTKERNEL_STANDIN_UNRECORDED").is_some() {
        return Ok(Host { root, control });
    }
    let mut log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(root.join("calls.jsonl"))
        .map_err(|error| format!("cannot write calls.jsonl: {error}"))?;
    // One write: calls at the same time do not mix.
    log.write_all(format!("{line}\n").as_bytes())
        .map_err(|error| format!("cannot write calls.jsonl: {error}"))?;
    Ok(Host { root, control })
}

/// Runs one call; also says which command it was, for usage and messages.
fn call(host: &Host, arguments: &[String]) -> (String, Outcome) {
    if let Err(error) = grammar::check_split(arguments) {
        return (String::new(), Err(error));
    }
    // `--debug` is the root's too; help and version may stand anywhere.
    let first = arguments.iter().position(|argument| argument != "--debug").unwrap_or(arguments.len());
    let words = arguments.get(first..).unwrap_or_default();
    match words.first().map(String::as_str) {
        None | Some("-h" | "--help" | "help") => return (String::new(), help("")),
        Some("--version") => return (String::new(), version(host)),
        Some(option) if option.starts_with('-') => {
            return (String::new(), usage(format!("Unknown option '{option}'")));
        }
        Some(_) => {}
    }
    let known = COMMANDS.iter().filter(|command| command.since <= host.version());
    let fits = |command: &&Command| {
        command.words.iter().zip(words).filter(|(names, word)| names.contains(&word.as_str())).count()
            == command.words.len()
    };
    if let Some(command) = known.clone().find(fits) {
        let name = command.name();
        let outcome = run(host, command, &name, words.get(command.words.len()..).unwrap_or_default());
        return (name, outcome);
    }
    let word = words.first().map(String::as_str).unwrap_or_default();
    let group = known.clone().find(|command| {
        command.words.len() > 1 && command.words.first().is_some_and(|names| names.contains(&word))
    });
    match (group.and_then(|group| group.words.first()?.first()), words.get(1).map(String::as_str)) {
        (Some(group), None | Some("-h" | "--help")) => ((*group).to_owned(), help(group)),
        (Some(group), Some("--version")) => ((*group).to_owned(), version(host)),
        (Some(group), Some(option)) if option.starts_with('-') => {
            ((*group).to_owned(), usage(format!("Unknown option '{option}'")))
        }
        (Some(group), Some(other)) => ((*group).to_owned(), usage(format!("Unexpected argument '{other}'"))),
        (None, _) if host.service() == Service::Running => (
            String::new(),
            usage(format!(
                "Plugin 'container-{word}' not found.\n\nPlugins are looked for in the plugin directories of the installation."
            )),
        ),
        (None, _) => (
            String::new(),
            usage(
                "Plugins are unavailable. Start the container system services and retry:\n\n    container system start\n",
            ),
        ),
    }
}

fn run(host: &Host, command: &Command, name: &str, arguments: &[String]) -> Outcome {
    if matches!(command.syntax.options, []) {
        return (command.code)(host, &grammar::Call::default());
    }
    let call = grammar::parse(&command.syntax, host.version(), arguments)?;
    if call.help {
        return help(name);
    }
    if call.version {
        return version(host);
    }
    (command.check)(host, &call)?;
    call.check_rest()?;
    while Host::switched(&host.control.hang, name) {
        thread::sleep(Duration::from_secs(3600));
    }
    if host.control.noise {
        eprintln!("Warning! Running debug build. Performance may be degraded.");
    }
    let down = host.service() != Service::Running;
    let remedy = "\nEnsure container system service has been started with `container system start`.";
    match command.needs {
        Needs::Configuration if down => {
            return failed(format!("interrupted: \"XPC connection error: Connection invalid\"{remedy}"));
        }
        Needs::Route(what) if down => {
            return failed(format!(
                "internalError: \"{what}\" (cause: \"interrupted: \"XPC connection error: Connection invalid\"\"){remedy}"
            ));
        }
        _ => {}
    }
    if !Host::switched(&host.control.crash, name) {
        return (command.code)(host, &call);
    }
    // The work is done by a call of its own, whose answer is lost.
    runtime::lose_answer()?;
    failed(format!("interrupted: \"XPC connection error: Connection interrupted\"{remedy}"))
}

fn help(name: &str) -> Outcome {
    let shown = if name.is_empty() { "<subcommand>".to_owned() } else { name.to_owned() };
    println!("OVERVIEW: A container platform for macOS\n\nUSAGE: container {shown} [<options>] ...\n");
    for command in COMMANDS.iter().filter(|command| command.name().starts_with(name)) {
        println!("  {}", command.name());
    }
    Ok(0)
}

fn version(host: &Host) -> Outcome {
    println!("container CLI version {} (build: release, commit: 1a2b3c4)", host.version().number());
    Ok(0)
}
