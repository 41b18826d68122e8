//! The table of commands: their words, aliases, grammar and code (reference 0.1 and 1).
use crate::call::{
    Host,
    control::Version::{self, V0_12, V1_0},
    failure::{Outcome, gap},
    grammar::{
        Call, Opt,
        Positionals::{self, Command as Program, Exactly, Many},
        Syntax,
    },
    options::*,
    verbs::{container, copy, create, exec, image, lifecycle, network, query, system, volume},
};

/// What of the service a command needs first, which decides how it says that the service is down (reference 0.2).
#[derive(Clone, Copy, Debug)]
pub(crate) enum Needs {
    Nothing,
    /// The configuration: a bare XPC error.
    Configuration,
    /// Its own route: the XPC error wrapped in this text.
    Route(&'static str),
}

type Code = fn(&Host, &Call) -> Outcome;
type Check = fn(&Host, &Call) -> Outcome<()>;

/// A command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Command {
    /// Its words, each with its aliases.
    pub(crate) words: &'static [&'static [&'static str]],
    pub(crate) syntax: Syntax,
    pub(crate) since: Version,
    pub(crate) needs: Needs,
    /// `validate()`, which runs before left-over arguments are looked at.
    pub(crate) check: Check,
    pub(crate) code: Code,
}

impl Command {
    /// Its name, as usage and the switches have it.
    pub(crate) fn name(&self) -> String {
        self.words.iter().filter_map(|word| word.first().copied()).collect::<Vec<_>>().join(" ")
    }
}

const fn command(
    words: &'static [&'static [&'static str]],
    options: &'static [&'static [Opt]],
    positionals: Positionals,
    needs: Needs,
    code: Code,
) -> Command {
    Command {
        words,
        syntax: Syntax { options, positionals },
        since: V0_12,
        needs,
        check: |_, _| Ok(()),
        code,
    }
}

const fn checked(command: Command, check: Check) -> Command {
    Command { check, ..command }
}

const fn since(command: Command, since: Version) -> Command {
    Command { since, ..command }
}

/// A command of the real one that this one does not have: it answers 70, whatever its arguments.
const fn missing(words: &'static [&'static [&'static str]]) -> Command {
    let positionals = Many { name: "arguments", required: false };
    command(words, &[], positionals, Needs::Nothing, |_, _| gap("this command"))
}

const ONE: Positionals = Exactly(&["container-id"]);
const IDS: Positionals = Many { name: "container-ids", required: false };
const NONE: Positionals = Exactly(&[]);
const NAMES: Positionals = Many { name: "names", required: false };
const SOME_NAMES: Positionals = Many { name: "names", required: true };
const IMAGE: Positionals = Program { first: "image", required: false };
const I: &[&str] = &["image", "i"];
const N: &[&str] = &["network", "n"];
const V: &[&str] = &["volume", "v"];
const S: &[&str] = &["system", "s"];
const LS: &[&str] = &["list", "ls"];
const RM: &[&str] = &["delete", "rm"];

pub(crate) const COMMANDS: &[Command] = &[
    checked(
        command(
            &[&["run"]],
            &[PROCESS, RESOURCES, MANAGEMENT, PLATFORM, FETCH, PROGRESS, DEBUG],
            IMAGE,
            Needs::Configuration,
            container::run,
        ),
        create::check,
    ),
    checked(
        command(
            &[&["create"]],
            &[PROCESS, RESOURCES, MANAGEMENT, PLATFORM, FETCH, DEBUG],
            IMAGE,
            Needs::Configuration,
            container::create,
        ),
        create::check,
    ),
    command(
        &[&["exec"]],
        &[PROCESS, DETACH, DEBUG],
        Program { first: "container-id", required: true },
        Needs::Route("failed to get container"),
        exec::exec,
    ),
    command(&[&["start"]], &[ATTACH, DEBUG], ONE, Needs::Route("failed to get container"), lifecycle::start),
    checked(
        command(
            &[&["stop"]],
            &[ALL, STOP, DEBUG],
            IDS,
            Needs::Route("failed to list containers"),
            lifecycle::stop,
        ),
        lifecycle::check_ids,
    ),
    checked(
        command(
            &[&["kill"]],
            &[ALL, KILL, DEBUG],
            IDS,
            Needs::Route("failed to list containers"),
            lifecycle::kill,
        ),
        lifecycle::check_ids,
    ),
    checked(
        command(
            &[RM],
            &[ALL, FORCE, DEBUG],
            IDS,
            Needs::Route("failed to list containers"),
            lifecycle::delete,
        ),
        lifecycle::check_ids,
    ),
    command(
        &[LS],
        &[ALL, QUIET, FORMAT, DEBUG],
        NONE,
        Needs::Route("failed to list containers"),
        query::list,
    ),
    command(
        &[&["inspect"]],
        &[DEBUG],
        Many { name: "container-ids", required: true },
        Needs::Route("failed to list containers"),
        query::inspect,
    ),
    command(&[&["logs"]], &[LOGS, DEBUG], ONE, Needs::Route("failed to get logs"), query::logs),
    command(
        &[&["stats"]],
        &[FORMAT, STATS, DEBUG],
        IDS,
        Needs::Route("failed to list containers"),
        query::stats,
    ),
    command(&[&["export"]], &[OUTPUT, DEBUG], ONE, Needs::Route("failed to get container"), copy::export),
    since(
        command(
            &[&["copy", "cp"]],
            &[DEBUG],
            Exactly(&["source", "destination"]),
            Needs::Route("failed to get container"),
            copy::copy,
        ),
        V1_0,
    ),
    missing(&[&["prune"]]),
    missing(&[&["build"]]),
    missing(&[&["builder"]]),
    missing(&[&["registry", "r"]]),
    since(missing(&[&["machine", "m"]]), V1_0),
    command(
        &[I, &["pull"]],
        &[FETCH, PROGRESS, PLATFORM, DEBUG],
        Exactly(&["reference"]),
        Needs::Configuration,
        image::pull,
    ),
    command(&[I, LS], &[QUIET, VERBOSE, FORMAT, DEBUG], NONE, Needs::Configuration, image::list),
    command(
        &[I, &["inspect"]],
        &[DEBUG],
        Many { name: "images", required: true },
        Needs::Configuration,
        image::inspect,
    ),
    command(&[I, &["load"]], &[INPUT, FORCE, DEBUG], NONE, Needs::Configuration, image::load),
    command(
        &[I, &["save"]],
        &[OUTPUT, PLATFORM, DEBUG],
        Many { name: "references", required: true },
        Needs::Configuration,
        image::save,
    ),
    checked(
        command(&[I, RM], &[ALL, FORCE, DEBUG], NAMES, Needs::Configuration, image::delete),
        image::check_delete,
    ),
    command(&[I, &["tag"]], &[DEBUG], Exactly(&["source", "target"]), Needs::Configuration, image::tag),
    missing(&[I, &["push"]]),
    missing(&[I, &["prune"]]),
    command(
        &[N, &["create"]],
        &[NETWORK_CREATE, DEBUG],
        Exactly(&["name"]),
        Needs::Route("failed to create network"),
        network::create,
    ),
    command(&[N, LS], &[QUIET, FORMAT, DEBUG], NONE, Needs::Route("failed to list networks"), network::list),
    command(
        &[N, &["inspect"]],
        &[DEBUG],
        SOME_NAMES,
        Needs::Route("failed to list networks"),
        network::inspect,
    ),
    command(&[N, RM], &[ALL, DEBUG], NAMES, Needs::Route("failed to list networks"), network::delete),
    missing(&[N, &["prune"]]),
    command(
        &[V, &["create"]],
        &[VOLUME_CREATE, DEBUG],
        Exactly(&["name"]),
        Needs::Route("failed to create volume"),
        volume::create,
    ),
    command(&[V, LS], &[QUIET, FORMAT, DEBUG], NONE, Needs::Route("failed to list volumes"), volume::list),
    command(
        &[V, &["inspect"]],
        &[DEBUG],
        SOME_NAMES,
        Needs::Route("failed to list volumes"),
        volume::inspect,
    ),
    command(&[V, RM], &[ALL, DEBUG], NAMES, Needs::Route("failed to list volumes"), volume::delete),
    missing(&[V, &["prune"]]),
    command(&[S, &["start"]], &[SYSTEM_START, DEBUG], NONE, Needs::Nothing, system::start),
    command(&[S, &["stop"]], &[PREFIX, DEBUG], NONE, Needs::Nothing, system::stop),
    command(&[S, &["status"]], &[PREFIX, FORMAT, DEBUG], NONE, Needs::Nothing, system::status),
    command(&[S, &["version"]], &[FORMAT, DEBUG], NONE, Needs::Nothing, system::version),
    missing(&[S, &["df"]]),
    missing(&[S, &["logs"]]),
    missing(&[S, &["kernel"]]),
    missing(&[S, &["property"]]),
    missing(&[S, &["dns"]]),
];
