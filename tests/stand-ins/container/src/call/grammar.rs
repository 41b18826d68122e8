//! The grammar of swift-argument-parser as far as `container` uses it (reference 0.1 and its corrections 1, 2, 7).
use std::collections::BTreeMap;

use crate::call::{
    control::Version,
    failure::{Failure, Outcome, usage},
};

/// What an option takes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Takes {
    Nothing,
    Text,
    Integer,
    Number,
    OneOf(&'static [&'static str]),
}

/// An option of a command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opt {
    /// All its names with their dashes; the first is its key.
    pub(crate) names: &'static [&'static str],
    pub(crate) value: &'static str,
    pub(crate) takes: Takes,
    pub(crate) since: Version,
}

/// What follows the options.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Positionals {
    Exactly(&'static [&'static str]),
    /// Any number, and at least one if `required`.
    Many {
        name: &'static str,
        required: bool,
    },
    /// The first ends the options; all that follows is a command.
    Command {
        first: &'static str,
        required: bool,
    },
}

/// The grammar of one command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Syntax {
    pub(crate) options: &'static [&'static [Opt]],
    pub(crate) positionals: Positionals,
}

/// A call that is well-formed, but may still have left-over arguments.
#[derive(Debug, Default)]
pub(crate) struct Call {
    values: BTreeMap<&'static str, Vec<String>>,
    pub(crate) positionals: Vec<String>,
    /// Left over: looked at only after the command's own `validate()` (correction 7).
    unknown: Vec<String>,
    unexpected: Vec<String>,
    pub(crate) help: bool,
    pub(crate) version: bool,
}

impl Call {
    pub(crate) fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// Of a scalar given twice, the last wins silently.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).and_then(|values| values.last()).map(String::as_str)
    }

    pub(crate) fn all(&self, key: &str) -> &[String] {
        self.values.get(key).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn integer(&self, key: &str) -> Option<i64> {
        self.get(key).and_then(|value| value.parse().ok())
    }

    /// The first positional; there is one if the grammar says so.
    pub(crate) fn first(&self) -> &str {
        self.positionals.first().map_or("", String::as_str)
    }

    /// The program and its arguments, of a command that takes one.
    pub(crate) fn command(&self) -> &[String] {
        self.positionals.get(1..).unwrap_or_default()
    }

    /// What `parse` left for after `validate()`.
    pub(crate) fn check_rest(&self) -> Outcome<()> {
        if let Some(option) = self.unknown.first() {
            return usage(format!("Unknown option '{option}'"));
        }
        match self.unexpected.as_slice() {
            [] => Ok(()),
            [one] => usage(format!("Unexpected argument '{one}'")),
            many => {
                let quoted = many.iter().map(|value| format!("'{value}'")).collect::<Vec<_>>();
                usage(format!("{} unexpected arguments: {}", many.len(), quoted.join(", ")))
            }
        }
    }
}

/// The first pass over the whole line, before any command is looked for (correction 1).
pub(crate) fn check_split(arguments: &[String]) -> Outcome<()> {
    for argument in arguments {
        if argument == "--" {
            return Ok(());
        }
        if argument.starts_with("---") || argument.starts_with("-=") {
            return usage(format!("Invalid option: {argument}"));
        }
    }
    Ok(())
}

fn is_option(argument: &str) -> bool {
    argument.len() > 1 && argument.starts_with('-')
}

struct Parser<'a> {
    syntax: &'a Syntax,
    version: Version,
    arguments: &'a [String],
    next: usize,
    call: Call,
}

/// Reads what stands behind the command's own words.
pub(crate) fn parse(syntax: &Syntax, version: Version, arguments: &[String]) -> Outcome<Call> {
    let mut parser = Parser { syntax, version, arguments, next: 0, call: Call::default() };
    parser.run()?;
    let mut call = parser.call;
    if call.help || call.version {
        return Ok(call);
    }
    let given = call.positionals.len();
    let missing = match syntax.positionals {
        Positionals::Exactly(names) => {
            call.unexpected = call.positionals.split_off(names.len().min(given));
            names.get(given).map(|name| format!("'<{name}>'"))
        }
        Positionals::Many { name, required } => (required && given == 0).then(|| format!("'<{name}> ...'")),
        Positionals::Command { first, required } => match given {
            0 => Some(format!("'<{first}>'")),
            1 if required => Some("'<arguments> ...'".to_owned()),
            _ => None,
        },
    };
    match missing {
        Some(_) if !call.unknown.is_empty() => {
            call.check_rest()?;
            Ok(call)
        }
        Some(name) => usage(format!("Missing expected argument {name}")),
        None => Ok(call),
    }
}

impl Parser<'_> {
    fn run(&mut self) -> Outcome<()> {
        let is_command = matches!(self.syntax.positionals, Positionals::Command { .. });
        while let Some(argument) = self.arguments.get(self.next) {
            self.next += 1;
            if argument == "--" {
                self.call.positionals.extend_from_slice(self.arguments.get(self.next..).unwrap_or_default());
                return Ok(());
            }
            if !is_option(argument) {
                self.call.positionals.push(argument.clone());
                if is_command {
                    self.call
                        .positionals
                        .extend_from_slice(self.arguments.get(self.next..).unwrap_or_default());
                    return Ok(());
                }
                continue;
            }
            match argument.as_str() {
                "-h" | "--help" => self.call.help = true,
                "--version" => self.call.version = true,
                _ => self.option(argument)?,
            }
            // An unknown option ends it here: it is never taken for the image.
            if is_command {
                self.call.check_rest()?;
            }
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Option<Opt> {
        let mut options = self.syntax.options.iter().flat_map(|group| group.iter());
        options.find(|option| option.since <= self.version && option.names.contains(&name)).copied()
    }

    fn option(&mut self, argument: &str) -> Outcome<()> {
        let (name, joined) = match argument.split_once('=') {
            // `--name=` is `--name` without a value; `-n=` is an empty value (correction 2).
            Some((name, "")) if name.starts_with("--") => (name, None),
            Some((name, value)) => (name, Some(value)),
            None => (argument, None),
        };
        if let Some(option) = self.find(name) {
            return self.known(option, name, joined);
        }
        let is_pack = !name.starts_with("--") && name.chars().count() > 2 && joined.is_none();
        if !is_pack {
            self.call.unknown.push(name.to_owned());
            return Ok(());
        }
        let mut flags = Vec::new();
        for letter in name.chars().skip(1) {
            let short = format!("-{letter}");
            match self.find(&short) {
                Some(option) if matches!(option.takes, Takes::Nothing) => flags.push(option),
                // No joined short values: an option with a value has none in a pack.
                Some(option) => return usage(format!("Missing value for '{short} <{}>'", option.value)),
                None if short == "-h" => self.call.help = true,
                None => {
                    self.call.unknown.push(name.to_owned());
                    return Ok(());
                }
            }
        }
        for option in flags {
            self.store(option, String::new());
        }
        Ok(())
    }

    fn known(&mut self, option: Opt, name: &str, joined: Option<&str>) -> Outcome<()> {
        if matches!(option.takes, Takes::Nothing) {
            if let Some(value) = joined {
                return usage(format!(
                    "The option '{name}' does not take any value, but '{value}' was specified."
                ));
            }
            self.store(option, String::new());
            return Ok(());
        }
        let shown = format!("{name} <{}>", option.value);
        let value = match joined {
            Some(value) => value.to_owned(),
            None => match self.arguments.get(self.next) {
                Some(value) if !is_option(value) => {
                    self.next += 1;
                    value.clone()
                }
                _ => return usage(format!("Missing value for '{shown}'")),
            },
        };
        let fits = match option.takes {
            Takes::Nothing | Takes::Text => true,
            Takes::Integer => value.parse::<i64>().is_ok(),
            Takes::Number => value.parse::<f64>().is_ok(),
            Takes::OneOf(choices) => choices.contains(&value.as_str()),
        };
        if !fits {
            let hint = match option.takes {
                Takes::OneOf(choices) => {
                    let quoted = choices.iter().map(|choice| format!("'{choice}'")).collect::<Vec<_>>();
                    format!(". Please provide one of {}.", quoted.join(", "))
                }
                _ => String::new(),
            };
            return Err(Failure::Usage(format!("The value '{value}' is invalid for '{shown}'{hint}")));
        }
        self.store(option, value);
        Ok(())
    }

    fn store(&mut self, option: Opt, value: String) {
        if let Some(key) = option.names.first() {
            self.call.values.entry(key).or_default().push(value);
        }
    }
}
