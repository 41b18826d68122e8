//! The conformance kit against one backend or all.
use anyhow::{Result, bail};
use clap::Args;

use crate::{
    machine,
    process::{cargo, read, run, say},
};

/// Every backend with the package and the test that runs the kit on it.
const BACKENDS: [(&str, &str, &str); 2] =
    [("fake", "agentkernel-conformance", "fake"), ("docker", "agentkernel-docker", "conformance")];

/// Which backend, and how the verdict is told.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only this one; it must then be there.
    #[arg(long)]
    backend: Option<String>,
    /// Prints the verdict as JSON on stdout: an array of {name, outcome, reason}.
    #[arg(long, requires = "backend")]
    json: bool,
    /// Only trials whose name contains this.
    filter: Option<String>,
}

pub(crate) fn conformance(options: &Options) -> Result<()> {
    let chosen = |name: &str| options.backend.as_ref().is_none_or(|backend| backend == name);
    let known = BACKENDS.map(|(name, ..)| name).join(", ");
    if !BACKENDS.iter().any(|(name, ..)| chosen(name)) {
        bail!("there is no such backend; use one of: {known}");
    }
    for (name, package, test) in BACKENDS.into_iter().filter(|(name, ..)| chosen(name)) {
        let missing = if name == "docker" { machine::no_docker() } else { None };
        if let Some(reason) = missing {
            if options.backend.is_some() || machine::requires(name) {
                bail!("{name}: {reason}");
            }
            say(&format!("not run: {name}: {reason}"));
            continue;
        }
        // The guest beside the test, so that what is tested is what is in this tree.
        run(&mut cargo(["build", "--quiet", "--package", "agentkernel-guest"]))?;
        let mut args = vec!["test", "--quiet", "--package", package, "--test", test, "--"];
        args.extend(options.filter.as_deref());
        let mut kit = cargo(args);
        kit.env("AGENTKERNEL_REQUIRE_BACKENDS", name);
        if options.json {
            let verdict =
                std::env::temp_dir().join(format!("agentkernel-verdict-{}.json", std::process::id()));
            kit.env("AGENTKERNEL_CONFORMANCE_JSON", &verdict);
            // The kit's own lines go to stderr: stdout is the verdict alone.
            let outcome = read(&mut kit);
            let json = std::fs::read_to_string(&verdict);
            let _gone = std::fs::remove_file(&verdict);
            std::io::Write::write_all(&mut std::io::stdout(), json?.as_bytes())?;
            outcome?;
        } else {
            run(&mut kit)?;
        }
    }
    Ok(())
}
