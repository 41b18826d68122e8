//! What the host asks for: frames to deeds, and where the deeds' output goes.
use std::time::Duration;

use super::channel::{Route, Work};
use super::command::canceled;
use super::event_loop::Guest;
use super::output::next;
use super::ring::Stream;
use crate::protocol::{
    DecodeError, FrameReader, FromGuest, GUEST_CHANNEL, MAX_CHANNELS, MIN_VERSION, Request, ToGuest, VERSION,
};

impl Guest {
    /// Handles the whole frames that a connection has received. One that breaks a rule ends it.
    pub(crate) fn frames(&mut self, id: u64) {
        loop {
            let Some(connection) = self.connections.get_mut(&id).filter(|it| !it.broken) else { return };
            // Lent out, so that data is passed on from where it was received; back before anything else is handled, so
            // that who holds a tree sheds it.
            let mut reader = std::mem::replace(&mut connection.reader, FrameReader::new(0));
            let next = self.pass_data(id, &mut reader);
            let Some(connection) = self.connections.get_mut(&id) else { return };
            connection.reader = reader;
            let handled = match next {
                Ok(Some((route, frame))) => self.frame(route, frame),
                Ok(None) => return connection.settle(),
                Err(error) => Err(error),
            };
            if handled.is_err()
                && let Some(connection) = self.connections.get_mut(&id)
            {
                connection.broken = true;
            }
        }
    }

    /// Passes data on and returns the next frame that is none; `None` if more bytes are needed.
    fn pass_data(
        &mut self,
        id: u64,
        reader: &mut FrameReader,
    ) -> Result<Option<(Route, ToGuest)>, DecodeError> {
        while let Some((header, payload)) = reader.next()? {
            let route = Route { connection: id, channel: header.channel };
            if header.kind != ToGuest::DATA {
                return Ok(Some((route, ToGuest::decode(header.kind, payload)?)));
            }
            self.data(route, payload)?;
        }
        Ok(None)
    }

    fn data(&mut self, route: Route, bytes: &[u8]) -> Result<(), DecodeError> {
        let Some(connection) = self.connections.get_mut(&route.connection) else { return Ok(()) };
        if route.channel == 0 || connection.hello_by.is_some() {
            return Err(DecodeError("data comes before it can be meant for anything"));
        }
        // It may have ended while the frame was under way.
        let Some(channel) = connection.channels.get_mut(&route.channel) else { return Ok(()) };
        channel.receive(bytes.len())?;
        let used = match channel.work {
            Work::Command(id) => self.command_data(id, route, bytes),
            Work::Worker(id) => self.worker_data(id, bytes),
            Work::Forward(id) => self.forward_data(id, bytes),
            Work::Listener(_) | Work::Listing => bytes.len(),
        };
        self.consumed(route, used);
        Ok(())
    }

    fn frame(&mut self, route: Route, frame: ToGuest) -> Result<(), DecodeError> {
        let Some(connection) = self.connections.get_mut(&route.connection) else { return Ok(()) };
        let own = matches!(
            frame,
            ToGuest::Hello { .. } | ToGuest::Configure(_) | ToGuest::Ping(_) | ToGuest::Shutdown { .. }
        );
        if own != (route.channel == 0) {
            return Err(DecodeError("a frame is on the wrong channel"));
        }
        if let ToGuest::Hello { version, min_version } = frame {
            let speaks = version >= MIN_VERSION && min_version <= VERSION;
            let first = connection.hello_by.take().is_some();
            return if first && speaks { Ok(()) } else { Err(DecodeError("a hello that is not wanted")) };
        }
        if connection.hello_by.is_some() {
            return Err(DecodeError("the first frame is no hello"));
        }
        match frame {
            ToGuest::Hello { .. } | ToGuest::Configure(_) => {
                return Err(DecodeError("the sandbox is configured already"));
            }
            ToGuest::Ping(number) => connection.send(0, &FromGuest::Pong(number)),
            ToGuest::Shutdown { grace_ms } => self.begin_shutdown(Duration::from_millis(grace_ms.into())),
            ToGuest::Request(request) => {
                if route.channel & GUEST_CHANNEL != 0 {
                    return Err(DecodeError("the host opens a channel of the guest's"));
                }
                if connection.channels.contains_key(&route.channel) {
                    return Err(DecodeError("a channel is opened twice"));
                }
                if connection.channels.len() >= MAX_CHANNELS {
                    return Err(DecodeError("too many channels"));
                }
                self.request(route, request);
            }
            frame => return self.channel_frame(route, &frame),
        }
        Ok(())
    }

    fn request(&mut self, route: Route, request: Request) {
        match request {
            Request::Spawn(spawn) => self.spawn(route, spawn),
            Request::Attach { id, replay } => self.attach(route, id, replay),
            Request::Commands => self.list_commands(route),
            Request::Stats => {
                let stats = self.cgroup.stats();
                self.send(route, &FromGuest::Stats(stats));
                self.finish(route, &FromGuest::Done);
            }
            Request::Connect { port } => self.connect(route, port),
            Request::Listen { address } => self.listen(route, address),
            Request::Open { .. }
            | Request::Write { .. }
            | Request::Metadata { .. }
            | Request::ReadDir { .. }
            | Request::CreateDir { .. }
            | Request::RemovePath { .. }
            | Request::Pack { .. }
            | Request::Unpack { .. } => self.work(route, &request),
        }
    }

    fn channel_frame(&mut self, route: Route, frame: &ToGuest) -> Result<(), DecodeError> {
        let channels = self.connections.get_mut(&route.connection).map(|it| &mut it.channels);
        // It may have ended while the frame was under way.
        let Some(channel) = channels.and_then(|it| it.get_mut(&route.channel)) else { return Ok(()) };
        let work = channel.work;
        match *frame {
            ToGuest::Eof => match work {
                Work::Command(id) => self.command_eof(id, route),
                Work::Worker(id) => self.worker_eof(id),
                Work::Forward(id) => self.forward_eof(id),
                Work::Listener(_) | Work::Listing => {}
            },
            ToGuest::Credit(bytes) => channel.credit = channel.credit.saturating_add(bytes.into()),
            ToGuest::Close => self.close_work(route, work),
            ToGuest::Signal(number) => {
                if let Work::Command(id) = work {
                    self.command_signal(id, number);
                }
            }
            ToGuest::Resize { rows, columns } => {
                if let Work::Command(id) = work {
                    self.command_resize(id, rows, columns);
                }
            }
            ToGuest::Detach => {
                if let Work::Command(id) = work {
                    self.command_detach(id, route);
                }
            }
            ToGuest::Data(_)
            | ToGuest::Hello { .. }
            | ToGuest::Configure(_)
            | ToGuest::Ping(_)
            | ToGuest::Shutdown { .. }
            | ToGuest::Request(_) => {}
        }
        Ok(())
    }

    /// The host is done with a channel, or gone.
    pub(crate) fn close_work(&mut self, route: Route, work: Work) {
        match work {
            Work::Command(id) => self.command_close(id, route),
            Work::Worker(id) => {
                self.worker_cancel(id);
                self.finish(route, &FromGuest::Failed(canceled()));
            }
            Work::Forward(id) => {
                self.forwards.remove(&id);
                self.finish(route, &FromGuest::Failed(canceled()));
            }
            Work::Listener(id) => {
                self.listening.remove(&id);
                self.finish(route, &FromGuest::Done);
            }
            Work::Listing => {
                self.listings.remove(&route);
                self.finish(route, &FromGuest::Failed(canceled()));
            }
        }
    }

    /// Moves output from the rings to the connections, as far as there is credit and room.
    pub(crate) fn deliver(&mut self) {
        self.deliver_listings();
        for command in self.commands.values_mut() {
            if command.is_launching() {
                continue;
            }
            command.outputs.write_log();
            let outputs = &mut command.outputs;
            let (ring, status) = (&outputs.ring, command.status);
            outputs.attached.retain_mut(|reader| {
                let Some(connection) = self.connections.get_mut(&reader.route.connection) else {
                    return false;
                };
                loop {
                    let room = connection.room(reader.route.channel);
                    let Some((stream, first, second)) = next(ring, reader, room) else { break };
                    let kind = match stream {
                        Stream::Stdout => FromGuest::STDOUT,
                        Stream::Stderr => FromGuest::STDERR,
                    };
                    let length = (first.len() + second.len()) as u64;
                    connection.send_data(reader.route.channel, kind, first, second);
                    reader.position = reader.position.max(ring.begin()) + length;
                }
                match (reader.until, status) {
                    (Some(until), Some(status)) if reader.position >= until => {
                        connection.channels.remove(&reader.route.channel);
                        connection.send(reader.route.channel, &FromGuest::Exited(status));
                        connection.holds_end |= command.main;
                        false
                    }
                    _ => true,
                }
            });
        }
    }
}
