//! From what the engine says to an error with a kind that says what the caller can do about it.
use std::{error::Error as StdError, io};

use agentkernel_core::{Error, ErrorKind};
use bollard::errors::Error as EngineError;

use crate::{EngineKind, endpoint::Endpoint, podman, tls, transport::NotConnected};

/// The longest message of the engine's that is kept, in characters.
const MAX_MESSAGE: usize = 2000;

/// The engine's own words, as the source of an error.
#[derive(Debug)]
pub(crate) struct EngineMessage {
    pub status: u16,
    pub text: String,
}

impl std::fmt::Display for EngineMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the engine answered {}: {}", self.status, self.text)
    }
}

impl StdError for EngineMessage {}

/// Returns the status that the engine answered with, if that is the error.
pub(crate) fn status(error: &Error) -> Option<u16> {
    message_of(error).map(|message| message.status)
}

/// Returns whether the engine's words contain a text.
pub(crate) fn says(error: &Error, text: &str) -> bool {
    message_of(error).is_some_and(|message| message.text.contains(text))
}

fn message_of(error: &Error) -> Option<&EngineMessage> {
    StdError::source(error).and_then(|source| source.downcast_ref())
}

/// Maps an error of the engine's client.
pub(crate) fn map(operation: &'static str, error: EngineError, endpoint: &Endpoint) -> Error {
    match error {
        EngineError::DockerResponseServerError { status_code, message } => {
            refused(operation, status_code, &message, endpoint.kind)
        }
        EngineError::DockerStreamError { error } => refused(operation, 500, &error, endpoint.kind),
        EngineError::IOError { err } => match err.downcast::<NotConnected>() {
            Ok(NotConnected(source)) => endpoint.unreachable(source).with_operation(operation),
            Err(source) => lost(operation, source, endpoint.kind),
        },
        EngineError::RequestTimeoutError => timed_out(operation, endpoint.kind),
        EngineError::HyperResponseError { err } if err.is_parse() => garbled(operation, err),
        EngineError::HyperResponseError { err } => match (tls::trouble(&err), find_io(&err)) {
            // TLS 1.3 tells only after the handshake that our certificate is not accepted.
            (Some((kind, message, hint)), _) => Error::new(kind, operation, message)
                .with_context("address", &endpoint.address)
                .with_hint(hint)
                .with_source(err),
            (None, Some(too_long)) if too_long.kind() == io::ErrorKind::Other => garbled(operation, err),
            _ => lost(operation, err, endpoint.kind),
        },
        other => garbled(operation, other),
    }
}

fn find_io<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// Says that the engine did not answer in time.
pub(crate) fn timed_out(operation: &'static str, engine: EngineKind) -> Error {
    Error::new(ErrorKind::Timeout, operation, "the engine did not answer in time")
        .with_hint(format!("see whether it is stuck: {} info", engine.command()))
}

fn lost(operation: &'static str, source: impl StdError + Send + Sync + 'static, engine: EngineKind) -> Error {
    Error::new(ErrorKind::Disconnected, operation, "the engine closed the connection before it answered")
        .with_source(source)
        .with_hint(engine.log())
}

fn garbled(operation: &'static str, source: impl StdError + Send + Sync + 'static) -> Error {
    Error::unexpected(operation, "the engine's answer cannot be read", source)
}

fn refused(operation: &'static str, status: u16, text: &str, engine: EngineKind) -> Error {
    let text = text.trim().chars().take(MAX_MESSAGE).collect::<String>();
    let status = if engine == EngineKind::Podman { podman::status(status, &text) } else { status };
    let (kind, message, hint) = classify(status, &text);
    let error = Error::new(kind, operation, message).with_source(EngineMessage { status, text });
    match hint {
        Some(hint) => error.with_hint(hint.replace("{engine}", engine.command())),
        None => error,
    }
}

/// What the engine means: by its words where they say more than the status does.
fn classify(status: u16, text: &str) -> (ErrorKind, &'static str, Option<&'static str>) {
    const RULES: &[(&str, ErrorKind, &str, Option<&str>)] = &[
        (
            "client sent an http request to an https server",
            ErrorKind::Unavailable,
            "the engine speaks TLS there",
            Some(
                "set DOCKER_TLS_VERIFY=1, and DOCKER_CERT_PATH to the directory of ca.pem, cert.pem and key.pem",
            ),
        ),
        (
            "could not find bridge",
            ErrorKind::Unavailable,
            "the engine's network `bridge` is gone",
            Some("restart the engine: sudo systemctl restart {engine}"),
        ),
        (
            "no space left on device",
            ErrorKind::ResourceExhausted,
            "the engine's disk is full",
            Some("free space: {engine} system prune"),
        ),
        (
            "bind source path does not exist",
            ErrorKind::NotFound,
            "the engine does not see a path that is to be shown inside",
            Some("check the paths of `mounts`, and that the engine runs on this machine"),
        ),
        (
            "range of cpus",
            ErrorKind::Unsupported,
            "this backend cannot enforce `vcpus` here: the machine has fewer processors",
            None,
        ),
        (
            "minimum memory limit",
            ErrorKind::Unsupported,
            "this backend cannot enforce `memory_mb` here: the limit is below the engine's least",
            Some("ask for at least 6 MiB"),
        ),
        (
            "setrlimit",
            ErrorKind::Unsupported,
            "this backend cannot enforce `open_files` here: the limit is above the engine's own",
            None,
        ),
        (
            "error setting rlimit",
            ErrorKind::Unsupported,
            "this backend cannot enforce `open_files` here: the limit is above the engine's own",
            None,
        ),
    ];
    let lower = text.to_ascii_lowercase();
    if let Some((_, kind, message, hint)) = RULES.iter().find(|(words, ..)| lower.contains(words)) {
        return (*kind, message, *hint);
    }
    match status {
        400 => (ErrorKind::InvalidConfig, "the engine refuses the request", None),
        401 | 403 => (ErrorKind::PermissionDenied, "the engine refuses access", None),
        404 => (ErrorKind::NotFound, "the engine has no such object", None),
        409 => (ErrorKind::Conflict, "the object's state does not allow it", None),
        _ => (ErrorKind::Unexpected, "the engine failed", None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_follow_the_words_and_then_the_status() {
        let kind = |status, text: &str| refused("boot sandbox", status, text, EngineKind::Docker).kind();
        assert_eq!(kind(404, "No such container: x"), ErrorKind::NotFound);
        assert_eq!(kind(500, "could not find bridge docker0: route ip+net"), ErrorKind::Unavailable);
        assert_eq!(kind(500, "mkdir: No space left on device"), ErrorKind::ResourceExhausted);
        assert_eq!(kind(400, "Range of CPUs is from 0.01 to 2.00"), ErrorKind::Unsupported);
        assert_eq!(kind(400, "Client sent an HTTP request to an HTTPS server."), ErrorKind::Unavailable);
        assert_eq!(kind(502, ""), ErrorKind::Unexpected);
    }

    #[test]
    fn the_engines_words_are_the_source_and_not_the_message() {
        let error = refused("boot sandbox", 500, "secret words", EngineKind::Docker);
        assert!(!error.to_string().contains("secret words"));
        assert!(says(&error, "secret words"));
        assert_eq!(status(&error), Some(500));
    }
}
