//! What contributors and CI run. One verb per file; nothing here depends on our own crates.
mod fixture;
mod process;
mod provision;

use clap::Parser;

/// What contributors and CI run.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
enum Verb {
    /// Installs and starts what the suites need on a Debian or Ubuntu machine, as root.
    Provision,
}

fn main() -> anyhow::Result<()> {
    match Verb::parse() {
        Verb::Provision => provision::provision(),
    }
}
