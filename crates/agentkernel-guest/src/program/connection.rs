//! One connection of the host: bytes in, frames out, and how both are bounded.
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::channel::Channel;
use crate::protocol::{FrameReader, FromGuest, HEADER_LEN, Header, MAX_TO_GUEST, MIN_VERSION, VERSION};

/// How long the other side has for its first frame.
pub(crate) const HELLO: Duration = Duration::from_secs(10);
/// With so many bytes queued, no more output is put there.
pub(crate) const QUEUE: usize = 256 << 10;
/// With so many bytes queued, nothing more is read: who asks must also listen.
const CHOKED: usize = 1 << 20;

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
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> bool {
        match recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => false,
            Ok((count, _)) => {
                self.reader.push(buffer.get(..count).unwrap_or_default());
                true
            }
            Err(Errno::AGAIN | Errno::INTR) => true,
            Err(_) => false,
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
            self.queue.clear();
            self.queue.shrink_to(4096);
        } else if self.sent > QUEUE {
            self.queue.drain(..self.sent);
            self.sent = 0;
        }
    }
}
