//! How a call ends when it does not succeed: exit code and text, as the reference's section 0.2 has them.
use std::fmt::Display;

/// The end of a call that failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The grammar or a `ValidationError`: 64, with usage.
    Usage(String),
    /// Any other error: 1, one line.
    Failed(String),
    /// Ends with this code, and says nothing more.
    Silent(i32),
    /// The reference has this and the stand-in does not: 70.
    Gap(String),
}

pub(crate) type Outcome<T = i32> = Result<T, Failure>;

pub(crate) fn usage<T>(message: impl Display) -> Outcome<T> {
    Err(Failure::Usage(message.to_string()))
}

pub(crate) fn failed<T>(message: impl Display) -> Outcome<T> {
    Err(Failure::Failed(message.to_string()))
}

pub(crate) fn gap<T>(what: impl Display) -> Outcome<T> {
    Err(Failure::Gap(format!("not in the stand-in: {what}")))
}

/// The stand-in's own trouble with its files: never to be taken for an answer of the real one.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Gap(format!("its own files: {error}"))
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Gap(format!("its own state: {error}"))
    }
}

impl From<rustix::io::Errno> for Failure {
    fn from(error: rustix::io::Errno) -> Self {
        std::io::Error::from(error).into()
    }
}
