//! From what the guest says went wrong to the error of the contract.
use agentkernel_core::{Error, ErrorKind};
use agentkernel_guest::protocol::{DecodeError, Failure, FailureCode};

/// Makes the error of an operation that the guest refused.
pub(crate) fn refused(operation: &'static str, failure: &Failure) -> Error {
    let (kind, message, hint) = meaning(failure.code);
    let error = if kind == ErrorKind::Unexpected {
        Error::unexpected(operation, message, system_error(failure.errno))
    } else {
        let error = Error::new(kind, operation, message);
        if failure.errno == 0 { error } else { error.with_source(system_error(failure.errno)) }
    };
    // With an error number the source says it already, but for what is unexpected: there the guest's words are needed.
    let says_more = !failure.message.is_empty() && (failure.errno == 0 || kind == ErrorKind::Unexpected);
    let error = if says_more { error.with_context("guest", &failure.message) } else { error };
    hint.into_iter().fold(error, Error::with_hint)
}

fn system_error(errno: u32) -> std::io::Error {
    std::io::Error::from_raw_os_error(i32::try_from(errno).unwrap_or(0))
}

fn meaning(code: FailureCode) -> (ErrorKind, &'static str, Option<&'static str>) {
    match code {
        FailureCode::CommandNotFound => {
            (ErrorKind::CommandNotFound, "the program does not exist in the sandbox", None)
        }
        FailureCode::CommandNotExecutable => {
            (ErrorKind::CommandNotExecutable, "the program cannot be executed in the sandbox", None)
        }
        FailureCode::BadDirectory => (
            ErrorKind::NotFound,
            "the working directory does not exist in the sandbox or cannot be entered",
            Some("name an existing one with `--workdir`"),
        ),
        FailureCode::BadUser => (
            ErrorKind::NotFound,
            "the user or group does not exist in the sandbox",
            Some("use numbers, like `--user 1000:1000`"),
        ),
        FailureCode::ArgumentListTooLong => (
            ErrorKind::InvalidConfig,
            "arguments and environment are longer than the kernel accepts",
            Some("pass the content on stdin or in a file"),
        ),
        FailureCode::NoSuchCommand => (ErrorKind::NotFound, "there is no such command in the sandbox", None),
        FailureCode::NotFound => (ErrorKind::NotFound, "the path does not exist in the sandbox", None),
        FailureCode::AlreadyExists => {
            (ErrorKind::AlreadyExists, "the path exists already in the sandbox", None)
        }
        FailureCode::PermissionDenied => {
            (ErrorKind::PermissionDenied, "the sandbox's user may not do this", None)
        }
        FailureCode::NotRegular => (ErrorKind::Conflict, "the path is not a regular file", None),
        FailureCode::NotDirectory => (ErrorKind::Conflict, "the path is not a directory", None),
        FailureCode::IsDirectory => (ErrorKind::Conflict, "the path is a directory", None),
        FailureCode::NotEmpty => (ErrorKind::Conflict, "the directory is not empty", None),
        FailureCode::ReadOnly => (ErrorKind::PermissionDenied, "the file system is read-only", None),
        FailureCode::Exhausted => (
            ErrorKind::ResourceExhausted,
            "the sandbox is out of disk space, memory, processes or descriptors",
            None,
        ),
        FailureCode::Refused => (ErrorKind::NotFound, "nothing listens on this port in the sandbox", None),
        FailureCode::BadArchive => {
            (ErrorKind::InvalidConfig, "the archive is malformed or leads outside", None)
        }
        FailureCode::Canceled => (ErrorKind::Interrupted, "it was canceled", None),
        FailureCode::Invalid => (ErrorKind::Conflict, "the guest cannot do this now", None),
        FailureCode::Other => (ErrorKind::Unexpected, "a system call failed in the sandbox", None),
    }
}

/// Makes the error of a connection that ended because the other side broke the protocol.
pub(crate) fn violation(source: DecodeError) -> Error {
    Error::new(
        ErrorKind::Disconnected,
        "talk to the guest",
        "it broke the protocol, so the connection was ended",
    )
    .with_source(source)
}

/// Makes the error of a connection that ended.
pub(crate) fn lost() -> Error {
    Error::new(ErrorKind::Disconnected, "talk to the guest", "the connection ended")
        .with_hint("the sandbox may have ended: look at `agentkernel list`")
}

/// Makes the error of an answer that makes no sense here.
pub(crate) fn out_of_place(operation: &'static str) -> Error {
    violation(DecodeError("an answer makes no sense here")).with_operation(operation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_source_are_not_repeated() {
        let failed = Failure::new(FailureCode::NotFound, 2, "/x: No such file or directory (os error 2)");
        let shown = refused("read file", &failed).to_string();
        assert_eq!(shown, "failed to read file: the path does not exist in the sandbox");
    }

    #[test]
    fn a_failure_without_an_error_number_is_told_in_the_guests_words() {
        let failed = Failure::new(FailureCode::BadArchive, 0, "a name has `..`");
        let shown = refused("unpack tree", &failed).to_string();
        assert!(shown.ends_with("(guest: a name has `..`)"), "{shown}");
    }
}
