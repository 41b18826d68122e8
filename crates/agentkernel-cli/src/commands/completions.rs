//! `completions`: what makes a shell ask this program how a line goes on.
use std::io::{self, Write};

use agentkernel_core::{Error, ErrorKind, Result};
use clap_complete::env::Shells;

use super::Outcome;
use crate::args::CompletionsArgs;

/// The variable by which a shell asks; see `main`.
pub(crate) const VARIABLE: &str = "AGENTKERNEL_COMPLETE";

pub(crate) fn completions(args: &CompletionsArgs) -> Result<Outcome> {
    let name = "agentkernel";
    let shells = Shells::builtins();
    let Some(shell) = shells.completer(&args.shell) else {
        return Err(Error::new(ErrorKind::InvalidConfig, "complete", "this shell is not known"));
    };
    let mut script = Vec::new();
    let written = shell.write_registration(VARIABLE, name, name, name, &mut script);
    written
        .and_then(|()| io::stdout().write_all(&script))
        .map_err(|source| Error::unexpected("print the script", "writing to stdout failed", source))?;
    Ok(Outcome::Code(0))
}
