//! From what `container` says to an error with a kind that says what the caller can do about it.
//!
//! Its texts are no contract and come in two styles (`Error: message`, `Error: code: "message" (cause: "...")`), so only
//! parts of them are looked for.
use std::{error::Error as StdError, fmt};

use agentkernel_core::{Error, ErrorKind};

/// The longest text of the command's that is kept, in characters.
const MAX_TEXT: usize = 2000;

/// What the command said, as the source of an error.
#[derive(Debug)]
pub(crate) struct CliMessage {
    pub code: Option<i32>,
    pub text: String,
}

impl fmt::Display for CliMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "`container` ended with {code}: {}", self.text),
            None => write!(f, "`container` was killed: {}", self.text),
        }
    }
}

impl StdError for CliMessage {}

/// What is looked for, first match first, and what it means.
const SAYS: &[(&str, ErrorKind, &str)] = &[
    ("Connection interrupted", ErrorKind::Disconnected, "the service went away meanwhile"),
    ("XPC timeout", ErrorKind::Timeout, "the service did not answer in time"),
    ("XPC connection error", ErrorKind::Unavailable, "the service does not run"),
    ("Plugins are unavailable", ErrorKind::Unavailable, "the service does not run"),
    ("default kernel not configured", ErrorKind::Unavailable, "there is no kernel for the machines"),
    ("failed to find target executable", ErrorKind::CommandNotFound, "there is no such program inside"),
    ("failed to find user", ErrorKind::NotFound, "there is no such user inside"),
    ("failed to find group", ErrorKind::NotFound, "there is no such group inside"),
    ("CancellationError()", ErrorKind::Disconnected, "output was not read in time and is lost"),
    ("is not running", ErrorKind::NotRunning, "the sandbox does not run"),
    ("no runtime client exists", ErrorKind::NotRunning, "the sandbox does not run"),
    ("already exist", ErrorKind::AlreadyExists, "the name is taken"),
    ("mount source path", ErrorKind::NotFound, "a host path that is shown inside does not exist"),
    ("no such container", ErrorKind::NotFound, "there is no such sandbox"),
    ("not found", ErrorKind::NotFound, "there is no such thing"),
    ("notFound", ErrorKind::NotFound, "there is no such thing"),
    ("minimum memory amount", ErrorKind::InvalidConfig, "the memory is less than Apple's 200 MiB"),
];

/// Maps a failed call.
pub(crate) fn failed(operation: &'static str, code: Option<i32>, stderr: &[u8]) -> Error {
    let text = String::from_utf8_lossy(stderr);
    let source = CliMessage { code, text: shown(&text) };
    let error = match SAYS.iter().find(|(part, ..)| text.contains(part)) {
        Some((_, kind, message)) => Error::new(*kind, operation, *message).with_source(source),
        None => Error::unexpected(operation, "`container` failed", source),
    };
    let error = error.with_context("backend", "apple");
    match error.kind() {
        ErrorKind::Unavailable if text.contains("default kernel") => {
            error.with_hint("get one: container system kernel set --recommended")
        }
        ErrorKind::Unavailable => error.with_hint("start the service: container system start"),
        _ => error,
    }
}

/// Of a script of ours: what is missing is the shell.
pub(crate) fn no_shell(error: Error) -> Error {
    if error.kind() != ErrorKind::CommandNotFound {
        return error;
    }
    let operation = error.operation().to_owned();
    Error::new(ErrorKind::Unsupported, operation, "the image has no /bin/sh, through which this is done here")
        .with_context("backend", "apple")
        .with_source(error)
        .with_hint("use an image with a shell, or another backend")
}

/// Says that a call did not end in time and was killed: whether it had an effect is not known.
pub(crate) fn timed_out(operation: &'static str) -> Error {
    Error::new(ErrorKind::Timeout, operation, "`container` did not answer in time")
        .with_context("backend", "apple")
        .with_hint("see whether its service is stuck: container system status")
}

/// Says that an answer cannot be read.
pub(crate) fn garbled(operation: &'static str, source: impl StdError + Send + Sync + 'static) -> Error {
    Error::unexpected(operation, "the answer of `container` cannot be read", source)
        .with_context("backend", "apple")
}

/// Keeps the lines that tell the error, without noise before them, and not without end.
fn shown(text: &str) -> String {
    let from = text.find("Error: ").unwrap_or(0);
    text.get(from..).unwrap_or_default().trim_end().chars().take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_styles_of_errors_are_told_by_their_parts() {
        for (text, kind) in [
            ("Error: get failed: container x not found", ErrorKind::NotFound),
            (
                "Error: internalError: \"failed to delete container\" (cause: \"notFound: \"container with ID x not found\"\")",
                ErrorKind::NotFound,
            ),
            ("Error: container x is not running", ErrorKind::NotRunning),
            ("Error: container already exists: x", ErrorKind::AlreadyExists),
            ("Error: container with id x already exists", ErrorKind::AlreadyExists),
            ("Error: hostname(s) already exist: [\"x\"]", ErrorKind::AlreadyExists),
            ("Error: interrupted: \"XPC connection error: Connection invalid\"", ErrorKind::Unavailable),
            (
                "Error: internalError: \"failed to list containers\" (cause: \"interrupted: \"XPC connection error: Connection invalid\"\")\nEnsure container system service has been started with `container system start`.",
                ErrorKind::Unavailable,
            ),
            ("Error: interrupted: \"XPC connection error: Connection interrupted\"", ErrorKind::Disconnected),
            ("Error: XPC timeout for request to com.apple.container.apiserver/list", ErrorKind::Timeout),
            ("Error: failed to find target executable foo", ErrorKind::CommandNotFound),
            ("Error: something else", ErrorKind::Unexpected),
        ] {
            assert_eq!(failed("x", Some(1), text.as_bytes()).kind(), kind, "{text}");
        }
    }

    #[test]
    fn noise_before_the_error_is_not_shown_and_the_rest_is_bounded() {
        let text = format!("Warning! Running debug build.\nError: {}", "x".repeat(1 << 16));
        let shown = shown(&text);
        assert!(shown.starts_with("Error: x") && shown.len() == MAX_TEXT);
    }
}
