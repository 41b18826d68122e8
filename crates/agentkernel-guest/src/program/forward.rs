//! Connections into the sandbox and out of it, over the host's channels: a port inside needs no network.
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with, sockopt,
};

use super::channel::{Route, Work};
use super::event_loop::{Guest, Source};
use super::sink::{End, Sink};
use crate::protocol::{Failure, FailureCode, FromGuest, GUEST_CHANNEL, MAX_CHANNELS};

/// A connection that is carried.
#[derive(Debug)]
pub(crate) struct Forward {
    route: Route,
    socket: Rc<OwnedFd>,
    sink: Sink,
    /// Not connected yet; what to try if it fails.
    connecting: Option<Option<SocketAddr>>,
    /// The other side sends no more.
    read_ended: bool,
}

/// A port that is listened on inside.
#[derive(Debug)]
pub(crate) struct Listening {
    route: Route,
    socket: OwnedFd,
}

fn failure(errno: Errno, what: &str) -> FromGuest {
    let code = match errno {
        Errno::CONNREFUSED => FailureCode::Refused,
        Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS | Errno::ADDRNOTAVAIL => {
            FailureCode::Exhausted
        }
        Errno::ADDRINUSE => FailureCode::AlreadyExists,
        Errno::ACCESS | Errno::PERM => FailureCode::PermissionDenied,
        _ => FailureCode::Other,
    };
    let source = std::io::Error::from(errno);
    FromGuest::Failed(Failure::new(code, errno.raw_os_error().cast_unsigned(), format!("{what}: {source}")))
}

/// Begins to connect; what is under way is success.
fn dial(address: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let socket = tcp(address)?;
    match connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(errno) => Err(errno),
    }
}

fn tcp(address: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

impl Forward {
    fn new(route: Route, socket: OwnedFd, connecting: Option<Option<SocketAddr>>) -> Self {
        sockopt::set_tcp_nodelay(&socket, true).ok();
        let socket = Rc::new(socket);
        Self {
            route,
            sink: Sink::new(Some(socket.clone()), End::Shutdown),
            socket,
            connecting,
            read_ended: false,
        }
    }
}

impl Guest {
    /// Connects to a port on loopback, the old one first.
    pub(crate) fn connect(&mut self, route: Route, port: u16) {
        let (old, new) =
            (SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port)));
        match dial(old)
            .map(|it| (it, Some(new)))
            .or_else(|errno| dial(new).map(|it| (it, None)).map_err(|_| errno))
        {
            Ok((socket, next)) => {
                let id = self.next_id();
                self.forwards.insert(id, Forward::new(route, socket, Some(next)));
                self.open(route, Work::Forward(id));
            }
            Err(errno) => self.finish(route, &failure(errno, "connecting")),
        }
    }

    /// Listens inside.
    pub(crate) fn listen(&mut self, route: Route, address: SocketAddr) {
        let socket = tcp(address).and_then(|socket| {
            sockopt::set_socket_reuseaddr(&socket, true)?;
            bind(&socket, &address)?;
            listen(&socket, 128)?;
            Ok(socket)
        });
        match socket {
            Ok(socket) => {
                let id = self.next_id();
                self.listening.insert(id, Listening { route, socket });
                self.open(route, Work::Listener(id));
                self.send(route, &FromGuest::Started { id: 0 });
            }
            Err(errno) => self.finish(route, &failure(errno, "listening")),
        }
    }

    pub(crate) fn forward_sources<'a>(&'a self, add: &mut dyn FnMut(Source, BorrowedFd<'a>, PollFlags)) {
        for (id, forward) in &self.forwards {
            let room = self
                .connections
                .get(&forward.route.connection)
                .map_or(0, |it| it.room(forward.route.channel));
            let mut events = PollFlags::empty();
            events.set(PollFlags::OUT, forward.connecting.is_some() || forward.sink.waiting_for().is_some());
            events.set(PollFlags::IN, forward.connecting.is_none() && !forward.read_ended && room > 0);
            if !events.is_empty() {
                add(Source::Forward(*id), forward.socket.as_fd(), events);
            }
        }
        for (id, listening) in self.listening.iter().filter(|_| self.accepts()) {
            let Some(connection) = self.connections.get(&listening.route.connection) else { continue };
            // An `Accepted` counts as data with its 4 bytes.
            if connection.channels.len() < MAX_CHANNELS && connection.room(listening.route.channel) >= 4 {
                add(Source::Listening(*id), listening.socket.as_fd(), PollFlags::IN);
            }
        }
    }

    pub(crate) fn forward_ready(&mut self, id: u64, events: PollFlags, buffer: &mut [u8]) {
        let Some(forward) = self.forwards.get_mut(&id) else { return };
        let route = forward.route;
        if let Some(next) = forward.connecting {
            match sockopt::socket_error(&forward.socket).and_then(|error| error) {
                Ok(()) => {
                    forward.connecting = None;
                    self.send(route, &FromGuest::Started { id: 0 });
                    self.forward_written(id);
                }
                Err(errno) => self.connect_failed(id, errno, next),
            }
            return;
        }
        if events.intersects(PollFlags::OUT) {
            self.forward_written(id);
        }
        if events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            self.forward_read(id, route, buffer);
        }
    }

    fn connect_failed(&mut self, id: u64, errno: Errno, next: Option<SocketAddr>) {
        let Some(forward) = self.forwards.get_mut(&id) else { return };
        if let Some(socket) = next.and_then(|address| dial(address).ok()) {
            let socket = Rc::new(socket);
            forward.socket = socket.clone();
            forward.connecting = Some(None);
            forward.sink.replace(socket);
            return;
        }
        let route = forward.route;
        self.forwards.remove(&id);
        self.finish(route, &failure(errno, "connecting"));
    }

    fn forward_read(&mut self, id: u64, route: Route, buffer: &mut [u8]) {
        let Some(forward) = self.forwards.get_mut(&id).filter(|it| !it.read_ended) else { return };
        let Some(connection) = self.connections.get_mut(&route.connection) else { return };
        let room = connection.room(route.channel).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..room).filter(|buffer| !buffer.is_empty()) else { return };
        match rustix::io::read(&forward.socket, &mut *buffer) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(0) => {
                forward.read_ended = true;
                connection.send(route.channel, &FromGuest::Eof);
                self.forward_check(id);
            }
            Ok(count) => {
                connection.send_data(
                    route.channel,
                    FromGuest::STDOUT,
                    buffer.get(..count).unwrap_or_default(),
                    &[],
                );
            }
            Err(errno) => {
                self.forwards.remove(&id);
                self.finish(route, &failure(errno, "reading from the connection"));
            }
        }
    }

    pub(crate) fn forward_data(&mut self, id: u64, bytes: &[u8]) -> usize {
        let Some(forward) = self.forwards.get_mut(&id) else { return bytes.len() };
        let connecting = forward.connecting.is_some();
        let used = forward.sink.push(bytes, !connecting);
        self.forward_check(id);
        used
    }

    pub(crate) fn forward_eof(&mut self, id: u64) {
        if let Some(forward) = self.forwards.get_mut(&id) {
            let connecting = forward.connecting.is_some();
            let (route, used) = (forward.route, forward.sink.finish(!connecting));
            self.consumed(route, used);
            self.forward_check(id);
        }
    }

    fn forward_written(&mut self, id: u64) {
        if let Some(forward) = self.forwards.get_mut(&id) {
            let (route, used) = (forward.route, forward.sink.write());
            self.consumed(route, used);
            self.forward_check(id);
        }
    }

    /// Ends the channel when both directions have ended.
    fn forward_check(&mut self, id: u64) {
        if let Some(forward) = self.forwards.get(&id)
            && forward.read_ended
            && forward.sink.is_closed()
        {
            let route = forward.route;
            self.forwards.remove(&id);
            self.finish(route, &FromGuest::Done);
        }
    }

    /// Takes a connection that came in.
    pub(crate) fn listening_ready(&mut self, id: u64) {
        let Some(listening) = self.listening.get(&id) else { return };
        let socket = match accept_with(&listening.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(socket) => socket,
            Err(errno) => return self.accept_failed(errno),
        };
        let route = listening.route;
        let Some(connection) = self.connections.get_mut(&route.connection) else { return };
        let channel = free(&connection.channels, &mut connection.next_accepted);
        let accepted = Route { connection: route.connection, channel };
        connection.send_counted(route.channel, &FromGuest::Accepted { channel });
        let id = self.next_id();
        self.forwards.insert(id, Forward::new(accepted, socket, None));
        self.open(accepted, Work::Forward(id));
    }
}

/// The next channel of ours that is not open.
fn free<T>(channels: &BTreeMap<u32, T>, next: &mut u32) -> u32 {
    loop {
        *next = next.wrapping_add(1);
        let channel = *next | GUEST_CHANNEL;
        if channel != GUEST_CHANNEL && !channels.contains_key(&channel) {
            return channel;
        }
    }
}
