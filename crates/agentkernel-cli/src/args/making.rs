//! The flags of what makes sandboxes and commands.
use std::{ffi::OsString, path::PathBuf, time::Duration};

use agentkernel_core::{
    Capability, Cpus, ImageRef, Isolation, LinuxCapability, Mount, Network, PortMapping, Profile, PullPolicy,
    SandboxName, Tmpfs, User, Volume,
};
use clap::Args;

use crate::complete;
use crate::values::{
    HostFile, checked, duration, file, label, mebibytes, mount, network, one_of, tmpfs, volume,
};

#[derive(Debug, Args)]
pub(crate) struct SandboxFlags {
    /// Take what is not given from this file, and not from agentkernel.toml in the working directory
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Image to run in
    #[arg(long, value_parser = checked::<ImageRef>)]
    pub(crate) image: Option<ImageRef>,
    /// When to pull the image; by default if it is missing
    #[arg(long, value_name = "WHEN", value_parser = one_of::<PullPolicy>(["always", "missing", "never"]))]
    pub(crate) pull: Option<PullPolicy>,
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
    /// Set the variables of this file's lines, each NAME=VALUE; `#` begins a comment; --env wins
    #[arg(long = "env-file", value_name = "FILE")]
    pub(crate) env_files: Vec<PathBuf>,
    /// Put a copy of a host file inside
    #[arg(long = "file", value_name = "SRC:DST", value_parser = file())]
    pub(crate) files: Vec<HostFile>,
    /// Working directory inside
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<OsString>,
    /// User inside, as NAME, UID, NAME:GROUP or UID:GID
    #[arg(short, long, value_parser = checked::<User>)]
    pub(crate) user: Option<User>,
    /// What can be reached: none (the default), full, or host names joined by commas
    #[arg(long, value_name = "none|full|HOST,...", value_parser = network)]
    pub(crate) network: Option<Network>,
    /// Let nothing be reached: --network none, which is the default
    #[arg(long, conflicts_with = "network")]
    pub(crate) no_network: bool,
    /// Lead a port of the host inside; on 127.0.0.1 unless an address is given
    #[arg(short, long, value_name = "[[ADDRESS:]HOST:]PORT", value_parser = checked::<PortMapping>)]
    pub(crate) publish: Vec<PortMapping>,
    /// Make the root file system read-only
    #[arg(long)]
    pub(crate) read_only: bool,
    /// The least isolation
    #[arg(long, value_name = "CLASS", value_parser = one_of::<Isolation>(Isolation::ALL.iter().map(|one| one.as_str())))]
    pub(crate) isolation: Option<Isolation>,
    /// Let commands keep a Linux capability, like NET_BIND_SERVICE
    #[arg(long, value_name = "CAPABILITY", value_parser = checked::<LinuxCapability>)]
    pub(crate) cap_add: Vec<LinuxCapability>,
    /// Fill what is not given
    #[arg(long, value_parser = one_of::<Profile>(["permissive", "moderate", "restrictive"]))]
    pub(crate) profile: Option<Profile>,
    /// Let a requirement go unenforced where the backend cannot enforce it; recorded and shown
    #[arg(long, value_name = "REQUIREMENT", hide_possible_values = true,
        value_parser = one_of::<Capability>(Capability::ALL.iter().map(|one| one.as_str())))]
    pub(crate) allow_weaker: Vec<Capability>,
    /// Put a label on the sandbox
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Remove the sandbox after this time, like 30m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) ttl: Option<Duration>,
    /// Show no progress and no notes on stderr, only errors
    #[arg(short, long, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Only print the plan: the backend and why, the image, and every restriction with what enforces it
    #[arg(long)]
    pub(crate) dry_run: bool,
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
    /// Print JSON Lines while it runs: where, each part of the output, and last the end or the error
    #[arg(long, conflicts_with_all = ["json", "tty", "detach"])]
    pub(crate) json_stream: bool,
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
    /// Let the sandbox stay after the command
    #[arg(long, conflicts_with = "detach")]
    pub(crate) keep: bool,
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
    /// Be content with a sandbox of this name, as it is
    #[arg(long)]
    pub(crate) if_missing: bool,
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
    /// Show no notes on stderr, only errors
    #[arg(short, long, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
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
