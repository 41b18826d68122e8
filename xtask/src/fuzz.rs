//! Searches for inputs that break what reads foreign bytes, guided by coverage.
//!
//! libFuzzer on stable Rust: the compiler's own coverage passes are stable flags; only the sanitizers are not, and what
//! they look for is `unsafe`, which the targets have none of.
use std::{env, fs, path::PathBuf};

use anyhow::{Context, Result, bail};
use cargo_metadata::MetadataCommand;
use clap::Args;

use crate::process::{cargo, command, read, run, say};

/// Where inputs are kept that break something or reach what no other does.
const CORPUS: &str = "tests/fuzz/corpus";
/// Coverage for libFuzzer: what `cargo fuzz` passes, without a sanitizer.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks";
/// A slow input is a finding, in seconds; so is one that takes so many MiB.
const TIMEOUT: &str = "-timeout=25";
const MEMORY: &str = "-rss_limit_mb=1024";

/// Which target, and for how long.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How long each target runs.
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u32,
    /// Puts the inputs that reached something new into the corpus of the repository, as few as possible.
    #[arg(long)]
    keep: bool,
    /// Only this target.
    target: Option<String>,
}

pub(crate) fn fuzz(options: &Options) -> Result<()> {
    let metadata = MetadataCommand::new().no_deps().exec().context("cargo metadata failed")?;
    let directory = metadata.target_directory.join("fuzz").into_std_path_buf();
    let seeds = directory.join("seeds");
    run(cargo(["run", "--quiet", "--package", "agentkernel-fuzz", "--bin", "seeds", "--"]).arg(&seeds))?;
    let mut targets = fs::read_dir(&seeds)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<Vec<_>>>()?;
    targets.sort();
    if let Some(only) = &options.target {
        if !targets.contains(only) {
            bail!("there is no such target; use one of: {}", targets.join(", "));
        }
        targets.retain(|target| target == only);
    }
    let program = build(&directory)?;
    let mut broken = Vec::new();
    for target in &targets {
        let (found, kept) = (directory.join("corpus").join(target), PathBuf::from(CORPUS).join(target));
        fs::create_dir_all(&found)?;
        fs::create_dir_all(&kept)?;
        say(&format!("fuzz: {target}, {} s", options.seconds));
        let fuzzer = || {
            let mut fuzzer = command(&program.to_string_lossy(), [TIMEOUT, MEMORY, "-verbosity=0"]);
            fuzzer.env("AGENTKERNEL_FUZZ_TARGET", target).env_remove("RUST_BACKTRACE");
            fuzzer
        };
        // The first directory gets what is new; what breaks something goes where `cargo test` replays it.
        let mut search = fuzzer();
        search
            .arg(format!("-max_total_time={}", options.seconds))
            .arg(format!("-artifact_prefix={}/found-", kept.display()))
            .args(["-print_final_stats=1", "-max_len=8192"])
            .args([&found, &kept, &seeds.join(target)]);
        if run(&mut search).is_err() {
            broken.push(target.as_str());
        } else if options.keep {
            // By code reached alone: how often, and with which numbers, would keep thousands.
            let mut merge = fuzzer();
            merge.args(["-set_cover_merge=1", "-use_counters=0", "-use_cmp=0", "-max_len=4096"]);
            run(merge.args([&kept, &seeds.join(target), &found]))?;
        }
        // An empty one says nothing.
        let _filled = fs::remove_dir(&kept);
    }
    if broken.is_empty() {
        return Ok(());
    }
    bail!(
        "broken: {}; what breaks them is in {CORPUS}, and `cargo test -p agentkernel-fuzz` replays it",
        broken.join(", ")
    )
}

/// Builds the fuzzer apart from everything else, since flags for all crates change.
fn build(directory: &std::path::Path) -> Result<PathBuf> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let host = read(command(&rustc.to_string_lossy(), ["--print", "host-tuple"]).env_remove("RUSTFLAGS"))?;
    let host = host.trim();
    let mut build =
        cargo(["build", "--quiet", "--release", "--package", "agentkernel-fuzz", "--bin", "fuzz"]);
    build
        .args(["--features", "libfuzzer", "--target", host, "--target-dir"])
        .arg(directory)
        // Not the release profile's own: an abort without a message, and no symbols to name the place.
        .args(["--config", "profile.release.panic='unwind'", "--config", "profile.release.lto=false"])
        .args([
            "--config",
            "profile.release.strip='none'",
            "--config",
            "profile.release.debug='line-tables-only'",
        ])
        .env("RUSTFLAGS", FLAGS);
    run(&mut build)?;
    Ok(directory.join(host).join("release/fuzz"))
}
