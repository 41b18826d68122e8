//! `trust`: a person vouches for a config file as it is now.
use std::path::Path;

use agentkernel_core::{Error, ErrorKind, Result, SandboxConfig};

use super::Outcome;
use crate::{
    args::TrustArgs,
    config::{
        file::{self, NAME},
        merge, trust as store,
    },
    output::View,
    report,
};

pub(crate) fn trust(args: &TrustArgs) -> Result<Outcome> {
    let path = args.file.as_deref().unwrap_or(Path::new(NAME));
    let (path, content) = file::read(path).map_err(|source| {
        Error::new(ErrorKind::NotFound, "read config", "the file cannot be read")
            .with_context("file", path.display())
            .with_hint("write one with `agentkernel init`, or name it: `agentkernel trust FILE`")
            .with_source(source)
    })?;
    if args.revoke {
        store::forget(&path)?;
    } else {
        let config = file::parse(&path, &content)?;
        store::trust(&path, &content)?;
        let (_, gained) = merge::narrowing(&SandboxConfig::default(), config);
        let gained =
            if gained.is_empty() { "nothing but restrictions".to_owned() } else { gained.join(", ") };
        report::note(&format!("agentkernel: trusted until it changes; what counts from now on: {gained}"));
    }
    Ok(Outcome::Show(View::Names(vec![path.display().to_string()]), false))
}
