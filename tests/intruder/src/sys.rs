//! The call that no safe wrapper has.
#![expect(unsafe_code, reason = "no crate wraps leases")]
use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// Takes a lease on a file that nobody else has open (`F_SETLEASE` of fcntl(2)).
pub(crate) fn take_write_lease(file: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as it is borrowed, and the argument is the number that `F_SETLEASE`
    // takes; no memory is passed.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
