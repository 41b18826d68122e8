//! Everything that this machine can run; what it could not is named at the end.
use std::path::Path;

use anyhow::{Result, bail};

use crate::{
    backends, conformance, downstream, machine, ordinary,
    process::{cargo, run, say, succeeds},
    tidy,
};

/// What no other build has.
const WITH_TLS: [&str; 2] = ["--features", "tls"];

/// The command's own tests, for what only some builds of it have.
const COMMAND: [&str; 6] = ["test", "--package", "agentkernel-cli", "--quiet", "--test", "command"];

pub(crate) fn test() -> Result<()> {
    for backend in ["docker", "podman", "apple"] {
        if let Some(reason) = machine::no_backend(backend).filter(|_| machine::requires(backend)) {
            bail!("{backend} is required and cannot be tested: {reason}");
        }
    }
    tidy::tidy()?;
    run(&mut cargo(["fmt", "--all", "--check"]))?;
    run(&mut cargo(["clippy", "--workspace", "--all-targets", "--quiet", "--", "--deny", "warnings"]))?;
    run(cargo(["clippy", "--package", "agentkernel-docker"]).args(WITH_TLS).args([
        "--all-targets",
        "--quiet",
        "--",
        "--deny",
        "warnings",
    ]))?;
    run(cargo(["doc", "--workspace", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings"))?;
    // First, so that tests find the guest of this tree beside themselves.
    run(&mut cargo(["build", "--workspace", "--bins", "--quiet"]))?;
    let verdicts = backends::fresh_directory()?;
    let mut tests = if succeeds(&mut cargo(["nextest", "--version"])) {
        cargo(["nextest", "run", "--workspace", "--no-fail-fast", "--status-level", "fail"])
    } else {
        cargo(["test", "--workspace", "--no-fail-fast", "--quiet", "--lib", "--bins", "--tests"])
    };
    run(tests.env("AGENTKERNEL_VERDICTS", &verdicts))?;
    if machine::is_linux_root() {
        ordinary::kit()?;
    }
    run(cargo(COMMAND).args(["--features", "linux", "--", "embedded::"]))?;
    if machine::no_apple().is_none() {
        test_apple(&verdicts)?;
    }
    backends::check(&verdicts)?;
    for what in [&["--lib", "--test", "tls"][..], &["--test", "trouble", "tls::"]] {
        run(cargo(["test", "--package", "agentkernel-docker", "--quiet"]).args(WITH_TLS).args(what))?;
    }
    run(&mut cargo(["test", "--workspace", "--doc", "--quiet"]))?;
    downstream::downstream()?;
    for (what, reason) in [
        ("the Docker backend and the command on it", machine::no_docker()),
        ("the kit on Podman", machine::no_podman()),
        ("the Apple backend", machine::no_apple()),
        ("the Apple backend on a Mac", machine::has_stand_in().then_some("it was run on the stand-in")),
        ("pulling images", machine::no_registry()),
        ("killing whole process trees", machine::not_root()),
    ] {
        if let Some(reason) = reason {
            say(&format!("not run: {what}: {reason}"));
        }
    }
    Ok(())
}

/// What the features add that no other build has; the verdict is that of the newest version.
fn test_apple(verdicts: &Path) -> Result<()> {
    for (package, features) in
        [("agentkernel-apple", "any-host"), ("agentkernel-cli", "apple-any-host,linux")]
    {
        let features = format!("--features={features}");
        let rest = ["--all-targets", "--quiet", "--", "--deny", "warnings"];
        run(cargo(["clippy", "--package", package]).arg(&features).args(rest))?;
    }
    let kit = ["test", "--package", "agentkernel-apple", "--features=any-host", "--quiet"];
    run(cargo(kit).args(["--lib", "--tests"]).env("AGENTKERNEL_VERDICTS", verdicts))?;
    for version in conformance::STAND_INS.into_iter().skip(1) {
        run(cargo(kit).args(["--test", "conformance"]).env("AGENTKERNEL_STANDIN_VERSION", version))?;
    }
    run(cargo(COMMAND).args(["--features", "apple-any-host", "--", "apple::"]))
}
