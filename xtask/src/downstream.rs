//! Tiny crates outside the workspace that use one part each: they build, run, and pay for few crates.
use std::{collections::HashSet, fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};
use cargo_metadata::MetadataCommand;

use crate::{
    machine,
    process::{cargo, read, run, say},
};

const ROOT: &str = "tests/downstream";

pub(crate) fn downstream() -> Result<()> {
    let workspace = MetadataCommand::new().no_deps().exec().context("cargo metadata failed")?;
    // Tests find the guest beside themselves; so do these.
    run(&mut cargo(["build", "--quiet", "--package", "agentkernel-guest"]))?;
    let mut crates = fs::read_dir(workspace.workspace_root.join(ROOT))?
        .map(|entry| Ok(entry?.path()))
        .filter(|path: &Result<_>| path.as_ref().is_ok_and(|path| path.join("Cargo.toml").exists()))
        .collect::<Result<Vec<_>>>()?;
    crates.sort();
    for path in crates {
        // The versions of the workspace; cargo drops what the crate does not use.
        fs::copy(workspace.workspace_root.join("Cargo.lock"), path.join("Cargo.lock"))?;
        let cargo = |args: &[&str]| {
            let mut cargo = cargo(args);
            cargo.current_dir(&path).env("CARGO_TARGET_DIR", &workspace.target_directory);
            cargo
        };
        check_budget(
            &path,
            &mut cargo(&["tree", "--edges", "normal", "--prefix", "none", "--format", "{p}"]),
        )?;
        let needs_docker = path.ends_with("only-docker");
        match machine::no_docker().filter(|_| needs_docker) {
            Some(reason) => {
                run(&mut cargo(&["build", "--quiet"]))?;
                say(&format!("not run: {}: {reason}", path.display()));
            }
            None => run(&mut cargo(&["run", "--quiet"]))?,
        }
    }
    Ok(())
}

/// Counts the crates of the tree, the downstream crate itself left out.
fn check_budget(path: &Path, tree: &mut Command) -> Result<()> {
    let manifest = MetadataCommand::new().current_dir(path).no_deps().exec()?;
    let package = manifest.packages.first().context("a downstream crate has no package")?;
    let budget = package.metadata["agentkernel"]["crate-budget"].as_u64();
    let budget = budget.with_context(|| format!("{} has no crate budget", package.name))?;
    let tree = read(tree)?;
    let crates = tree.lines().map(|line| line.trim_end_matches(" (*)")).collect::<HashSet<_>>().len() - 1;
    say(&format!("{}: {crates} crates, and {budget} are the budget", package.name));
    if u64::try_from(crates)? > budget {
        bail!("{}: {crates} crates, and {budget} are the budget", package.name);
    }
    Ok(())
}
