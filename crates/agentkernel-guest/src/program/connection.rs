//! One connection of the host: bytes in, frames out, and how both are bounded.
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::channel::Channel;
use crate::protocol::{FrameReader, FromGuest, HEADER_LEN, Header, MAX_TO_GUEST, MIN_VERSION, VERSION};
use crate::sys;

/// How long the other side has for its first frame.
pub(crate) const HELLO: Duration = Duration::from_secs(10);
/// With so many bytes queued, no more output is put there.
pub(crate) const QUEUE: usize = 256 << 10;
/// With so many bytes queued, nothing more is read: who asks must also listen.
const CHOKED: usize = 1 << 20;

/// How much is read at once, when little and when much comes.
const IDLE: usize = 4 << 10;
const RECEIVE: usize = 128 << 10;

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) socket: OwnedFd,
    pub(crate) reader: FrameReader,
    pub(crate) channels: BTreeMap<u32, Channel>,
    /// The sandbox ends with it.
    pub(crate) lease: bool,
    /// When the first frame is due; `None` once it came.
    pub(crate) hello_by: Option<Instant>,
    /// The end of the main command is queued here: it must arrive before the guest ends.
    pub(crate) holds_end: bool,
    /// It is over and only waits to be removed.
    pub(crate) broken: bool,
    pub(crate) next_accepted: u32,
    queue: Vec<u8>,
    sent: usize,
    /// Much came when something came last.
    busy: bool,
}

impl Connection {
    /// Begins a connection; our hello is the first that is sent.
    pub(crate) fn new(socket: OwnedFd) -> Self {
        let mut connection = Self {
            socket,
            reader: FrameReader::new(MAX_TO_GUEST),
            channels: BTreeMap::new(),
            lease: false,
            hello_by: Some(Instant::now() + HELLO),
            holds_end: false,
            broken: false,
            next_accepted: 0,
            queue: Vec::new(),
            sent: 0,
            busy: false,
        };
        connection.send(0, &FromGuest::Hello { version: VERSION, min_version: MIN_VERSION });
        connection
    }

    /// Queues a frame.
    pub(crate) fn send(&mut self, channel: u32, frame: &FromGuest) {
        if !self.broken {
            frame.encode(channel, &mut self.queue);
        }
    }

    /// Queues a frame that counts as data, with its payload. There must be [`room`](Self::room) for it.
    pub(crate) fn send_counted(&mut self, channel: u32, frame: &FromGuest) {
        let before = self.queue.len();
        self.send(channel, frame);
        self.spend(channel, (self.queue.len() - before).saturating_sub(HEADER_LEN));
    }

    fn spend(&mut self, channel: u32, count: usize) {
        if let Some(channel) = self.channels.get_mut(&channel) {
            channel.credit = channel.credit.saturating_sub(count as u64);
        }
    }

    /// Queues a data frame of what a descriptor gives, at most `room`, without a copy in between; returns its length.
    pub(crate) fn send_read(
        &mut self,
        channel: u32,
        kind: u8,
        from: &OwnedFd,
        room: usize,
    ) -> rustix::io::Result<usize> {
        let begin = self.queue.len();
        self.queue.extend_from_slice(&[0; HEADER_LEN]);
        let result = sys::read_more(from, &mut self.queue, room);
        let length = result.unwrap_or(0);
        match self.queue.get_mut(begin..begin + HEADER_LEN) {
            Some(header) if length > 0 && !self.broken => {
                header.copy_from_slice(&Header { length, kind, channel }.encode());
                self.spend(channel, length);
            }
            _ => self.queue.truncate(begin),
        }
        result
    }

    /// Queues a data frame from two slices.
    pub(crate) fn send_data(&mut self, channel: u32, kind: u8, first: &[u8], second: &[u8]) {
        if self.broken {
            return;
        }
        self.spend(channel, first.len() + second.len());
        let header = Header { length: first.len() + second.len(), kind, channel };
        self.queue.extend_from_slice(&header.encode());
        self.queue.extend_from_slice(first);
        self.queue.extend_from_slice(second);
    }

    /// Gives the memory back. For a copy of the guest that does not serve.
    pub(crate) fn shed(&mut self) {
        (self.reader, self.queue) = (FrameReader::new(0), Vec::new());
        self.sent = 0;
    }

    /// How many bytes wait to be sent.
    pub(crate) fn queued(&self) -> usize {
        self.queue.len() - self.sent
    }

    /// How much data may be queued for a channel now.
    pub(crate) fn room(&self, channel: u32) -> usize {
        let room = QUEUE.saturating_sub(self.queued() + HEADER_LEN);
        let credit = self.channels.get(&channel).map_or(0, |channel| channel.credit);
        room.min(usize::try_from(credit).unwrap_or(usize::MAX)).min(crate::protocol::MAX_DATA)
    }

    /// What to wait for.
    pub(crate) fn events(&self) -> PollFlags {
        let mut events = PollFlags::empty();
        events.set(PollFlags::IN, self.queued() < CHOKED);
        events.set(PollFlags::OUT, self.queued() > 0);
        events
    }

    /// Reads what there is into the frame reader; `false` at the end.
    pub(crate) fn receive(&mut self) -> bool {
        let room = if self.busy { RECEIVE } else { IDLE };
        match recv(&self.socket, spare_capacity(self.reader.buffer(room)), RecvFlags::DONTWAIT) {
            Ok((_, 0)) => false,
            Ok((_, count)) => {
                self.busy = count >= IDLE;
                true
            }
            Err(Errno::AGAIN | Errno::INTR) => true,
            Err(_) => false,
        }
    }

    /// Gives memory back once frames are taken and little comes: an idle connection costs nothing, and a busy one does
    /// not ask for the same memory again and again.
    pub(crate) fn settle(&mut self) {
        if !self.busy {
            self.reader.shrink();
        }
    }

    /// Sends what the socket takes.
    pub(crate) fn flush(&mut self) {
        while let Some(waiting) = self.queue.get(self.sent..).filter(|waiting| !waiting.is_empty()) {
            match send(self.socket.as_fd(), waiting, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => break,
                Err(_) => {
                    self.broken = true;
                    break;
                }
            }
        }
        if self.sent == self.queue.len() || self.broken {
            self.sent = 0;
            // What a frame of output needs is kept until less is sent.
            let keep = if self.queue.len() > IDLE { QUEUE } else { IDLE };
            self.queue.clear();
            self.queue.shrink_to(keep);
        } else if self.sent > QUEUE {
            self.queue.drain(..self.sent);
            self.sent = 0;
        }
    }
}
