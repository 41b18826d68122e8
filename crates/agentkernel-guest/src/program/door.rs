//! The way in where the host shares no kernel with us: it gives a key on stdin, and every connection to the inner socket
//! begins with it. A relay that the engine starts carries each connection.
//!
//! The socket's name is taken before any command runs and held until the end, so that nobody inside can answer there;
//! whoever connects must have the guest's own uid, which no command has, and then still know the key.
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen,
    recv, shutdown, socket_with,
};

use super::connection::{Connection, HELLO};
use crate::protocol::{INIT_UID, INNER_SOCKET, KEY_LEN};
use crate::sys;

/// How long the host may take from the start until its first connection is proven.
const FIRST: Duration = Duration::from_secs(60);
/// How long what was sent may take to arrive when the sandbox ends.
const LAST: Duration = Duration::from_secs(2);
/// How many connections may be unproven at once.
const MAX_PROVING: usize = 16;
/// How many connections are refused in one turn of the loop: who knocks without end holds up nobody.
const REFUSED_AT_ONCE: usize = 32;

/// The inner socket and what waits before it.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) listener: OwnedFd,
    key: [u8; KEY_LEN],
    proving: BTreeMap<u64, Proving>,
    /// The uid that a relay has.
    uid: u32,
    next: u64,
}

#[derive(Debug)]
struct Proving {
    socket: OwnedFd,
    got: Vec<u8>,
    until: Instant,
}

impl Door {
    /// Reads the key from stdin and listens. Stdin is then the lease: it is returned, and replaced by `/dev/null`.
    pub(crate) fn open(is_init: bool) -> io::Result<(Self, OwnedFd)> {
        let until = Instant::now() + FIRST;
        let mut key = [0; KEY_LEN];
        let mut got = 0;
        while let Some(rest) = key.get_mut(got..).filter(|rest| !rest.is_empty()) {
            if !wait(&[rustix::stdio::stdin()], until)? {
                return Err(io::Error::other("the key did not come in time"));
            }
            match rustix::io::read(rustix::stdio::stdin(), rest) {
                Ok(0) => return Err(io::Error::other("the host hung up before the key")),
                Ok(count) => got += count,
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let lease = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
        let null = open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::stdio::dup2_stdin(&null)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let listener = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        bind(&listener, &SocketAddrUnix::new_abstract_name(INNER_SOCKET)?)?;
        listen(&listener, 64)?;
        let uid = if is_init { INIT_UID } else { rustix::process::getuid().as_raw() };
        Ok((Self { listener, key, proving: BTreeMap::new(), uid, next: 0 }, lease))
    }

    /// Waits for the first connection that knows the key. Nothing else runs inside yet.
    pub(crate) fn first(&mut self, lease: &OwnedFd) -> io::Result<OwnedFd> {
        let until = Instant::now() + FIRST;
        loop {
            let mut fds = vec![lease.as_fd(), self.listener.as_fd()];
            fds.extend(self.proving.values().map(|proving| proving.socket.as_fd()));
            if !wait(&fds, until)? {
                return Err(io::Error::other("the host did not connect in time"));
            }
            if ended(lease) {
                return Err(io::Error::other("the host hung up before it connected"));
            }
            self.knock(MAX_PROVING);
            let ids: Vec<u64> = self.proving.keys().copied().collect();
            if let Some(socket) = ids.into_iter().find_map(|id| self.hear(id)) {
                return Ok(socket);
            }
            self.clock(Instant::now());
        }
    }

    /// Whether another connection may begin to prove itself.
    pub(crate) fn has_room(&self) -> bool {
        self.proving.len() < MAX_PROVING
    }

    /// Accepts what waits, so long as there are places; who has not a relay's uid is sent away.
    pub(crate) fn knock(&mut self, places: usize) -> Option<Errno> {
        let mut refused = 0;
        while self.proving.len() < places.min(MAX_PROVING) && refused < REFUSED_AT_ONCE {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = match accept_with(&self.listener, flags) {
                Ok(socket) => socket,
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(errno) => return Some(errno),
            };
            if sys::peer_uid(&socket).ok() != Some(self.uid) {
                refused += 1;
                continue;
            }
            self.next += 1;
            let proving = Proving { socket, got: Vec::with_capacity(KEY_LEN), until: Instant::now() + HELLO };
            self.proving.insert(self.next, proving);
        }
        None
    }

    /// Reads of the key what has come; returns the connection once it is proven. One that is wrong is closed.
    pub(crate) fn hear(&mut self, id: u64) -> Option<OwnedFd> {
        let proving = self.proving.get_mut(&id)?;
        let mut buffer = [0; KEY_LEN];
        // Not a byte more: what follows is the protocol's.
        let rest = buffer.get_mut(..KEY_LEN - proving.got.len())?;
        match recv(&proving.socket, &mut *rest, RecvFlags::DONTWAIT) {
            Ok((_, count)) if count > 0 => proving.got.extend_from_slice(rest.get(..count)?),
            Err(Errno::AGAIN | Errno::INTR) => return None,
            Ok(_) | Err(_) => {
                self.proving.remove(&id);
                return None;
            }
        }
        if proving.got.len() < KEY_LEN {
            return None;
        }
        let proving = self.proving.remove(&id)?;
        // Every byte is compared, so that the time tells nothing.
        let differs = proving.got.iter().zip(&self.key).fold(0, |all, (a, b)| all | (a ^ b));
        (std::hint::black_box(differs) == 0).then_some(proving.socket)
    }

    pub(crate) fn sockets(&self) -> impl Iterator<Item = (u64, &OwnedFd)> {
        self.proving.iter().map(|(id, proving)| (*id, &proving.socket))
    }

    /// When the next one has had its time.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.proving.values().map(|proving| proving.until).min()
    }

    pub(crate) fn clock(&mut self, now: Instant) {
        self.proving.retain(|_, proving| proving.until > now);
    }
}

/// Lets what was sent arrive: the relays carry it, and die with us.
pub(crate) fn farewell(connections: impl Iterator<Item = Connection>) {
    let until = Instant::now() + LAST;
    let mut sockets: Vec<OwnedFd> = connections
        .map(|mut connection| {
            connection.flush();
            connection.socket
        })
        .collect();
    for socket in &sockets {
        let _closed = shutdown(socket, Shutdown::Write);
    }
    // A relay hangs up once it has passed everything on.
    while !sockets.is_empty() && Instant::now() < until {
        let fds: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        if !wait(&fds, until).unwrap_or(false) {
            break;
        }
        sockets.retain(|socket| match recv(socket, &mut [0; 4096], RecvFlags::DONTWAIT) {
            Ok((_, count)) => count > 0,
            Err(errno) => matches!(errno, Errno::AGAIN | Errno::INTR),
        });
    }
}

/// Whether the lease is over. What comes on it says nothing.
pub(crate) fn ended(lease: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(lease, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    if !matches!(poll(&mut fds, Some(&now)), Ok(1..)) {
        return false;
    }
    match rustix::io::read(lease, &mut [0; 64]) {
        Ok(count) => count == 0,
        Err(errno) => !matches!(errno, Errno::AGAIN | Errno::INTR),
    }
}

fn wait(fds: &[std::os::fd::BorrowedFd<'_>], until: Instant) -> io::Result<bool> {
    let left =
        Timespec::try_from(until.saturating_duration_since(Instant::now())).map_err(io::Error::other)?;
    let mut fds: Vec<PollFd<'_>> =
        fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    match poll(&mut fds, Some(&left)) {
        Ok(0) => Ok(false),
        Ok(_) | Err(Errno::INTR) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}
