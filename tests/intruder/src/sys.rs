//! The calls that no safe wrapper has.
#![expect(unsafe_code, reason = "no crate wraps leases, and a fork is as safe as its program")]
use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// On which side of a fork the caller is.
pub(crate) enum Forked {
    Child,
    Parent,
}

/// Makes a copy of this process, which must have one thread.
pub(crate) fn fork() -> nix::Result<Forked> {
    // SAFETY: there is no other thread whose locks or memory the child could find half changed.
    let result = unsafe { nix::unistd::fork() };
    result.map(|forked| if forked.is_child() { Forked::Child } else { Forked::Parent })
}

/// Takes a lease on a file that nobody else has open (`F_SETLEASE` of fcntl(2)).
pub(crate) fn take_write_lease(file: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as it is borrowed, and the argument is the number that `F_SETLEASE`
    // takes; no memory is passed.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
