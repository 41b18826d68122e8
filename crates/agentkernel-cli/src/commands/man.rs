//! `man`: the manual, made from the command line's own description.
use std::io::{self, Write};

use agentkernel_core::{Error, ErrorKind, Result};
use clap::CommandFactory;
use clap_mangen::Man;

use super::Outcome;
use crate::args::{Cli, ManArgs};

pub(crate) fn man(args: &ManArgs) -> Result<Outcome> {
    let command = Cli::command();
    match &args.directory {
        Some(directory) => {
            clap_mangen::generate_to(command, directory).map_err(|source| {
                Error::new(ErrorKind::InvalidConfig, "write the manual", "the pages cannot be written there")
                    .with_context("directory", directory.display())
                    .with_source(source)
            })?;
        }
        None => {
            let mut page = Vec::new();
            let made = Man::new(command).render(&mut page);
            made.and_then(|()| io::stdout().write_all(&page)).map_err(|source| {
                Error::unexpected("print the manual", "writing to stdout failed", source)
            })?;
        }
    }
    Ok(Outcome::Code(0))
}
