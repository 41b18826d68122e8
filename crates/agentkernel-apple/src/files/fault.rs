//! From what a program inside said to an error of ours.
use std::{error::Error as StdError, fmt};

use agentkernel_core::{Error, ErrorKind, SandboxPath};

/// The longest text that is kept, in characters.
const MAX_TEXT: usize = 1000;

/// What a program inside said.
#[derive(Debug)]
struct Said(String);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "inside: {}", self.0)
    }
}

impl StdError for Said {}

/// How the line ends that tells it: in the words of glibc, musl and the shells, which have some of their own.
const SAYS: &[(&[&str], ErrorKind, &str)] = &[
    (
        &[
            "No such file or directory",
            "no such file",
            "No such file",
            "nonexistent directory",
            "nonexistent",
        ],
        ErrorKind::NotFound,
        "there is no such file or directory",
    ),
    (
        &["Permission denied", "Operation not permitted", "Read-only file system"],
        ErrorKind::PermissionDenied,
        "access is denied inside",
    ),
    (&["File exists"], ErrorKind::AlreadyExists, "there is something of this name"),
    (&["Directory not empty"], ErrorKind::Conflict, "the directory is not empty"),
    (&["Is a directory", "' is a directory", "#directory"], ErrorKind::Conflict, "it is a directory"),
    (&["Not a directory"], ErrorKind::Conflict, "it is not a directory"),
    (&["#irregular"], ErrorKind::Conflict, "it is no regular file"),
    (&["#link"], ErrorKind::Conflict, "a name leads through a link, or changed meanwhile"),
    (&["#target"], ErrorKind::Conflict, "a hard link leads to what is no file of the archive"),
    (&["Device or resource busy", "Text file busy"], ErrorKind::Conflict, "it is in use"),
    (
        &["Too many levels of symbolic links", "Symbolic link loop"],
        ErrorKind::Conflict,
        "the links have no end",
    ),
    (
        &[
            "No space left on device",
            "Disk quota exceeded",
            "Quota exceeded",
            "File too large",
            "Cannot allocate memory",
            "Out of memory",
            "out of memory",
            "Too many open files",
            "Resource temporarily unavailable",
        ],
        ErrorKind::ResourceExhausted,
        "a limit is reached inside",
    ),
    (&["File name too long", "Filename too long"], ErrorKind::InvalidConfig, "the name is too long"),
    (&["#cut"], ErrorKind::Disconnected, "the content did not arrive whole"),
    (
        &[": not found", ": command not found", "applet not found"],
        ErrorKind::Unsupported,
        "the image lacks a program that files are reached with",
    ),
];

/// Maps what a script says of its failure.
pub(super) fn refused(operation: &'static str, path: &SandboxPath, text: &str) -> Error {
    let found = text.lines().find_map(|line| {
        let line = line.trim_end();
        SAYS.iter().find(|(ends, ..)| ends.iter().any(|end| line.ends_with(end)))
    });
    let said = Said(text.trim().chars().take(MAX_TEXT).collect());
    let error = match found {
        Some((_, kind, message)) => Error::new(*kind, operation, *message).with_source(said),
        None => Error::unexpected(operation, "it failed inside", said),
    };
    let error = error.with_context("backend", "apple").with_context("path", path);
    match error.kind() {
        ErrorKind::Unsupported => {
            error.with_hint("use an image with sh, cat, chmod, dd, find, head, ln, ls, mkdir, mv, readlink, rm, rmdir and stat")
        }
        _ => error,
    }
}

/// Says that the answer makes no sense.
pub(super) fn garbled(operation: &'static str, path: &SandboxPath) -> Error {
    Error::unexpected(operation, "the answer from inside cannot be read", Said("garbled".to_owned()))
        .with_context("backend", "apple")
        .with_context("path", path)
}

/// Says that the call ended before it had said everything.
pub(super) fn broken(operation: &'static str, path: &SandboxPath) -> Error {
    Error::new(ErrorKind::Disconnected, operation, "the call ended early")
        .with_context("backend", "apple")
        .with_context("path", path)
        .with_hint("see whether the sandbox still runs, and try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_line_decides() {
        let path = "/x".parse().unwrap();
        for (text, kind) in [
            ("stat: cannot stat '/x': No such file or directory", ErrorKind::NotFound),
            ("sh: can't create ./t: nonexistent directory", ErrorKind::NotFound),
            ("sh: 1: cannot create ./t: Directory nonexistent", ErrorKind::NotFound),
            ("dd: error writing: No space left on device\n0+0 records out", ErrorKind::ResourceExhausted),
            ("mkdir: '/No space left on device': File exists", ErrorKind::AlreadyExists),
            ("#irregular", ErrorKind::Conflict),
            ("sh: stat: not found", ErrorKind::Unsupported),
            ("something else", ErrorKind::Unexpected),
        ] {
            assert_eq!(refused("x", &path, text).kind(), kind, "{text}");
        }
    }
}
