//! Errors, as people and programs read them, and the exit codes of our own.
use std::{
    error::Error as _,
    io::{self, Write},
};

use agentkernel_core::{Error, ErrorKind};
use serde_json::{Value, json};

/// A mistake on the command line.
pub(crate) const USAGE: i32 = 2;
/// A verb without a command failed.
pub(crate) const FAILED: i32 = 1;
/// agentkernel failed before or around a command.
pub(crate) const AROUND_COMMAND: i32 = 125;
const NOT_EXECUTABLE: i32 = 126;
const NOT_FOUND: i32 = 127;
/// What a shell says of a program that SIGPIPE ended: our reader is gone.
pub(crate) const READER_GONE: i32 = 128 + 13;

/// Returns the exit code of an error. `failed` is what the verb ends with when none says more.
pub(crate) fn code(error: &Error, failed: i32) -> i32 {
    match error.kind() {
        ErrorKind::InvalidConfig => USAGE,
        ErrorKind::CommandNotFound => NOT_FOUND,
        ErrorKind::CommandNotExecutable => NOT_EXECUTABLE,
        _ => failed,
    }
}

/// Tells what failed, why, and what helps, on stderr; with `as_json` also as one object on stdout.
pub(crate) fn report(error: &Error, as_json: bool) {
    // There is nowhere left to tell that telling failed.
    let _closed = human(error, &mut io::stderr().lock());
    if as_json {
        object_on_stdout(error);
    }
}

/// Tells it to programs.
pub(crate) fn object_on_stdout(error: &Error) {
    let _closed = writeln!(io::stdout().lock(), "{}", object(error));
}

/// Says something to a person, on stderr.
pub(crate) fn note(text: &str) {
    let _closed = writeln!(io::stderr().lock(), "{text}");
}

fn human(error: &Error, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "error: {error}")?;
    let mut cause = error.source();
    while let Some(error) = cause {
        writeln!(out, "caused by: {}", printable(&error.to_string()))?;
        cause = error.source();
    }
    match error.hint() {
        Some(hint) => writeln!(out, "hint: {hint}"),
        None => Ok(()),
    }
}

fn object(error: &Error) -> Value {
    let context = error.context().iter().map(|(name, value)| json!({"name": name, "value": value}));
    json!({"error": {
        "kind": error.kind().as_str(),
        "operation": error.operation(),
        "message": error.message(),
        "context": context.collect::<Vec<_>>(),
        "hint": error.hint(),
    }})
}

/// Escapes what could drive a terminal: much of what is shown was chosen inside a sandbox.
pub(crate) fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_why_and_what_helps() {
        let error =
            Error::unexpected("start sandbox", "the engine failed", "no\x1b[2J space").with_hint("free some");
        let mut out = Vec::new();
        human(&error, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "error: failed to start sandbox: the engine failed\ncaused by: no\\u{1b}[2J space\nhint: free some\n"
        );
    }

    #[test]
    fn codes_follow_the_table() {
        let code_of = |kind| code(&Error::new(kind, "x", "y"), AROUND_COMMAND);
        let kinds = [
            ErrorKind::InvalidConfig,
            ErrorKind::CommandNotFound,
            ErrorKind::CommandNotExecutable,
            ErrorKind::NotFound,
            ErrorKind::Unavailable,
        ];
        assert_eq!(kinds.map(code_of), [2, 127, 126, 125, 125]);
    }
}
