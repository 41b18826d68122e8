//! What contributors and CI run. One verb per file; nothing here depends on our own crates.
mod backends;
mod bench;
mod conformance;
mod dist;
mod downstream;
mod fixture;
mod fuzz;
mod hyperfine;
mod machine;
mod ordinary;
mod process;
mod provision;
mod test;
mod tidy;

use clap::Parser;

/// What contributors and CI run.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
enum Verb {
    /// Installs and starts what the suites need on a Debian or Ubuntu machine, as root.
    Provision,
    /// Runs everything that this machine can run, and names what it could not.
    Test,
    /// Runs the conformance kit against a backend, or against every one that this machine has.
    Conformance(conformance::Options),
    /// Writes the table of backends from the verdicts of the kit, or checks it.
    Backends(backends::Options),
    /// Makes what packagers ship: an archive, its checksum, and with `--deb` a Debian package.
    Dist(dist::Options),
    /// Builds and runs the crates of tests/downstream, and counts what they depend on.
    Downstream,
    /// Searches for inputs that break what reads foreign bytes. Needs a C++ compiler.
    Fuzz(fuzz::Options),
    /// Checks the structure of the workspace.
    Tidy,
    /// Measures against the peer tools, in one run, as ratios. Needs an engine and hyperfine.
    Bench(bench::Options),
}

fn main() -> anyhow::Result<()> {
    match Verb::parse() {
        Verb::Provision => provision::provision(),
        Verb::Test => test::test(),
        Verb::Conformance(options) => conformance::conformance(&options),
        Verb::Backends(options) => backends::backends(&options),
        Verb::Dist(options) => dist::dist(&options),
        Verb::Downstream => downstream::downstream(),
        Verb::Fuzz(options) => fuzz::fuzz(&options),
        Verb::Tidy => tidy::tidy(),
        Verb::Bench(options) => bench::bench(&options),
    }
}
