//! `man`: the manual, made from the command line's own description.
use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use agentkernel_core::{Error, ErrorKind, Result};
use clap::{Command, CommandFactory};
use clap_mangen::Man;

use super::Outcome;
use crate::args::{Cli, ManArgs};

pub(crate) fn man(args: &ManArgs) -> Result<Outcome> {
    let command = Cli::command();
    match &args.directory {
        Some(directory) if args.markdown => {
            pages(&mut named(command), directory).map_err(|source| unwritable(directory, source))?;
        }
        Some(directory) => {
            clap_mangen::generate_to(command, directory).map_err(|source| unwritable(directory, source))?;
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

fn unwritable(directory: &Path, source: io::Error) -> Error {
    Error::new(ErrorKind::InvalidConfig, "write the manual", "the pages cannot be written there")
        .with_context("directory", directory.display())
        .with_source(source)
}

/// Gives every verb its whole name, and its help one width on every terminal.
fn named(command: Command) -> Command {
    let mut command = command.term_width(100);
    command.build();
    command
}

/// Writes a page of help for each verb, and an index of them.
fn pages(command: &mut Command, directory: &Path) -> io::Result<()> {
    let mut index = String::from("# The command\n\nMade by `agentkernel man --markdown docs/commands`.\n\n");
    page(command, directory, &mut index)?;
    fs::write(directory.join("README.md"), index)
}

fn page(command: &mut Command, directory: &Path, index: &mut String) -> io::Result<()> {
    let name = command.get_bin_name().unwrap_or(command.get_name()).to_owned();
    let file = format!("{}.md", name.replace(' ', "-"));
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let help = command.render_long_help().to_string();
    let help = help.lines().map(|line| format!("{}\n", line.trim_end())).collect::<String>();
    fs::write(directory.join(&file), format!("# {name}\n\n```text\n{}\n```\n", help.trim_end()))?;
    *index += &format!("- [`{name}`]({file}): {about}\n");
    for verb in command.get_subcommands_mut().filter(|verb| verb.get_name() != "help" && !verb.is_hide_set())
    {
        page(verb, directory, index)?;
    }
    Ok(())
}
