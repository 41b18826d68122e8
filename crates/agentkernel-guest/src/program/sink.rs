//! Data on its way into something inside: a stdin, a terminal, a worker, a connection.
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};

/// What the end of the data means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The descriptor is closed.
    Close,
    /// The end-of-file character is typed.
    Type,
    /// The sending half is shut down.
    Shutdown,
}

/// A descriptor that is written to as it takes the data; what it does not take waits.
#[derive(Debug)]
pub(crate) struct Sink {
    fd: Option<Rc<OwnedFd>>,
    end: End,
    waiting: VecDeque<u8>,
    ended: bool,
    within_line: bool,
}

impl Sink {
    pub(crate) fn new(fd: Option<Rc<OwnedFd>>, end: End) -> Self {
        Self { fd, end, waiting: VecDeque::new(), ended: false, within_line: false }
    }

    /// Takes data, writes it if that is possible `now`, and returns how much of all that was taken is used up.
    pub(crate) fn push(&mut self, bytes: &[u8], now: bool) -> usize {
        if self.fd.is_none() || self.ended {
            return bytes.len();
        }
        if let Some(last) = bytes.last() {
            self.within_line = !matches!(last, b'\n' | b'\r');
        }
        // Mostly there is room at once, and nothing needs to be kept.
        let mut used = 0;
        if now
            && self.waiting.is_empty()
            && let Some(fd) = &self.fd
            && let Ok(count) = rustix::io::write(fd, bytes)
        {
            used = count;
        }
        self.waiting.extend(bytes.get(used..).unwrap_or_default());
        if now { used + self.write() } else { used }
    }

    /// Nothing more comes.
    pub(crate) fn finish(&mut self, now: bool) -> usize {
        if self.ended || self.fd.is_none() {
            return 0;
        }
        if self.end == End::Type {
            // Within a line the first one only ends the line.
            self.waiting.extend(if self.within_line { [4, 4].as_slice() } else { &[4] });
            self.within_line = false;
        } else {
            self.ended = true;
        }
        if now { self.write() } else { 0 }
    }

    /// Writes to another descriptor from now on.
    pub(crate) fn replace(&mut self, fd: Rc<OwnedFd>) {
        self.fd = Some(fd);
    }

    /// Writes what is taken, and returns how much is used up.
    pub(crate) fn write(&mut self) -> usize {
        let mut used = 0;
        while let Some(fd) = &self.fd {
            let (front, _) = self.waiting.as_slices();
            if front.is_empty() {
                break;
            }
            match rustix::io::write(fd, front) {
                Ok(0) | Err(Errno::AGAIN) => return used,
                Ok(count) => {
                    used += count;
                    self.waiting.drain(..count);
                }
                Err(Errno::INTR) => {}
                // Nobody reads any more: what is sent to it is lost, as in any pipe.
                Err(_) => {
                    used += self.waiting.len();
                    self.waiting.clear();
                    self.fd = None;
                }
            }
        }
        self.waiting.shrink_to(4096);
        if self.ended
            && let Some(fd) = self.fd.take()
            && self.end == End::Shutdown
        {
            shutdown(&fd, Shutdown::Write).ok();
        }
        used
    }

    /// The descriptor, if it is to be waited for.
    pub(crate) fn waiting_for(&self) -> Option<BorrowedFd<'_>> {
        if self.waiting.is_empty() { None } else { self.fd.as_ref().map(|fd| fd.as_fd()) }
    }

    /// Whether nothing will be written any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.fd.is_none()
    }
}
