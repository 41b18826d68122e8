//! How fast and how small, against the peer tools, as ratios: machines differ and are noisy.
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use cargo_metadata::MetadataCommand;

use crate::{
    hyperfine::medians,
    machine,
    process::{cargo, command, read, run, say},
};

const IMAGE: &str = "agentkernel-test";

pub(crate) fn bench() -> Result<()> {
    if let Some(reason) = machine::no_docker() {
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
    let result = measure(&ours.to_string_lossy(), &scratch).and_then(|rows| {
        print(&rows)?;
        sizes(&target, &ours)
    });
    let name = sandbox();
    // Whatever happened before: nothing of the measurement stays.
    let _gone = read(&mut command(&ours.to_string_lossy(), ["remove", "--force", &name]));
    let _gone = read(&mut command("docker", ["rm", "--force", &name]));
    fs::remove_dir_all(&scratch)?;
    result?;
    // An example is not beside the guest.
    let guest = binary(&target, "agentkernel-guest")?;
    let mut library =
        cargo(["run", "--release", "--quiet", "--package", "agentkernel-docker", "--example", "bench_exec"]);
    run(library.env("AGENTKERNEL_GUEST", guest))
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
    goal: f64,
}

fn measure(ours: &str, scratch: &Path) -> Result<Vec<Row>> {
    let name = sandbox();
    let mut rows = Vec::new();
    let mut row = |what, goal, runs, commands: [String; 2]| -> Result<()> {
        say(&format!("measuring: {what}"));
        let [ours, peer] = medians(runs, [&commands[0], &commands[1]])?;
        rows.push(Row { what, ours, peer, goal });
        Ok(())
    };
    row(
        "run, no network",
        0.6,
        25,
        [
            format!("{ours} run --image {IMAGE} -- true"),
            format!("docker run --rm --network none {IMAGE} true"),
        ],
    )?;
    row(
        "run, network",
        0.9,
        15,
        [
            format!("{ours} run --network full --image {IMAGE} -- true"),
            format!("docker run --rm {IMAGE} true"),
        ],
    )?;
    run(&mut command(ours, ["create", &name, "--image", IMAGE]))?;
    run(&mut command(
        "docker",
        ["run", "--detach", "--name", &name, "--network", "none", IMAGE, "sleep", "3600"],
    ))?;
    row("exec", 0.06, 40, [format!("{ours} exec {name} -- true"), format!("docker exec {name} true")])?;
    for (what_in, what_out, goal, runs, length) in
        [("1 KiB in", "1 KiB out", 0.1, 30, 1 << 10), ("100 MiB in", "100 MiB out", 0.7, 5, 100 << 20)]
    {
        let (source, back) = (scratch.join("in"), scratch.join("out"));
        fs::write(&source, vec![b'x'; length])?;
        let (source, back) = (source.display(), back.display());
        row(
            what_in,
            goal,
            runs,
            [format!("{ours} cp {source} {name}:/tmp/f"), format!("docker cp {source} {name}:/tmp/f")],
        )?;
        row(
            what_out,
            goal,
            runs,
            [format!("{ours} cp {name}:/tmp/f {back}"), format!("docker cp {name}:/tmp/f {back}")],
        )?;
    }
    Ok(rows)
}

fn print(rows: &[Row]) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{:<18} {:>12} {:>12} {:>7} {:>6}", "median", "agentkernel", "docker", "ratio", "goal")?;
    for Row { what, ours, peer, goal } in rows {
        let ratio = ours / peer;
        let verdict = if ratio <= *goal { "" } else { "  missed" };
        let (ours, peer) = (ours * 1e3, peer * 1e3);
        writeln!(out, "{what:<18} {ours:>9.1} ms {peer:>9.1} ms {ratio:>7.3} {goal:>6}{verdict}")?;
    }
    Ok(())
}

/// Sizes on disk and in memory.
fn sizes(target: &Path, ours: &Path) -> Result<()> {
    let mut out = std::io::stdout();
    for name in ["agentkernel", "agentkernel-guest"] {
        let length = binary(target, name)?.metadata()?.len();
        writeln!(out, "{name}: {:.2} MB", length as f64 / 1e6)?;
    }
    let ours = ours.to_string_lossy();
    let us = peak_kib(&ours, &["run", "--image", IMAGE, "--", "true"])?;
    let peer = peak_kib("docker", &["run", "--rm", "--network", "none", IMAGE, "true"])?;
    writeln!(out, "peak memory of a run: {us} KiB, docker's command {peer} KiB")?;
    let label = format!("label=agentkernel.name={}", sandbox());
    let id = read(&mut command("docker", ["ps", "--quiet", "--filter", &label]))?;
    let pid = read(&mut command("docker", ["inspect", "--format", "{{.State.Pid}}", id.trim()]))?;
    let status = fs::read_to_string(format!("/proc/{}/status", pid.trim()))?;
    for line in status.lines().filter(|line| line.starts_with("VmRSS") || line.starts_with("RssAnon")) {
        writeln!(out, "idle guest: {}", line.split_ascii_whitespace().collect::<Vec<_>>().join(" "))?;
    }
    Ok(())
}

/// The last peak that the kernel told while the command ran; getrusage(2) would count the parent's own memory, which a
/// child has until it executes something.
fn peak_kib(program: &str, args: &[&str]) -> Result<u64> {
    let mut child = command(program, args).stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
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
        bail!("{program} ended with {ended}");
    }
    peak.context("the kernel told no peak")
}
