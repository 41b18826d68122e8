//! Medians of whole commands, by hyperfine.
use anyhow::{Context, Result};
use serde_json::Value;

use crate::process::{command, read};

/// Returns the median of each command in seconds; they run in turn, in one run, each after a pause of so many seconds.
pub(crate) fn medians<const N: usize>(runs: u32, pause: f64, commands: [&str; N]) -> Result<[f64; N]> {
    let (runs, file) =
        (runs.to_string(), std::env::temp_dir().join(format!("agentkernel-bench-{}", std::process::id())));
    let export = file.to_string_lossy().into_owned();
    let mut args =
        vec!["--shell=none", "--style=none", "--warmup=2", "--runs", &runs, "--export-json", &export];
    let prepare = format!("--prepare=sleep {pause}");
    if pause > 0.0 {
        args.push(&prepare);
    }
    args.extend(commands);
    let ran = read(&mut command("hyperfine", args));
    let json = std::fs::read_to_string(&file);
    let _gone = std::fs::remove_file(&file);
    ran?;
    let json: Value = serde_json::from_str(&json?)?;
    let mut medians = [0.0; N];
    for (index, median) in medians.iter_mut().enumerate() {
        *median = json["results"][index]["median"].as_f64().context("hyperfine told no median")?;
    }
    Ok(medians)
}
