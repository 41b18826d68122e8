//! `--tree`: every verb and flag on one page, made from the command line's own description.
use std::io::{self, Write};

use clap::{Arg, ArgAction, Command, CommandFactory};

use crate::{args::Cli, report};

/// Prints it and returns the exit code.
pub(crate) fn print() -> i32 {
    let text = text();
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => 0,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => report::READER_GONE,
        Err(_) => report::FAILED,
    }
}

fn text() -> String {
    let mut command = Cli::command();
    command.build();
    let mut text = String::new();
    verb(&command, "", &mut text);
    text
}

/// A line for the verb, one for each of its own flags, and then its verbs.
fn verb(command: &Command, before: &str, text: &mut String) {
    let path = format!("{before}{}", command.get_name());
    let names = command.get_visible_aliases().map(|alias| format!(", {alias}")).collect::<String>();
    let words = command.get_positionals().map(|word| format!(" {word}")).collect::<String>();
    let about = command.get_about().map(|about| format!("  {about}")).unwrap_or_default();
    *text += &format!("{path}{names}{words}{about}\n");
    let is_top = before.is_empty();
    let of_it = |flag: &&Arg| !flag.is_positional() && (is_top || !flag.is_global_set());
    let is_own = |flag: &Arg| {
        !matches!(flag.get_action(), ArgAction::Help | ArgAction::HelpShort | ArgAction::Version)
    };
    for flag in command.get_arguments().filter(of_it).filter(|flag| is_own(flag)) {
        let short = flag.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
        let help = flag.get_help().map(|help| format!("  {help}")).unwrap_or_default();
        *text += &format!("    {short}{flag}{}{help}\n", choices(flag));
    }
    for verb_below in command.get_subcommands().filter(|one| one.get_name() != "help" && !one.is_hide_set()) {
        verb(verb_below, &format!("{path} "), text);
    }
}

fn choices(flag: &Arg) -> String {
    let values = flag.get_possible_values();
    if values.is_empty() || !flag.get_action().takes_values() {
        return String::new();
    }
    let values = values.iter().map(|value| value.get_name()).collect::<Vec<_>>();
    format!(" [{}]", values.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_and_every_flag_is_on_the_page() {
        fn check(command: &Command, text: &str) {
            let name = command.get_name();
            let is_there = [" ", ","].iter().any(|after| text.contains(&format!("{name}{after}")));
            assert!(is_there, "{name}");
            for flag in command
                .get_arguments()
                .filter_map(Arg::get_long)
                .filter(|flag| !["help", "version"].contains(flag))
            {
                assert!(text.contains(&format!("--{flag}")), "{flag}");
            }
            for below in command.get_subcommands().filter(|one| !one.is_hide_set()) {
                check(below, text);
            }
        }
        check(&Cli::command(), &text());
    }
}
