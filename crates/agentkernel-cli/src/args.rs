//! The command line: only described here. What the values mean is in `values`, what becomes of them in `config`.
use std::{ffi::OsString, path::PathBuf, time::Duration};

use agentkernel_core::{
    Capability, Cpus, ExecId, ImageRef, Isolation, LinuxCapability, Mount, Network, PortMapping, Profile,
    PullPolicy, SandboxName, Signal, Tmpfs, User, Volume, VolumeName,
};
use clap::{Args, Parser, Subcommand};

use crate::complete;
use crate::values::{checked, duration, label, mebibytes, mount, network, tmpfs, volume};

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
  doctor       Say what works on this machine and what would help; backends, gc
  completions  For your shell; man, for the manual; help VERB, for any of these

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
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Use this backend, and no other
    #[arg(short, long, global = true, env = "AGENTKERNEL_BACKEND", value_name = "NAME", add = complete::backend())]
    pub(crate) backend: Option<String>,
    /// Print JSON on stdout
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say on stderr which backend is used and why, and what it does
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
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
    Ps(NameArgs),
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
    /// Keep the files of sandboxes, and make sandboxes of them
    #[command(subcommand)]
    Snapshot(SnapshotVerb),
    /// Look after images
    #[command(subcommand)]
    Image(ImageVerb),
    /// Look after volumes
    #[command(subcommand)]
    Volume(VolumeVerb),
    /// Remove sandboxes whose owner is gone or whose deadline passed
    Gc(GcArgs),
    /// Show the backends of this program and what they can do here
    Backends,
    /// Say what works on this machine, what does not, and what would help
    Doctor,
    /// Print the script with which a shell completes commands, flags and names
    Completions(CompletionsArgs),
    /// Print the manual page, or write all of them
    Man(ManArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotVerb {
    /// Keep a sandbox's files and config
    Take(SnapshotTakeArgs),
    /// List snapshots
    #[command(visible_alias = "ls")]
    List,
    /// Make and boot a sandbox of a snapshot, with the config that it had
    Restore(SnapshotRestoreArgs),
    /// Remove snapshots
    #[command(visible_alias = "rm")]
    Remove(SnapshotRemoveArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SnapshotTakeArgs {
    /// Name of the sandbox
    #[arg(value_parser = checked::<SandboxName>, add = complete::sandbox())]
    pub(crate) name: SandboxName,
    /// Name of the snapshot; by default the sandbox's
    #[arg(value_parser = checked::<SandboxName>)]
    pub(crate) snapshot: Option<SandboxName>,
}

#[derive(Debug, Args)]
pub(crate) struct SnapshotRestoreArgs {
    /// Name of the snapshot
    #[arg(value_parser = checked::<SandboxName>)]
    pub(crate) snapshot: SandboxName,
    /// Name of the new sandbox; by default the snapshot's
    #[arg(value_parser = checked::<SandboxName>)]
    pub(crate) name: Option<SandboxName>,
}

#[derive(Debug, Args)]
pub(crate) struct SnapshotRemoveArgs {
    /// Names of the snapshots
    #[arg(required = true, value_name = "SNAPSHOT", value_parser = checked::<SandboxName>)]
    pub(crate) snapshots: Vec<SandboxName>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageVerb {
    /// List images
    #[command(visible_alias = "ls")]
    List,
    /// Fetch images from their registries
    Pull(ImagesArgs),
    /// Make an image of an archive, of `docker save` or of a root file system
    Import(ImageImportArgs),
    /// Remove images' names, and the images with their last one
    #[command(visible_alias = "rm")]
    Remove(ImagesArgs),
    /// Remove what was imported or kept here and has lost its name
    Prune,
}

#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// Names of the images
    #[arg(required = true, value_name = "IMAGE", value_parser = checked::<ImageRef>)]
    pub(crate) images: Vec<ImageRef>,
}

#[derive(Debug, Args)]
pub(crate) struct ImageImportArgs {
    /// The archive, or `-` for stdin
    pub(crate) archive: PathBuf,
    /// Name of the image
    #[arg(value_parser = checked::<ImageRef>)]
    pub(crate) image: ImageRef,
}

#[derive(Debug, Subcommand)]
pub(crate) enum VolumeVerb {
    /// List volumes
    #[command(visible_alias = "ls")]
    List,
    /// Remove volumes and what is in them
    #[command(visible_alias = "rm")]
    Remove(VolumesArgs),
}

#[derive(Debug, Args)]
pub(crate) struct VolumesArgs {
    /// Names of the volumes
    #[arg(required = true, value_name = "VOLUME", value_parser = checked::<VolumeName>)]
    pub(crate) volumes: Vec<VolumeName>,
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
}

#[derive(Debug, Args)]
pub(crate) struct SandboxFlags {
    /// Image to run in
    #[arg(long, value_parser = checked::<ImageRef>)]
    pub(crate) image: Option<ImageRef>,
    /// When to pull the image: always, missing or never
    #[arg(long, value_name = "WHEN", value_parser = checked::<PullPolicy>, default_value = "missing", hide_default_value = true)]
    pub(crate) pull: PullPolicy,
    /// Processors, like 1.5
    #[arg(long, value_name = "NUMBER", value_parser = checked::<Cpus>)]
    pub(crate) cpus: Option<Cpus>,
    /// Memory, swap included, like 512M or 2G
    #[arg(short, long, value_name = "SIZE", value_parser = mebibytes)]
    pub(crate) memory: Option<u64>,
    /// Processes and threads at once
    #[arg(long, value_name = "NUMBER")]
    pub(crate) pids: Option<u32>,
    /// Open files of a process
    #[arg(long, value_name = "NUMBER")]
    pub(crate) open_files: Option<u64>,
    /// Disk space, like 10G
    #[arg(long, value_name = "SIZE", value_parser = mebibytes)]
    pub(crate) disk: Option<u64>,
    /// Show this host directory at /workspace, writable, and work there
    #[arg(long, value_name = "DIR")]
    pub(crate) workspace: Option<PathBuf>,
    /// Show a host path inside, read-only unless `:rw` is given
    #[arg(long = "mount", value_name = "SRC:DST[:ro|:rw]", value_parser = mount())]
    pub(crate) mounts: Vec<Mount>,
    /// Show a named volume inside, writable unless `:ro` is given
    #[arg(long = "volume", value_name = "NAME:DST[:ro|:rw]", value_parser = volume)]
    pub(crate) volumes: Vec<Volume>,
    /// Show a file system in memory inside; 64M unless a size is given
    #[arg(long, value_name = "DST[:SIZE]", value_parser = tmpfs)]
    pub(crate) tmpfs: Vec<Tmpfs>,
    /// Set a variable; any bytes but NUL
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<OsString>,
    /// Working directory inside
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<OsString>,
    /// User inside, as NAME, UID, NAME:GROUP or UID:GID
    #[arg(short, long, value_parser = checked::<User>)]
    pub(crate) user: Option<User>,
    /// What can be reached: none (the default), full, or host names joined by commas
    #[arg(long, value_name = "none|full|HOST,...", value_parser = network)]
    pub(crate) network: Option<Network>,
    /// Lead a port of the host inside; on 127.0.0.1 unless an address is given
    #[arg(short, long, value_name = "[[ADDRESS:]HOST:]PORT", value_parser = checked::<PortMapping>)]
    pub(crate) publish: Vec<PortMapping>,
    /// Make the root file system read-only
    #[arg(long)]
    pub(crate) read_only: bool,
    /// The least isolation: process, root-container, userns-container or vm
    #[arg(long, value_name = "CLASS", value_parser = checked::<Isolation>)]
    pub(crate) isolation: Option<Isolation>,
    /// Let commands keep a Linux capability, like NET_BIND_SERVICE
    #[arg(long, value_name = "CAPABILITY", value_parser = checked::<LinuxCapability>)]
    pub(crate) cap_add: Vec<LinuxCapability>,
    /// Fill what is not given: permissive, moderate or restrictive
    #[arg(long, value_parser = checked::<Profile>)]
    pub(crate) profile: Option<Profile>,
    /// Let a requirement go unenforced where the backend cannot enforce it; recorded and shown
    #[arg(long, value_name = "REQUIREMENT", value_parser = checked::<Capability>)]
    pub(crate) allow_weaker: Vec<Capability>,
    /// Put a label on the sandbox
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Remove the sandbox after this time, like 30m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) ttl: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct TerminalFlags {
    /// Accepted and not needed: stdin is always forwarded
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the command a terminal; by default it has one if stdin and stdout are terminals
    #[arg(short, long, conflicts_with = "no_tty")]
    pub(crate) tty: bool,
    /// Give the command no terminal
    #[arg(short = 'T', long)]
    pub(crate) no_tty: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LimitFlags {
    /// End the command after this time, like 30s; the exit code is then 124
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// With --json, keep at most so much of each stream, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = agentkernel_core::OUTPUT_LIMIT, requires = "json")]
    pub(crate) output_limit: usize,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Name of the sandbox; by default one is made up
    #[arg(long, value_parser = checked::<SandboxName>)]
    pub(crate) name: Option<SandboxName>,
    /// Leave the command running in a sandbox that stays, and print the sandbox's name
    #[arg(short, long, conflicts_with = "tty")]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) sandbox: SandboxFlags,
    #[command(flatten)]
    pub(crate) terminal: TerminalFlags,
    #[command(flatten)]
    pub(crate) limits: LimitFlags,
    /// The program and its arguments, untouched; no shell is involved
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Name of the sandbox
    #[arg(value_parser = checked::<SandboxName>)]
    pub(crate) name: SandboxName,
    #[command(flatten)]
    pub(crate) sandbox: SandboxFlags,
}

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// Name of the sandbox
    #[arg(value_parser = checked::<SandboxName>, add = complete::sandbox())]
    pub(crate) name: SandboxName,
    /// Set a variable; any bytes but NUL
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<OsString>,
    /// Working directory inside
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<OsString>,
    /// User inside, as NAME, UID, NAME:GROUP or UID:GID
    #[arg(short, long, value_parser = checked::<User>)]
    pub(crate) user: Option<User>,
    /// Leave the command running and print its id
    #[arg(short, long, conflicts_with = "tty")]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) terminal: TerminalFlags,
    #[command(flatten)]
    pub(crate) limits: LimitFlags,
    /// The program and its arguments, untouched; no shell is involved
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct NameArgs {
    /// Name of the sandbox
    #[arg(value_parser = checked::<SandboxName>, add = complete::sandbox())]
    pub(crate) name: SandboxName,
}

#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// Names of the sandboxes
    #[arg(required = true, value_name = "NAME", value_parser = checked::<SandboxName>, add = complete::sandbox())]
    pub(crate) names: Vec<SandboxName>,
    /// How long commands may take to end by themselves
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "5s")]
    pub(crate) grace: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Names of the sandboxes
    #[arg(required = true, value_name = "NAME", value_parser = checked::<SandboxName>, add = complete::sandbox())]
    pub(crate) names: Vec<SandboxName>,
    /// Remove running ones too, and let absent ones pass
    #[arg(short, long)]
    pub(crate) force: bool,
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
