//! File work, in a process of its own: blocking calls, data on stdin and stdout, answers on stderr.
use rustix::io::Errno;

use crate::protocol::{Failure, FailureCode, FromGuest, Request};

/// Makes a failure of an error number.
pub(crate) fn failure(errno: Errno, what: &str) -> Failure {
    let code = match errno {
        Errno::NOENT => FailureCode::NotFound,
        Errno::EXIST => FailureCode::AlreadyExists,
        Errno::ACCESS | Errno::PERM => FailureCode::PermissionDenied,
        Errno::NOTDIR => FailureCode::NotDirectory,
        Errno::ISDIR => FailureCode::IsDirectory,
        Errno::NOTEMPTY => FailureCode::NotEmpty,
        Errno::ROFS => FailureCode::ReadOnly,
        Errno::LOOP | Errno::NXIO | Errno::NODEV => FailureCode::NotRegular,
        Errno::NOSPC
        | Errno::DQUOT
        | Errno::NOMEM
        | Errno::AGAIN
        | Errno::MFILE
        | Errno::NFILE
        | Errno::FBIG => FailureCode::Exhausted,
        Errno::INVAL | Errno::NAMETOOLONG => FailureCode::Invalid,
        _ => FailureCode::Other,
    };
    let source = std::io::Error::from(errno);
    Failure::new(code, errno.raw_os_error().cast_unsigned(), format!("{what}: {source}"))
}

/// Sends a frame to the init.
pub(crate) fn answer(frame: &FromGuest) {
    let mut bytes = Vec::new();
    frame.encode(0, &mut bytes);
    rustix::io::write(rustix::stdio::stderr(), &bytes).ok();
}

/// Does what is asked for.
pub(crate) fn perform(request: &Request) -> Result<(), Failure> {
    let _ = request;
    Err(Failure::new(FailureCode::Invalid, 0, "not yet"))
}
