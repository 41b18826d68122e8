//! The structure that a reviewer should not have to look for.
use std::{collections::HashSet, fs, path::Path};

use anyhow::{Context, Result, bail};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

use crate::process::{read, say};

/// Which of our crates may depend on which, beside dev-dependencies.
const EDGES: [(&str, &[&str]); 12] = [
    ("agentkernel-core", &[]),
    ("agentkernel-guest", &[]),
    ("agentkernel-host", &["agentkernel-core", "agentkernel-guest"]),
    ("agentkernel-docker", &["agentkernel-core", "agentkernel-host"]),
    ("agentkernel-apple", &["agentkernel-core", "agentkernel-host"]),
    ("agentkernel-linux", &["agentkernel-core", "agentkernel-host"]),
    (
        "agentkernel-cli",
        &[
            "agentkernel-core",
            "agentkernel-guest",
            "agentkernel-host",
            "agentkernel-apple",
            "agentkernel-docker",
            "agentkernel-linux",
        ],
    ),
    ("agentkernel-conformance", &["agentkernel-core"]),
    ("agentkernel-intruder", &[]),
    ("agentkernel-container-stand-in", &[]),
    (
        "agentkernel-fuzz",
        &[
            "agentkernel-core",
            "agentkernel-guest",
            "agentkernel-host",
            "agentkernel-apple",
            "agentkernel-docker",
        ],
    ),
    ("xtask", &[]),
];
/// Names that say nothing of what is inside.
const EMPTY_NAMES: [&str; 5] = ["utils.rs", "helpers.rs", "common.rs", "types.rs", "misc.rs"];

pub(crate) fn tidy() -> Result<()> {
    let metadata = MetadataCommand::new().no_deps().exec().context("cargo metadata failed")?;
    let mut wrong = Vec::new();
    check_edges(&metadata, &mut wrong);
    for file in
        read(&mut crate::process::command("git", ["ls-files", "--cached", "--others", "--exclude-standard"]))?
            .lines()
            .map(|file| metadata.workspace_root.join(file))
            .filter(|file| file.exists())
    {
        let path = file.as_std_path();
        if file.extension() == Some("rs") {
            check_source(path, file.strip_prefix(&metadata.workspace_root)?.as_str(), &mut wrong)?;
        } else if file.file_name() == Some("Cargo.toml")
            && file.parent() != Some(metadata.workspace_root.as_path())
            && !file.starts_with(metadata.workspace_root.join("tests/downstream"))
        {
            check_manifest(path, &mut wrong)?;
        }
    }
    if wrong.is_empty() {
        say("tidy: nothing to complain about");
        return Ok(());
    }
    bail!("tidy:\n  {}", wrong.join("\n  "))
}

fn check_edges(metadata: &Metadata, wrong: &mut Vec<String>) {
    let ours = metadata.packages.iter().map(|package| package.name.to_string()).collect::<HashSet<_>>();
    for package in &metadata.packages {
        let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == package.name.as_str()) else {
            wrong.push(format!("{}: it has no line in the table of allowed edges", package.name));
            continue;
        };
        for dependency in &package.dependencies {
            let is_edge = ours.contains(&dependency.name) && dependency.kind != DependencyKind::Development;
            if is_edge && !allowed.contains(&dependency.name.as_str()) {
                wrong.push(format!("{} must not depend on {}", package.name, dependency.name));
            }
        }
    }
}

fn check_source(path: &Path, shown: &str, wrong: &mut Vec<String>) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
    if !text.starts_with("//!") {
        wrong.push(format!("{shown}: the first line does not say what the file owns (`//!`)"));
    }
    if path.file_name().is_some_and(|name| EMPTY_NAMES.iter().any(|empty| name == *empty)) {
        wrong.push(format!("{shown}: its name says nothing"));
    }
    let code = text.lines().map(str::trim).filter(|line| !line.starts_with("//"));
    for line in code {
        let bare_allow = ["#[allow", "#![allow"].iter().any(|allow| line.starts_with(allow));
        if bare_allow {
            wrong.push(format!("{shown}: `allow` instead of `expect` with a reason"));
        }
        let is_unsafe =
            ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"].iter().any(|word| line.contains(word));
        let may = [
            "crates/agentkernel-guest/src/sys",
            "crates/agentkernel-linux/src/sys",
            "tests/intruder/src/sys",
            "xtask/src/tidy.rs",
        ];
        if is_unsafe && !may.iter().any(|may| shown.starts_with(may)) {
            wrong.push(format!("{shown}: `unsafe` outside a `sys` module"));
        }
    }
    Ok(())
}

/// Versions stand once, in the workspace table.
fn check_manifest(path: &Path, wrong: &mut Vec<String>) -> Result<()> {
    let mut in_dependencies = false;
    for line in fs::read_to_string(path)?.lines() {
        if line.starts_with('[') {
            in_dependencies = line.contains("dependencies");
        } else if in_dependencies && line.contains('=') && !line.contains("workspace = true") {
            wrong.push(format!("{}: `{line}` is not from the workspace table", path.display()));
        }
    }
    Ok(())
}
