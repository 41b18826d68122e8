//! The command line: only described here. What the values mean is in `values`, what becomes of them in `config`.
mod making;
mod stored;

use std::{ffi::OsString, path::PathBuf, time::Duration};

use agentkernel_core::{ExecId, SandboxName, Signal};
use clap::{Args, Parser, Subcommand};

pub(crate) use making::{CreateArgs, ExecArgs, LimitFlags, RunArgs, SandboxFlags, TerminalFlags};
pub(crate) use stored::{
    ImageImportArgs, ImageVerb, SnapshotRestoreArgs, SnapshotTakeArgs, SnapshotVerb, VolumeVerb, VolumesArgs,
};

use crate::{
    complete,
    values::{checked, label, mebibytes},
};

/// The first page, which fits a terminal of 24 lines: what belongs together stands together.
const HELP: &str = "\
{about}

{usage-heading} {usage}

  run          Run a command in a sandbox of its own, which is removed when it ends
  create       Make and boot a sandbox that stays; start, stop, restart, remove (rm)
  list (ls)    List sandboxes; of one: inspect, stats, ports
  exec         Run a command in a sandbox that runs; ps, attach, logs, kill
  cp           Copy files and directories in or out
  snapshot     Keep the files of a sandbox: take, list, restore, remove
  image        Look after images: list, pull, import, remove, prune
  volume       Look after volumes: list, remove
  init         Write agentkernel.toml, with every key explained; trust
  doctor       Say what works on this machine and what would help; backends, gc
  completions  For your shell; man, for the manual; help VERB, or --tree for all of it

Options:
{options}
";

/// Run AI coding agents and any other untrusted command in a sandbox.
#[derive(Debug, Parser)]
#[command(name = "agentkernel", version, propagate_version = true, max_term_width = 100)]
#[command(help_template = HELP, subcommand_value_name = "VERB")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    /// Show every verb and flag on one page
    #[arg(long, exclusive = true, hide = true)]
    pub(crate) tree: bool,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Use this backend, and no other
    #[arg(short, long, global = true, env = "AGENTKERNEL_BACKEND", hide_env_values = true, value_name = "NAME", add = complete::backend())]
    pub(crate) backend: Option<String>,
    /// Print JSON on stdout
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say on stderr which backend is used and why, and what it does
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// Accepted and not needed: nothing asks a question
    #[arg(long, global = true, hide = true)]
    pub(crate) no_input: bool,
}

impl Cli {
    /// Whether stdout is for programs, errors too.
    pub(crate) fn is_json(&self) -> bool {
        let streams = match &self.verb {
            Verb::Sandbox(verb) | Verb::Group(verb) => match verb {
                SandboxVerb::Run(args) => args.limits.json_stream,
                SandboxVerb::Exec(args) => args.limits.json_stream,
                _ => false,
            },
            _ => false,
        };
        self.global.json || streams
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    #[command(flatten)]
    Sandbox(SandboxVerb),
    /// Keep the files of sandboxes, and make sandboxes of them
    #[command(subcommand)]
    Snapshot(SnapshotVerb),
    /// Look after images
    #[command(subcommand)]
    Image(ImageVerb),
    /// Look after volumes
    #[command(subcommand)]
    Volume(VolumeVerb),
    /// Show the backends of this program and what they can do here
    Backends,
    /// Say what works on this machine, what does not, and what would help
    Doctor,
    /// Write agentkernel.toml, with every key explained
    Init(InitArgs),
    /// Let agentkernel.toml count as it is now
    Trust(TrustArgs),
    /// Print the script with which a shell completes commands, flags and names
    Completions(CompletionsArgs),
    /// Print the manual page, or write all of them
    Man(ManArgs),
    /// The verbs for sandboxes, under another name
    #[command(subcommand, name = "sandbox", hide = true)]
    Group(SandboxVerb),
}

/// What is done with sandboxes: at the top, and once more in the group `sandbox`.
#[derive(Debug, Subcommand)]
pub(crate) enum SandboxVerb {
    /// Run a command in a sandbox of its own, which is removed when the command ends
    Run(Box<RunArgs>),
    /// Make and boot a sandbox that stays until it is removed
    Create(Box<CreateArgs>),
    /// Boot a stopped sandbox
    Start(NameArgs),
    /// Stop sandboxes: politely, then by force
    Stop(StopArgs),
    /// Stop sandboxes and boot them again
    Restart(StopArgs),
    /// Remove sandboxes and what is in them
    #[command(visible_alias = "rm")]
    Remove(RemoveArgs),
    /// List sandboxes
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show all that is known of a sandbox
    Inspect(NameArgs),
    /// Run a command in a sandbox that runs
    Exec(ExecArgs),
    /// Join a detached command, or begin a shell where there is none
    Attach(AttachArgs),
    /// List the commands of a sandbox
    Ps(PsArgs),
    /// Send a signal to a command and all that it started
    Kill(KillArgs),
    /// Show the output of what runs detached
    Logs(LogsArgs),
    /// Show what sandboxes use
    Stats(StatsArgs),
    /// Show where the ports of a sandbox are published
    Ports(NameArgs),
    /// Copy files and directories in or out
    Cp(CpArgs),
    /// Remove sandboxes whose owner is gone or whose deadline passed
    Gc(GcArgs),
}

#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// Name of the sandbox
    #[arg(value_parser = checked::<SandboxName>, add = complete::sandbox())]
    pub(crate) name: SandboxName,
    /// Id of the command, as `ps` shows it
    #[arg(value_parser = checked::<ExecId>)]
    pub(crate) id: ExecId,
    /// The signal, by name or number
    #[arg(short, long, default_value = "KILL", value_parser = checked::<Signal>)]
    pub(crate) signal: Signal,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Name of the sandbox
    #[arg(value_parser = checked::<SandboxName>, add = complete::sandbox())]
    pub(crate) name: SandboxName,
    /// Id of a command, as `ps` shows it; by default what `run --detach` began
    #[arg(value_parser = checked::<ExecId>)]
    pub(crate) id: Option<ExecId>,
    /// Go on with what comes
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Begin with at most so many of the last lines of each stream
    #[arg(long, value_name = "LINES")]
    pub(crate) tail: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// Names of the sandboxes; by default all that run
    #[arg(value_name = "NAME", value_parser = checked::<SandboxName>, add = complete::sandbox())]
    pub(crate) names: Vec<SandboxName>,
    /// Only those with this label; all of several
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label, conflicts_with = "names")]
    pub(crate) labels: Vec<(String, String)>,
    /// Show it again every second, until interrupted
    #[arg(long)]
    pub(crate) watch: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Print the JSON Schema of the file instead
    #[arg(long)]
    pub(crate) schema: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TrustArgs {
    /// The file; by default agentkernel.toml in the working directory
    pub(crate) file: Option<PathBuf>,
    /// Trust it no longer
    #[arg(long)]
    pub(crate) revoke: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_parser = ["bash", "elvish", "fish", "powershell", "zsh"])]
    pub(crate) shell: String,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Write a page for each verb into this directory
    #[arg(value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
    /// Write the pages as Markdown
    #[arg(long, requires = "directory")]
    pub(crate) markdown: bool,
}

#[derive(Debug, Args)]
pub(crate) struct NameArgs {
    /// Name of the sandbox
    #[arg(value_parser = checked::<SandboxName>, add = complete::sandbox())]
    pub(crate) name: SandboxName,
}

/// The sandboxes that a verb works on: by their names, or all that have the labels.
#[derive(Debug, Args)]
pub(crate) struct Targets {
    /// Names of the sandboxes
    #[arg(required_unless_present = "labels", value_name = "NAME", value_parser = checked::<SandboxName>, add = complete::sandbox())]
    pub(crate) names: Vec<SandboxName>,
    /// In place of names: all that have this label, or all of several
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label, conflicts_with = "names")]
    pub(crate) labels: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    #[command(flatten)]
    pub(crate) targets: Targets,
    /// How long commands may take to end by themselves
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "5s")]
    pub(crate) grace: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    #[command(flatten)]
    pub(crate) targets: Targets,
    /// Remove running ones too, and let absent ones pass
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// How a list is printed.
#[derive(Debug, Args)]
pub(crate) struct ListingArgs {
    /// Print names only
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Name of the sandbox
    #[arg(value_parser = checked::<SandboxName>, add = complete::sandbox())]
    pub(crate) name: SandboxName,
    /// Print ids only
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only those with this label; all of several
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Only those that run
    #[arg(long)]
    pub(crate) running: bool,
    /// Print names only
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// Name of the sandbox
    #[arg(value_parser = checked::<SandboxName>, add = complete::sandbox())]
    pub(crate) name: SandboxName,
    /// Id of the command, as `ps` shows it; not needed if there is one, or none
    #[arg(value_parser = checked::<ExecId>)]
    pub(crate) id: Option<ExecId>,
    /// Do not show what it wrote before
    #[arg(long)]
    pub(crate) no_replay: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CpArgs {
    /// Copy a directory and all below it
    #[arg(short, long)]
    pub(crate) recursive: bool,
    /// With -r out of a sandbox, stop at this size
    #[arg(long, value_name = "SIZE", value_parser = mebibytes, default_value = "16G")]
    pub(crate) max_size: u64,
    /// From: a host path, NAME:PATH, or `-` for stdin
    #[arg(value_name = "SRC")]
    pub(crate) source: OsString,
    /// To: a host path, NAME:PATH, or `-` for stdout
    #[arg(value_name = "DST")]
    pub(crate) destination: OsString,
}

#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// Only show what would be removed
    #[arg(long)]
    pub(crate) dry_run: bool,
}
