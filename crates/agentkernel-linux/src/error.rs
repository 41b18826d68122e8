//! Errors of files of our own, and of the helper.
use std::{io, path::Path};

use agentkernel_core::{BackendType, Error, ErrorKind, SandboxName};

/// What a file of ours could not be used for.
pub(crate) fn file(operation: &'static str, path: &Path, source: io::Error) -> Error {
    let kind = match source.kind() {
        io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::ResourceExhausted,
        _ => ErrorKind::Unexpected,
    };
    Error::new(kind, operation, "a file of ours cannot be used")
        .with_source(source)
        .with_context("path", path.display())
}

/// An error about one sandbox.
pub(crate) fn about(
    name: &SandboxName,
    kind: ErrorKind,
    operation: &'static str,
    message: &'static str,
) -> Error {
    Error::new(kind, operation, message)
        .with_context("sandbox", name)
        .with_context("backend", BackendType::Linux)
}

/// What the helper said before it ended; its own words are the source.
pub(crate) fn helper(said: &str) -> Error {
    let said = said.trim().trim_start_matches("agentkernel-guest: ").chars().take(2000).collect::<String>();
    let forbidden = ["mapping user ids", "mapping group ids", "making namespaces", "changing to"];
    let mut error = if forbidden.iter().any(|step| said.contains(step)) {
        Error::new(ErrorKind::Unavailable, "boot sandbox", "this machine forbids user namespaces")
            .with_hint("see `agentkernel doctor`, or use another backend: `--backend docker`")
    } else if said.contains("another file now") {
        Error::new(
            ErrorKind::Conflict,
            "boot sandbox",
            "a directory that is to be shown was replaced meanwhile",
        )
    } else if said.contains("runs already") {
        Error::new(ErrorKind::Conflict, "boot sandbox", "it is being booted by somebody else")
    } else {
        Error::new(ErrorKind::Unexpected, "boot sandbox", "the helper could not make it")
    };
    if said.is_empty() {
        error = error.with_hint("see that `agentkernel-guest` is built for this machine");
    } else {
        error = error.with_source(said);
    }
    error
}
