//! A sandbox of the kernel's own means: this program sets it up, becomes its init, and stays outside to clean up.
//!
//! `agentkernel-guest sandbox` reads its plan from stdin and makes one process in new namespaces, which makes its file
//! systems, gives up every right and serves as the guest. The helper itself waits for that end: it holds the sandbox's
//! lock, and removes control groups and directories however its caller ended.

mod collect;
mod filter;
mod inside;
mod keeper;
mod mount;
mod root;

use std::fs::File;
use std::io::{self, Read};

use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::event_loop::Guest;
use crate::setup::{MAGIC, MAX_SETUP, Setup};
use crate::sys;

/// Sets a sandbox up. Returns the guest inside, and does not return outside.
pub(crate) fn sandbox() -> io::Result<Guest> {
    sys::close_from(3);
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    // Away from the caller's terminal and its signals.
    rustix::process::setsid().ok();
    rustix::process::chdir("/")?;
    let setup = read_setup()?;
    keeper::keep(&setup)
}

/// Reads the plan. Whoever starts this program by hand gets no further than here.
fn read_setup() -> io::Result<Setup> {
    let stdin = rustix::stdio::stdin();
    let refused = || io::Error::other("this is started by the agentkernel library only");
    if !FileType::from_raw_mode(fstat(stdin)?.st_mode).is_socket() {
        return Err(refused());
    }
    let mut socket = File::from(rustix::io::fcntl_dupfd_cloexec(stdin, 3)?);
    let mut begin = [0u8; MAGIC.len() + 4];
    socket.read_exact(&mut begin)?;
    let (magic, length) = begin.split_at(MAGIC.len());
    let length = length.try_into().map_or(usize::MAX, |length| u32::from_le_bytes(length) as usize);
    if magic != MAGIC || length > MAX_SETUP {
        return Err(refused());
    }
    let mut payload = vec![0; length];
    socket.read_exact(&mut payload)?;
    Setup::decode(&payload).map_err(io::Error::other)
}

/// Lets go of the three standard streams.
fn forget_streams() -> io::Result<()> {
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    Ok(dup2_stderr(&null)?)
}
