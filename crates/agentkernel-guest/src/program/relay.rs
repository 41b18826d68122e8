//! What the engine starts for each client of a sandbox elsewhere: stdin to the inner socket, and the socket to stdout.
//! It knows no key and reads nothing of what it carries.
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, connect, shutdown, socket_with,
};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::protocol::INNER_SOCKET;
use crate::sys;

/// How long the guest may take to listen: it has just been started.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much is carried at once, each way.
const ROOM: usize = 64 << 10;

/// Carries until both ways have ended, or the guest's has.
pub(crate) fn relay() -> io::Result<u8> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    sys::close_from(3);
    let socket = dial()?;
    let (stdin, stdout) = (rustix::stdio::stdin(), rustix::stdio::stdout());
    rustix::io::ioctl_fionbio(stdout, true)?;
    let (mut inwards, mut outwards) = (Way::new(), Way::new());
    while !outwards.is_over() {
        let mut fds = Vec::with_capacity(4);
        inwards.add(stdin, socket.as_fd(), &mut fds);
        outwards.add(socket.as_fd(), stdout, &mut fds);
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ready = |fd: BorrowedFd<'_>, wanted: PollFlags| {
            let broken = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
            let same = |poll: &&PollFd<'_>| {
                std::os::fd::AsRawFd::as_raw_fd(&poll.as_fd()) == std::os::fd::AsRawFd::as_raw_fd(&fd)
            };
            fds.iter().filter(same).any(|poll| poll.revents().intersects(wanted | broken))
        };
        let (can_read, from_guest) = (ready(stdin, PollFlags::IN), ready(socket.as_fd(), PollFlags::IN));
        inwards.carry(stdin, socket.as_fd(), can_read);
        outwards.carry(socket.as_fd(), stdout, from_guest);
        if inwards.is_over() && !inwards.told {
            inwards.told = true;
            // The guest closes its side once it has seen ours end.
            let _closed = shutdown(&socket, Shutdown::Write);
        }
    }
    Ok(0)
}

fn dial() -> io::Result<OwnedFd> {
    let until = Instant::now() + PATIENCE;
    let address = SocketAddrUnix::new_abstract_name(INNER_SOCKET)?;
    loop {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        match connect(&socket, &address) {
            Ok(()) => {
                rustix::io::ioctl_fionbio(&socket, true)?;
                return Ok(socket);
            }
            Err(Errno::CONNREFUSED) if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
            Err(errno) => {
                let why = io::Error::from(errno);
                return Err(io::Error::other(format!("the guest does not listen: {why}")));
            }
        }
    }
}

/// One direction.
struct Way {
    buffer: Vec<u8>,
    sent: usize,
    ended: bool,
    told: bool,
}

impl Way {
    fn new() -> Self {
        Self { buffer: Vec::with_capacity(ROOM), sent: 0, ended: false, told: false }
    }

    fn is_over(&self) -> bool {
        self.ended && self.sent == self.buffer.len()
    }

    fn add<'a>(&self, from: BorrowedFd<'a>, to: BorrowedFd<'a>, fds: &mut Vec<PollFd<'a>>) {
        if self.sent < self.buffer.len() {
            fds.push(PollFd::from_borrowed_fd(to, PollFlags::OUT));
        } else if !self.ended {
            fds.push(PollFd::from_borrowed_fd(from, PollFlags::IN));
        }
    }

    fn carry(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, can_read: bool) {
        if self.sent == self.buffer.len() && !self.ended && can_read {
            self.buffer.clear();
            self.sent = 0;
            match sys::read_more(from, &mut self.buffer, ROOM) {
                Ok(0) => self.ended = true,
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => self.ended = true,
            }
        }
        while let Some(rest) = self.buffer.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match rustix::io::write(to, rest) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => {
                    // Nobody takes it: this way is over.
                    self.ended = true;
                    self.sent = self.buffer.len();
                }
            }
        }
    }
}
