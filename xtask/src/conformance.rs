//! The conformance kit against one backend or all.
use std::{
    env, fs,
    io::Write,
    path::{self, Path, PathBuf},
    process,
};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::{
    machine,
    process::{cargo, read, run, say},
};

/// Every backend with the package and the test that runs the kit on it.
const BACKENDS: [(&str, &str, &str); 5] = [
    ("fake", "agentkernel-conformance", "fake"),
    ("linux", "agentkernel-linux", "conformance"),
    ("docker", "agentkernel-docker", "conformance"),
    ("podman", "agentkernel-docker", "conformance_podman"),
    ("apple", "agentkernel-apple", "conformance"),
];
/// The versions of Apple's `container` that the stand-in has, the one of the verdict first.
pub(crate) const STAND_INS: [&str; 3] = ["1.2", "1.0", "0.12"];

/// The same for an engine of this machine behind a port of loopback, as one elsewhere is reached; with the feature that
/// the test needs.
const OVER: [(&str, Over, &str, Option<&str>); 3] = [
    ("docker", Over::Tcp, "conformance_tcp", None),
    ("docker", Over::Tls, "conformance_tls", Some("tls")),
    ("podman", Over::Tcp, "conformance_podman_tcp", None),
];

/// How an engine of this machine is reached as if it were elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Over {
    /// Plain tcp, for `docker` and `podman`.
    Tcp,
    /// TLS, for `docker`.
    Tls,
}

/// Which backend, and how the verdict is told.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only this one; it must then be there.
    #[arg(long)]
    backend: Option<String>,
    /// Reaches the engine through a port of loopback, as if it were on another machine.
    #[arg(long, requires = "backend")]
    over: Option<Over>,
    /// Only this version of the stand-in for Apple's `container`: 1.2, 1.0 or 0.12. Default: all, the verdict that of 1.2.
    #[arg(long, requires = "backend", value_name = "VERSION")]
    stand_in: Option<String>,
    /// Prints the verdict on stdout as JSON; docs/writing-a-backend.md says what is in it.
    #[arg(long, requires = "backend")]
    json: bool,
    /// Writes the verdict to this file as JUnit XML.
    #[arg(long, requires = "backend", value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Writes each backend's verdict into this directory, as NAME.json and NAME.xml.
    #[arg(long, value_name = "DIR")]
    verdicts: Option<PathBuf>,
    /// Only trials whose name contains this.
    filter: Option<String>,
}

/// Runs the kit on every backend that is here, for their verdicts.
pub(crate) fn every_backend(verdicts: &Path) -> Result<()> {
    let verdicts = Some(verdicts.to_owned());
    conformance(&Options {
        backend: None,
        over: None,
        stand_in: None,
        json: false,
        junit: None,
        verdicts,
        filter: None,
    })
}

pub(crate) fn conformance(options: &Options) -> Result<()> {
    let chosen = |name: &str| options.backend.as_ref().is_none_or(|backend| backend == name);
    let known = BACKENDS.map(|(name, ..)| name).join(", ");
    if !BACKENDS.iter().any(|(name, ..)| chosen(name)) {
        bail!("there is no such backend; use one of: {known}");
    }
    for (name, package, test) in BACKENDS.into_iter().filter(|(name, ..)| chosen(name)) {
        if let Some(reason) = machine::no_backend(name) {
            if options.backend.is_some() || machine::requires(name) {
                bail!("{name}: {reason}");
            }
            say(&format!("not run: {name}: {reason}"));
            continue;
        }
        let (test, feature) = match options.over {
            None if name == "apple" => (test, Some("any-host")),
            None => (test, None),
            Some(over) => match OVER.iter().find(|row| (row.0, row.1) == (name, over)) {
                Some((.., test, feature)) => (*test, *feature),
                None => bail!("{name} is not tested over that"),
            },
        };
        // The guest beside the test, so that what is tested is what is in this tree.
        run(&mut cargo(["build", "--quiet", "--package", "agentkernel-guest"]))?;
        let kit = || {
            let mut kit = cargo(["test", "--quiet", "--package", package, "--test", test]);
            kit.args(feature.map(|feature| format!("--features={feature}"))).arg("--");
            kit.args(options.filter.as_deref()).env("AGENTKERNEL_REQUIRE_BACKENDS", name);
            kit
        };
        if name != "apple" || !machine::has_stand_in() {
            tell(options, kit())?;
            continue;
        }
        let chosen = options.stand_in.as_deref();
        let versions = STAND_INS.into_iter().filter(|version| chosen.is_none_or(|chosen| chosen == *version));
        for (at, version) in versions.enumerate() {
            say(&format!("apple: the stand-in for `container` {version}"));
            let mut kit = kit();
            kit.env("AGENTKERNEL_STANDIN_VERSION", version);
            if at == 0 { tell(options, kit)? } else { run(&mut kit)? }
        }
    }
    Ok(())
}

/// Runs the kit, and tells the verdict as it is asked for.
fn tell(options: &Options, mut kit: process::Command) -> Result<()> {
    // Absolute: cargo runs a test in the directory of its package.
    if let Some(junit) = &options.junit {
        kit.arg("--junit").arg(path::absolute(junit)?);
    }
    if let Some(verdicts) = &options.verdicts {
        kit.env("AGENTKERNEL_VERDICTS", path::absolute(verdicts)?);
    }
    if !options.json {
        return run(&mut kit);
    }
    let verdict = env::temp_dir().join(format!("agentkernel-verdict-{}.json", process::id()));
    kit.arg("--json").arg(&verdict);
    // The kit's own lines go to stderr: stdout is the verdict alone.
    let outcome = read(&mut kit);
    let json = fs::read(&verdict);
    let _gone = fs::remove_file(&verdict);
    match json {
        Ok(json) => std::io::stdout().write_all(&json)?,
        Err(error) => return outcome.and(Err(error.into())),
    }
    outcome.map(drop)
}
