//! How fast and how small, against the peer tools, as ratios: machines differ and are noisy.
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use cargo_metadata::MetadataCommand;
use clap::{Args, ValueEnum};

use crate::{
    hyperfine::medians,
    machine,
    process::{cargo, command, read, run, say},
};

const IMAGE: &str = "agentkernel-test";

/// How long a run is left alone before it is measured, in seconds: the engine is still removing the one before.
const PAUSE: f64 = 0.5;

/// Against which engine's command.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The engine
    #[arg(long, value_enum, default_value = "docker")]
    engine: Engine,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Engine {
    Docker,
    Podman,
}

impl Engine {
    fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }

    /// Its command, with what makes it work on the machines that `provision` knows.
    fn command(self) -> &'static [&'static str] {
        match self {
            Self::Docker => &["docker"],
            Self::Podman => &["podman", "--runtime", "runc"],
        }
    }

    fn run(self) -> &'static [&'static str] {
        match self {
            Self::Docker => &[],
            Self::Podman => &["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"],
        }
    }

    fn socket(self) -> &'static str {
        match self {
            Self::Docker => "unix:///var/run/docker.sock",
            Self::Podman => machine::PODMAN_SOCKET,
        }
    }

    /// The words of one of its commands.
    fn words<'a>(self, args: &[&'a str]) -> Vec<&'a str> {
        let [verb, rest @ ..] = args else { return self.command().to_vec() };
        let extra = if *verb == "run" { self.run() } else { &[] };
        [self.command(), &[*verb], extra, rest].concat()
    }

    fn line(self, args: &[&str]) -> String {
        self.words(args).join(" ")
    }

    fn program(self, args: &[&str]) -> Command {
        let words = self.words(args);
        command(words[0], &words[1..])
    }
}

pub(crate) fn bench(options: &Options) -> Result<()> {
    let engine = options.engine;
    if let Some(reason) = machine::no_backend(engine.name()) {
        bail!("nothing can be measured: {reason}");
    }
    run(&mut cargo([
        "build",
        "--release",
        "--quiet",
        "--package",
        "agentkernel-cli",
        "--package",
        "agentkernel-guest",
    ]))?;
    let target = MetadataCommand::new().no_deps().exec()?.target_directory.into_std_path_buf();
    let ours = binary(&target, "agentkernel")?;
    let scratch = std::env::temp_dir().join(format!("agentkernel-bench-{}-files", std::process::id()));
    fs::create_dir_all(&scratch)?;
    let bench = Bench { engine, ours: ours.to_string_lossy().into_owned(), name: sandbox() };
    let result = bench.measure(&scratch).and_then(|rows| {
        bench.print(&rows)?;
        bench.sizes(&target)
    });
    // Whatever happened before: nothing of the measurement stays.
    let _gone = read(&mut bench.command(&["remove", "--force", &bench.name]));
    let _gone = read(&mut engine.program(&["rm", "--force", &bench.name]));
    fs::remove_dir_all(&scratch)?;
    result?;
    // An example is not beside the guest.
    let guest = binary(&target, "agentkernel-guest")?;
    let mut library =
        cargo(["run", "--release", "--quiet", "--package", "agentkernel-docker", "--example", "bench_exec"]);
    run(library.env("AGENTKERNEL_GUEST", guest).env("DOCKER_HOST", engine.socket()))
}

fn sandbox() -> String {
    format!("bench-{}", std::process::id())
}

/// `host-tuple` puts what is built below the target's name; without it, it is directly there.
fn binary(target: &Path, name: &str) -> Result<PathBuf> {
    let places = fs::read_dir(target)?.flatten().map(|entry| entry.path()).chain([target.to_owned()]);
    let found = places.map(|place| place.join("release").join(name)).filter(|path| path.is_file());
    let newest = found.max_by_key(|path| path.metadata().and_then(|metadata| metadata.modified()).ok());
    newest.with_context(|| format!("{name} was not built"))
}

struct Row {
    what: &'static str,
    ours: f64,
    peer: f64,
    goal: Option<f64>,
}

struct Bench {
    engine: Engine,
    ours: String,
    name: String,
}

impl Bench {
    fn line(&self, args: &str) -> String {
        format!("{} --backend {} {args}", self.ours, self.engine.name())
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = command(&self.ours, ["--backend", self.engine.name()]);
        command.args(args);
        command
    }

    fn measure(&self, scratch: &Path) -> Result<Vec<Row>> {
        let Self { engine, name, .. } = self;
        let mut rows = Vec::new();
        let mut row = |what, goal, runs, pause, commands: [String; 2]| -> Result<()> {
            say(&format!("measuring: {what}"));
            let [ours, peer] = medians(runs, pause, [&commands[0], &commands[1]])?;
            rows.push(Row { what, ours, peer, goal });
            Ok(())
        };
        let without = [
            self.line(&format!("run --image {IMAGE} -- true")),
            engine.line(&["run", "--rm", "--network", "none", IMAGE, "true"]),
        ];
        let with = [
            self.line(&format!("run --network full --image {IMAGE} -- true")),
            engine.line(&["run", "--rm", IMAGE, "true"]),
        ];
        row("run", Some(0.6), 25, PAUSE, without.clone())?;
        row("run, network", Some(0.9), 25, PAUSE, with.clone())?;
        // We do not wait for the removal and the peer does: so the next run of ours meets it.
        row("runs in a row", None, 25, 0.0, without)?;
        row("with network", None, 25, 0.0, with)?;
        run(&mut self.command(&["create", name, "--image", IMAGE]))?;
        run(&mut engine.program(&[
            "run",
            "--detach",
            "--name",
            name,
            "--network",
            "none",
            IMAGE,
            "sleep",
            "3600",
        ]))?;
        row(
            "exec",
            Some(0.06),
            40,
            0.0,
            [self.line(&format!("exec {name} -- true")), engine.line(&["exec", name, "true"])],
        )?;
        for (what_in, what_out, goal, runs, length) in
            [("1 KiB in", "1 KiB out", 0.1, 30, 1 << 10), ("100 MiB in", "100 MiB out", 0.7, 5, 100 << 20)]
        {
            let path = |name| scratch.join(name).to_string_lossy().into_owned();
            let (source, back, inside) = (path("in"), path("out"), format!("{name}:/tmp/f"));
            fs::write(&source, vec![b'x'; length])?;
            for (what, from, to) in [(what_in, &source, &inside), (what_out, &inside, &back)] {
                let lines = [self.line(&format!("cp {from} {to}")), engine.line(&["cp", from, to])];
                row(what, Some(goal), runs, 0.0, lines)?;
            }
        }
        Ok(rows)
    }

    fn print(&self, rows: &[Row]) -> Result<()> {
        let mut out = std::io::stdout();
        let peer = self.engine.name();
        writeln!(out, "{:<18} {:>12} {peer:>12} {:>7} {:>6}", "median", "agentkernel", "ratio", "goal")?;
        for Row { what, ours, peer, goal } in rows {
            let ratio = ours / peer;
            let verdict = if goal.is_none_or(|goal| ratio <= goal) { "" } else { "  missed" };
            let goal = goal.map_or_else(|| "-".to_owned(), |goal| goal.to_string());
            let (ours, peer) = (ours * 1e3, peer * 1e3);
            writeln!(out, "{what:<18} {ours:>9.1} ms {peer:>9.1} ms {ratio:>7.3} {goal:>6}{verdict}")?;
        }
        Ok(())
    }

    /// Sizes on disk and in memory.
    fn sizes(&self, target: &Path) -> Result<()> {
        let Self { engine, name, .. } = self;
        let mut out = std::io::stdout();
        for name in ["agentkernel", "agentkernel-guest"] {
            let length = binary(target, name)?.metadata()?.len();
            writeln!(out, "{name}: {:.2} MB", length as f64 / 1e6)?;
        }
        let us = peak_kib(&mut self.command(&["run", "--image", IMAGE, "--", "true"]))?;
        let peer = peak_kib(&mut engine.program(&["run", "--rm", "--network", "none", IMAGE, "true"]))?;
        let peer_name = engine.name();
        writeln!(out, "peak memory of a run: {us} KiB, {peer_name}'s command {peer} KiB")?;
        let label = format!("label=agentkernel.name={name}");
        let id = read(&mut engine.program(&["ps", "--quiet", "--filter", &label]))?;
        let pid = read(&mut engine.program(&["inspect", "--format", "{{.State.Pid}}", id.trim()]))?;
        let status = fs::read_to_string(format!("/proc/{}/status", pid.trim()))?;
        for line in status.lines().filter(|line| line.starts_with("VmRSS") || line.starts_with("RssAnon")) {
            writeln!(out, "idle guest: {}", line.split_ascii_whitespace().collect::<Vec<_>>().join(" "))?;
        }
        Ok(())
    }
}

/// The last peak that the kernel told while the command ran; getrusage(2) would count the parent's own memory, which a
/// child has until it executes something.
fn peak_kib(command: &mut Command) -> Result<u64> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let status = format!("/proc/{}/status", child.id());
    let mut peak = None;
    let ended = loop {
        if let Some(ended) = child.try_wait()? {
            break ended;
        }
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok()).or(peak);
        thread::sleep(Duration::from_millis(2));
    };
    if !ended.success() {
        bail!("{command:?} ended with {ended}");
    }
    peak.context("the kernel told no peak")
}
