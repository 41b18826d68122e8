//! The guest's state and its one loop: wait, do what is ready, move output on, send, look at the clock.
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use super::cgroup::Cgroup;
use super::channel::{Channel, Route, Work};
use super::command::Command;
use super::connection::Connection;
use super::door::{self, Door};
use super::environment::Environment;
use super::forward::{Forward, Listening};
use super::identity::Rights;
use super::ring::Stream;
use super::worker::Worker;
use crate::protocol::{FromGuest, MAX_CONNECTIONS, MAX_DATA, Status};
use crate::sys;

/// The grace of a shutdown that the engine asks for by SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// How commands are run unless they say otherwise.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) user: Option<Vec<u8>>,
    pub(crate) cwd: Vec<u8>,
    pub(crate) environment: Environment,
    pub(crate) rights: Rights,
    pub(crate) log_output: bool,
    /// How much of each command's output is kept.
    pub(crate) kept: usize,
    /// How much of all output is kept that nobody waits for.
    pub(crate) kept_in_all: usize,
}

/// How the host comes in, and what says that it is gone.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    /// The host's own socket.
    pub(crate) listener: Option<OwnedFd>,
    /// Ours, where the host shares no kernel with us.
    pub(crate) door: Option<Door>,
    /// The sandbox ends with it.
    pub(crate) lease: Option<OwnedFd>,
}

/// Something that the loop waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Signals,
    Listener,
    Door,
    Proving(u64),
    Lease,
    Connection(u64),
    CommandReport(u64),
    CommandTree(u64),
    CommandOutput(u64, Stream),
    CommandInput(u64),
    CommandLog(u64),
    WorkerStatus(u64),
    WorkerOutput(u64),
    WorkerInput(u64),
    Forward(u64),
    Listening(u64),
}

/// Everything that the guest knows.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) settings: Settings,
    pub(crate) cgroup: Cgroup,
    pub(crate) is_init: bool,
    pub(crate) connections: BTreeMap<u64, Connection>,
    pub(crate) commands: BTreeMap<u64, Command>,
    pub(crate) next_command: u64,
    pub(crate) workers: BTreeMap<u64, Worker>,
    /// Workers that nobody waits for any more, by process, and when they are killed.
    pub(crate) leaving: BTreeMap<i32, Instant>,
    pub(crate) forwards: BTreeMap<u64, Forward>,
    pub(crate) listening: BTreeMap<u64, Listening>,
    /// Answers that wait for credit.
    pub(crate) listings: BTreeMap<Route, VecDeque<FromGuest>>,
    /// When orphans are looked for again.
    pub(crate) orphans: Option<Instant>,
    /// When everything is killed.
    pub(crate) shutdown: Option<Instant>,
    /// Descriptors for when there are no others.
    pub(crate) spare: Vec<OwnedFd>,
    next_id: u64,
    pub(crate) signals: OwnedFd,
    ways: Ways,
    lease_ended: bool,
    deadline: Option<Instant>,
    oom_explained: u64,
    /// When descriptors had run out, until when no connection is accepted.
    accept_again: Option<Instant>,
    /// The main command's end, which is ours.
    exit_code: Option<u8>,
    buffer: Vec<u8>,
}

impl Guest {
    pub(crate) fn new(
        settings: Settings,
        cgroup: Cgroup,
        signals: OwnedFd,
        ways: Ways,
        boot: Connection,
        deadline: Option<Instant>,
        is_init: bool,
    ) -> Self {
        Self {
            settings,
            cgroup,
            is_init,
            connections: BTreeMap::from([(1, boot)]),
            commands: BTreeMap::new(),
            next_command: 0,
            workers: BTreeMap::new(),
            leaving: BTreeMap::new(),
            forwards: BTreeMap::new(),
            listening: BTreeMap::new(),
            listings: BTreeMap::new(),
            orphans: None,
            shutdown: None,
            spare: Vec::new(),
            next_id: 1,
            signals,
            ways,
            lease_ended: false,
            deadline,
            oom_explained: 0,
            accept_again: None,
            exit_code: None,
            buffer: vec![0; MAX_DATA],
        }
    }

    /// Serves until the sandbox ends; returns its exit code.
    pub(crate) fn serve(mut self) -> u8 {
        self.reserve();
        // The host may have asked for something already.
        self.frames(1);
        loop {
            self.deliver();
            self.forget_commands();
            for connection in self.connections.values_mut() {
                connection.flush();
            }
            if let Some(code) = self.remove_broken().or_else(|| self.over(Instant::now())) {
                if self.ways.door.is_some() && !self.lease_ended {
                    door::farewell(std::mem::take(&mut self.connections).into_values());
                }
                self.kill_all();
                return code;
            }
            match self.wait() {
                Ok(ready) => {
                    for (source, events) in ready {
                        self.handle(source, events);
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                // A guest that cannot wait cannot serve: end, and with it the sandbox.
                Err(_) => {
                    self.kill_all();
                    return super::FAILED;
                }
            }
            self.clock(Instant::now());
        }
    }

    pub(crate) fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn wait(&self) -> io::Result<Vec<(Source, PollFlags)>> {
        let mut waits = Vec::new();
        self.sources(&mut |source, fd, events| waits.push((source, fd, events)));
        let mut fds: Vec<PollFd<'_>> =
            waits.iter().map(|(_, fd, events)| PollFd::from_borrowed_fd(*fd, *events)).collect();
        let timeout = self.due().map(|due| due.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        poll(&mut fds, timeout.as_ref())?;
        let ready = waits.iter().map(|(source, _, _)| *source).zip(fds.iter().map(PollFd::revents));
        Ok(ready.filter(|(_, events)| !events.is_empty()).collect())
    }

    fn sources<'a>(&'a self, add: &mut dyn FnMut(Source, BorrowedFd<'a>, PollFlags)) {
        let (read, write) = (PollFlags::IN, PollFlags::OUT);
        add(Source::Signals, self.signals.as_fd(), read);
        for (id, command) in &self.commands {
            if let Some(report) = &command.report {
                add(Source::CommandReport(*id), report.as_fd(), read);
            }
            // Before the end, so that what a pipe holds is counted after it.
            if let Some(tree) = &command.tree {
                add(Source::CommandTree(*id), tree.as_fd(), read);
            }
            for (stream, fd) in command.outputs.readable() {
                add(Source::CommandOutput(*id, stream), fd, read);
            }
            if let Some(fd) = command.sink.waiting_for() {
                add(Source::CommandInput(*id), fd, write);
            }
            if let Some(fd) = command.outputs.log_waits() {
                add(Source::CommandLog(*id), fd, write);
            }
        }
        self.worker_sources(add);
        self.forward_sources(add);
        for (id, connection) in &self.connections {
            add(Source::Connection(*id), connection.socket.as_fd(), connection.events());
        }
        let accepts = self.connections.len() < MAX_CONNECTIONS && self.accept_again.is_none();
        if let Some(listener) = self.ways.listener.as_ref().filter(|_| accepts) {
            add(Source::Listener, listener.as_fd(), read);
        }
        if let Some(door) = &self.ways.door {
            if accepts && door.has_room() {
                add(Source::Door, door.listener.as_fd(), read);
            }
            for (id, socket) in door.sockets() {
                add(Source::Proving(id), socket.as_fd(), read);
            }
        }
        if let Some(lease) = &self.ways.lease {
            add(Source::Lease, lease.as_fd(), read);
        }
    }

    fn handle(&mut self, source: Source, events: PollFlags) {
        match source {
            Source::Signals => self.read_signals(),
            Source::Listener => self.accept(),
            Source::Door => {
                let places = MAX_CONNECTIONS.saturating_sub(self.connections.len());
                if let Some(errno) = self.ways.door.as_mut().and_then(|door| door.knock(places)) {
                    self.accept_failed(errno);
                }
            }
            Source::Proving(id) => {
                if let Some(socket) = self.ways.door.as_mut().and_then(|door| door.hear(id)) {
                    let id = self.next_id();
                    self.connections.insert(id, Connection::new(socket));
                }
            }
            Source::Lease => self.lease_ended |= self.ways.lease.as_ref().is_some_and(door::ended),
            Source::Connection(id) => self.connection_ready(id, events),
            Source::CommandReport(id) => self.command_report(id),
            Source::CommandTree(id) => self.command_tree(id),
            Source::CommandOutput(id, stream) => {
                if let Some(command) = self.commands.get_mut(&id) {
                    command.outputs.read(stream, &mut self.buffer);
                }
            }
            Source::CommandInput(id) => self.command_writable(id),
            // Written below, with everything else.
            Source::CommandLog(_) => {}
            Source::WorkerStatus(id) => self.worker_status(id),
            Source::WorkerOutput(id) => self.worker_output(id),
            Source::WorkerInput(id) => self.worker_writable(id),
            Source::Forward(id) => {
                let mut buffer = std::mem::take(&mut self.buffer);
                self.forward_ready(id, events, &mut buffer);
                self.buffer = buffer;
            }
            Source::Listening(id) => self.listening_ready(id),
        }
    }

    fn read_signals(&mut self) {
        while let Some(signal) = sys::read_signal(&self.signals) {
            match signal.number {
                libc::SIGCHLD => {
                    // Who ends is known from its pipes; here it is only put to rest.
                    let options = libc::WNOHANG | libc::WUNTRACED | libc::__WALL;
                    while let Ok(Some((pid, status))) = sys::wait(-1, options) {
                        if libc::WIFSTOPPED(status) {
                            self.worker_stopped(pid);
                        } else {
                            self.worker_died(pid, status);
                            self.stub_died(pid);
                        }
                    }
                }
                // From outside only: nobody inside decides when the sandbox ends.
                libc::SIGTERM if signal.sender == 0 || !self.is_init => match self.shutdown {
                    Some(_) => self.shutdown = Some(Instant::now()),
                    None => self.begin_shutdown(GRACE),
                },
                _ => {}
            }
        }
    }

    /// Begins to end the sandbox.
    pub(crate) fn begin_shutdown(&mut self, grace: Duration) {
        let until = Instant::now() + grace;
        self.shutdown = Some(self.shutdown.map_or(until, |earlier| earlier.min(until)));
        self.terminate_all();
    }

    fn accept(&mut self) {
        while self.connections.len() < MAX_CONNECTIONS
            && let Some(listener) = &self.ways.listener
        {
            let socket = match accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => socket,
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(errno) => return self.accept_failed(errno),
            };
            // Inside there is no way to this socket; a peer with a process id would have found one.
            if self.is_init && !matches!(sys::peer_pid(&socket), Ok(0)) {
                continue;
            }
            let id = self.next_id();
            self.connections.insert(id, Connection::new(socket));
        }
    }

    /// The socket stays ready when descriptors have run out: it is not asked again at once.
    pub(crate) fn accept_failed(&mut self, errno: Errno) {
        if errno != Errno::AGAIN {
            self.accept_again = Some(Instant::now() + Duration::from_millis(100));
        }
    }

    pub(crate) fn accepts(&self) -> bool {
        self.accept_again.is_none()
    }

    fn connection_ready(&mut self, id: u64, events: PollFlags) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if events.contains(PollFlags::IN) {
            if connection.receive() {
                self.frames(id);
            } else {
                connection.broken = true;
            }
        } else if events.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
            connection.broken = true;
        }
    }

    /// Sends a frame that is no data.
    pub(crate) fn send(&mut self, route: Route, frame: &FromGuest) {
        if let Some(connection) = self.connections.get_mut(&route.connection) {
            connection.send(route.channel, frame);
        }
    }

    /// Opens a channel.
    pub(crate) fn open(&mut self, route: Route, work: Work) {
        if let Some(connection) = self.connections.get_mut(&route.connection) {
            connection.channels.insert(route.channel, Channel::new(work));
        }
    }

    /// Sends the terminal frame of a channel.
    pub(crate) fn finish(&mut self, route: Route, frame: &FromGuest) {
        if let Some(connection) = self.connections.get_mut(&route.connection) {
            connection.channels.remove(&route.channel);
            connection.send(route.channel, frame);
        }
    }

    /// Grants the host as much as was used up.
    pub(crate) fn consumed(&mut self, route: Route, count: usize) {
        if let Some(connection) = self.connections.get_mut(&route.connection)
            && let Some(channel) = connection.channels.get_mut(&route.channel)
            && let Some(credit) = channel.consume(count)
        {
            connection.send(route.channel, &FromGuest::Credit(credit));
        }
    }

    /// Whether the kernel has killed something for want of memory, since there were `before` such kills, that does
    /// not explain another death yet.
    pub(crate) fn oom_happened(&mut self, before: u64) -> bool {
        let explained = self.oom_explained.max(before);
        self.spare.clear();
        let happened = self.cgroup.oom_kills() > explained;
        self.reserve();
        if happened {
            self.oom_explained = explained + 1;
        }
        happened
    }

    fn remove_broken(&mut self) -> Option<u8> {
        let broken: Vec<u64> =
            self.connections.iter().filter(|(_, it)| it.broken).map(|(id, _)| *id).collect();
        for id in broken {
            let connection = self.connections.remove(&id)?;
            if connection.lease {
                return Some(0);
            }
            for (channel, it) in &connection.channels {
                self.close_work(Route { connection: id, channel: *channel }, it.work);
            }
        }
        None
    }

    /// The code to end with, if it is time.
    fn over(&mut self, now: Instant) -> Option<u8> {
        if self.lease_ended {
            return Some(0);
        }
        for command in self.commands.values() {
            if command.main && command.outputs.is_over() {
                self.exit_code = self.exit_code.or(Some(code(command.status)));
            }
        }
        if let Some(code) = self.exit_code
            && !self.connections.values().any(|it| it.holds_end && it.queued() > 0)
        {
            return Some(code);
        }
        let nothing_left =
            self.commands.values().all(|command| command.tree_gone && command.outputs.is_over())
                && self.connections.values().all(|connection| connection.queued() == 0);
        match self.shutdown {
            Some(until) if nothing_left || until <= now => return Some(self.exit_code.unwrap_or(0)),
            _ => {}
        }
        self.deadline.filter(|deadline| *deadline <= now).map(|_| 0)
    }

    fn due(&self) -> Option<Instant> {
        let commands = self.commands.values().flat_map(|command| {
            [command.timeout, command.kill.as_ref().map(|kill| kill.next), command.outputs.due()]
        });
        let connections = self.connections.values().map(|connection| connection.hello_by);
        let proving = self.ways.door.as_ref().and_then(Door::due);
        let own = [self.deadline, self.shutdown, self.orphans, self.accept_again, proving];
        let leaving = self.leaving.values().map(|due| Some(*due));
        commands.chain(connections).chain(leaving).chain(own).flatten().min()
    }

    fn clock(&mut self, now: Instant) {
        for connection in self.connections.values_mut() {
            connection.broken |= connection.hello_by.is_some_and(|due| due <= now);
        }
        if let Some(door) = &mut self.ways.door {
            door.clock(now);
        }
        self.accept_again = self.accept_again.filter(|due| *due > now);
        self.workers_due(now);
        let mut timed_out = Vec::new();
        for (id, command) in &mut self.commands {
            command.outputs.tick(now);
            if command.timeout.is_some_and(|due| due <= now) {
                command.timeout = None;
                command.timed_out = command.status.is_none();
                if command.timed_out {
                    timed_out.push(*id);
                }
            }
        }
        for id in timed_out {
            self.kill_command(id);
        }
        self.kill_due(now);
    }
}

/// What containers say of an end.
fn code(status: Option<Status>) -> u8 {
    match status {
        Some(Status::Code(code)) => code,
        Some(Status::Signal(number)) => number.saturating_add(128),
        Some(Status::TimedOut) => 124,
        Some(Status::OutOfMemory) | None => 137,
    }
}
