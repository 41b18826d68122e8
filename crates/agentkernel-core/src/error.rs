//! The one error type of the contract: opaque, with a kind that says what the caller can do about it.
use std::{borrow::Cow, error::Error as StdError, fmt, io};

/// The result of every fallible call of the contract.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can do about an [`Error`].
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The backend is not installed, not running or not reachable.
    Unavailable,
    /// The backend cannot enforce or do what was asked for.
    Unsupported,
    /// The request itself is wrong and would be wrong everywhere.
    InvalidConfig,
    /// The sandbox, image, volume, command, user or path does not exist.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// The host, the engine or the sandbox refused access.
    PermissionDenied,
    /// The sandbox exists and does not run.
    NotRunning,
    /// The state of the object does not allow the operation.
    Conflict,
    /// The program to run does not exist inside.
    CommandNotFound,
    /// The program to run exists inside and cannot be executed.
    CommandNotExecutable,
    /// A deadline of ours passed. A command's own timeout is an end of the command and no error.
    Timeout,
    /// The caller interrupted the operation.
    Interrupted,
    /// The connection broke before the operation ended: its outcome is unknown.
    Disconnected,
    /// Memory, process ids, disk space, file size or another limit is used up.
    ResourceExhausted,
    /// Anything else; it always has a source.
    Unexpected,
}

impl ErrorKind {
    /// Returns the stable name, as `--json` prints it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Unsupported => "unsupported",
            Self::InvalidConfig => "invalid_config",
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::PermissionDenied => "permission_denied",
            Self::NotRunning => "not_running",
            Self::Conflict => "conflict",
            Self::CommandNotFound => "command_not_found",
            Self::CommandNotExecutable => "command_not_executable",
            Self::Timeout => "timeout",
            Self::Interrupted => "interrupted",
            Self::Disconnected => "disconnected",
            Self::ResourceExhausted => "resource_exhausted",
            Self::Unexpected => "unexpected",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What failed, on what, why, and how to fix it.
///
/// Displays as `failed to start sandbox: image not found (backend: docker, image: alpine:9)`. The source's words
/// are not repeated in it: walk [`source`](StdError::source) for them.
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    operation: Cow<'static, str>,
    message: Cow<'static, str>,
    context: Vec<(&'static str, String)>,
    hint: Option<Cow<'static, str>>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Makes an error. `operation` reads well after "failed to", `message` states the fact, both in lower case.
    pub fn new(
        kind: ErrorKind,
        operation: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self(Box::new(Inner {
            kind,
            operation: operation.into(),
            message: message.into(),
            context: Vec::new(),
            hint: None,
            source: None,
        }))
    }

    /// Makes an [`ErrorKind::Unexpected`] error, which always has a source.
    pub fn unexpected(
        operation: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self::new(ErrorKind::Unexpected, operation, message).with_source(source)
    }

    /// Makes an [`ErrorKind::InvalidConfig`] error about a value that does not parse.
    pub(crate) fn invalid(what: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::InvalidConfig, format!("read {what}"), message)
    }

    /// Adds a fact, shown in parentheses. The same name twice shows both.
    #[must_use]
    pub fn with_context(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.0.context.push((name, escape(&value.to_string())));
        self
    }

    /// Sets the hint: what the reader can do, starting with a verb or a command.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Sets the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Says what the caller was doing, in place of the narrower operation set before.
    #[must_use]
    pub fn with_operation(mut self, operation: impl Into<Cow<'static, str>>) -> Self {
        self.0.operation = operation.into();
        self
    }

    /// Returns what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns what failed; reads well after "failed to".
    pub fn operation(&self) -> &str {
        &self.0.operation
    }

    /// Returns the fact, without operation and context.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Returns the facts added by [`with_context`](Self::with_context), in order.
    pub fn context(&self) -> &[(&'static str, String)] {
        &self.0.context
    }

    /// Returns what the reader can do.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

/// Escapes control characters: context often comes from inside a sandbox and is shown on a terminal.
fn escape(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let plain = !c.is_control() && !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            (!plain).then(|| c.escape_default()).into_iter().flatten().chain(plain.then_some(c))
        })
        .collect()
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to {}: {}", self.0.operation, self.0.message)?;
        for (index, (name, value)) in self.0.context.iter().enumerate() {
            write!(f, "{}{name}: {value}", if index == 0 { " (" } else { ", " })?;
        }
        if self.0.context.is_empty() { Ok(()) } else { f.write_str(")") }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("operation", &self.0.operation)
            .field("message", &self.0.message)
            .field("context", &self.0.context)
            .field("hint", &self.0.hint)
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// Gives back the [`Error`] that a reader of the contract carried; any other error becomes `Unexpected`.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(ours) => ours,
            Err(other) => Self::unexpected("transfer data", "input or output failed", other),
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_gives_operation_message_and_context() {
        let error = Error::new(ErrorKind::NotFound, "start sandbox", "image not found")
            .with_context("backend", "docker")
            .with_context("image", "alpine:9");
        assert_eq!(
            error.to_string(),
            "failed to start sandbox: image not found (backend: docker, image: alpine:9)"
        );
    }

    #[test]
    fn display_does_not_repeat_the_source() {
        let error = Error::unexpected("read file", "the disk answered nonsense", "secret words");
        assert!(!error.to_string().contains("secret words"));
        assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("secret words"));
    }

    #[test]
    fn context_cannot_drive_the_terminal() {
        let error =
            Error::new(ErrorKind::NotFound, "open", "gone").with_context("path", "a\x1b[2J\u{202e}b\né");
        assert_eq!(error.to_string(), r"failed to open: gone (path: a\u{1b}[2J\u{202e}b\né)");
    }

    #[test]
    fn io_error_carries_the_error_there_and_back() {
        let carried = io::Error::from(Error::new(ErrorKind::Timeout, "read", "too slow"));
        assert_eq!(Error::from(carried).kind(), ErrorKind::Timeout);
    }

    #[test]
    fn unexpected_always_has_a_source() {
        assert!(Error::from(io::Error::from(io::ErrorKind::BrokenPipe)).source().is_some());
    }
}
