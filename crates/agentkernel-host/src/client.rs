//! The connection to a guest: one task reads, one writes, channels share them.
//!
//! Everything is bounded. What waits to be read is bounded by the credit that this side granted, per channel; what waits
//! to be written by the credit of the guest and by [`MAX_QUEUED`]; everything else about a channel by small counts. A
//! guest that breaks a rule loses the connection.
use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use agentkernel_core::{Error, ErrorKind, Result};
use agentkernel_guest::protocol::{
    DecodeError, FrameReader, FromGuest, GUEST_CHANNEL, Header, MAX_CHANNELS, MAX_FROM_GUEST, MIN_VERSION,
    Report, Request, ToGuest, VERSION,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::UnixStream,
    sync::{mpsc, oneshot},
    task::AbortHandle,
    time::timeout,
};

use crate::{
    channel::{Channel, Inbox},
    failure,
    ping::Pings,
};

/// How long a guest may take to say hello. A paused sandbox accepts connections and stays silent.
pub const HELLO_DEADLINE: Duration = Duration::from_secs(5);
/// How long a guest may take to answer a request.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(30);
/// How much may wait to be written, in bytes, before writers are held back.
pub(crate) const MAX_QUEUED: usize = 1 << 20;
/// How long what is queued may take to be written after the connection was given up.
const DRAIN_DEADLINE: Duration = Duration::from_secs(2);
/// How much is read at once, in bytes.
const READ_CHUNK: usize = 128 << 10;

/// A connection to a guest. Clones share it; it ends when the last clone and the last channel are dropped, or with
/// [`close`](Self::close).
#[derive(Clone)]
pub struct GuestClient {
    shared: Arc<Shared>,
}

impl fmt::Debug for GuestClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestClient").field("closed", &self.is_closed()).finish_non_exhaustive()
    }
}

/// What clients and channels hold. The tasks hold only the link, so that dropping this ends them.
pub(crate) struct Shared {
    link: Arc<Link>,
    reader: AbortHandle,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.link.give_up();
        self.reader.abort();
    }
}

/// Locks are taken in one order: the link's state, then an inbox's. Whoever holds an inbox reads only the atomics here.
pub(crate) struct Link {
    state: Mutex<State>,
    queued: AtomicUsize,
    ended: AtomicBool,
}

#[derive(Default)]
struct State {
    outgoing: Option<mpsc::UnboundedSender<Vec<u8>>>,
    next_channel: u32,
    open: HashMap<u32, Arc<Inbox>>,
    guest_channels: usize,
    hello: Waiting<(u16, u16)>,
    report: Waiting<Report>,
    pings: Pings,
    broken: Option<DecodeError>,
}

/// An answer that comes once.
#[derive(Default)]
enum Waiting<T> {
    #[default]
    Nobody,
    Arrived(T),
    Waiter(oneshot::Sender<T>),
    Taken,
}

impl<T> Waiting<T> {
    /// Returns false if it came before.
    fn arrive(&mut self, value: T) -> bool {
        match std::mem::replace(self, Self::Taken) {
            Self::Nobody => {
                *self = Self::Arrived(value);
                true
            }
            Self::Waiter(waiter) => waiter.send(value).is_ok(),
            Self::Arrived(_) | Self::Taken => false,
        }
    }

    fn wait(&mut self) -> oneshot::Receiver<T> {
        let (sender, receiver) = oneshot::channel();
        match std::mem::replace(self, Self::Taken) {
            Self::Arrived(value) => {
                let _received = sender.send(value);
            }
            Self::Nobody => *self = Self::Waiter(sender),
            Self::Waiter(_) | Self::Taken => {}
        }
        receiver
    }
}

impl Link {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn with_pings<T>(&self, work: impl FnOnce(&mut Pings) -> T) -> T {
        work(&mut self.state().pings)
    }

    /// Queues frames for the writer. After the end they go nowhere: whoever waits for an answer learns it there.
    pub(crate) fn send(&self, frames: Vec<u8>) {
        let state = self.state();
        if let Some(outgoing) = &state.outgoing {
            self.queued.fetch_add(frames.len(), Ordering::Relaxed);
            let _sent = outgoing.send(frames);
        }
    }

    pub(crate) fn send_frame(&self, channel: u32, frame: &ToGuest) {
        let mut frames = Vec::new();
        frame.encode(channel, &mut frames);
        self.send(frames);
    }

    /// Returns whether writers should wait: more is queued than the connection takes.
    pub(crate) fn is_full(&self) -> bool {
        self.queued.load(Ordering::Relaxed) > MAX_QUEUED
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Returns why the connection ended.
    pub(crate) fn end_reason(&self) -> Error {
        self.state().broken.clone().map_or_else(failure::lost, failure::violation)
    }

    pub(crate) fn forget(&self, channel: u32) {
        let mut state = self.state();
        if state.open.remove(&channel).is_some() && channel & GUEST_CHANNEL != 0 {
            state.guest_channels -= 1;
        }
    }

    /// Returns the inbox of a channel that the guest opened.
    pub(crate) fn accepted(&self, channel: u32) -> Option<Arc<Inbox>> {
        self.state().open.get(&channel).map(Arc::clone)
    }

    /// Lets the writer finish what is queued and end; readers learn that nothing more comes.
    fn give_up(&self) {
        let inboxes = {
            let mut state = self.state();
            state.outgoing = None;
            self.ended.store(true, Ordering::SeqCst);
            state.pings.end();
            (state.hello, state.report) = (Waiting::Taken, Waiting::Taken);
            state.open.values().map(Arc::clone).collect::<Vec<_>>()
        };
        for inbox in inboxes {
            inbox.wake();
        }
    }

    fn wake_writers(&self) {
        let inboxes = self.state().open.values().map(Arc::clone).collect::<Vec<_>>();
        for inbox in inboxes {
            inbox.wake_writer();
        }
    }

    /// Takes a frame of the guest's.
    fn receive(&self, header: Header, payload: &[u8]) -> Result<(), DecodeError> {
        if header.channel == 0 {
            return self.receive_control(header.kind, payload);
        }
        let mut state = self.state();
        let Some(inbox) = state.open.get(&header.channel).map(Arc::clone) else {
            let known =
                if header.channel & GUEST_CHANNEL == 0 { header.channel < state.next_channel } else { true };
            // A channel that we closed may still get what was under way.
            return if known {
                Ok(())
            } else {
                Err(DecodeError("a frame is for a channel that was never opened"))
            };
        };
        let accepted = inbox.receive(header.kind, payload)?;
        if let Some(channel) = accepted {
            if state.guest_channels >= MAX_CHANNELS || state.open.contains_key(&channel) {
                return Err(DecodeError("the guest opened too many channels, or one twice"));
            }
            state.guest_channels += 1;
            state.open.insert(channel, Arc::new(Inbox::new()));
        }
        if inbox.has_ended()
            && state.open.remove(&header.channel).is_some()
            && header.channel & GUEST_CHANNEL != 0
        {
            state.guest_channels -= 1;
        }
        drop(state);
        inbox.wake();
        Ok(())
    }

    fn receive_control(&self, kind: u8, payload: &[u8]) -> Result<(), DecodeError> {
        let mut state = self.state();
        let fine = match FromGuest::decode(kind, payload)? {
            FromGuest::Hello { version, min_version } => state.hello.arrive((version, min_version)),
            FromGuest::Report(report) => state.report.arrive(*report),
            FromGuest::Pong(number) => state.pings.arrive(number),
            _ => false,
        };
        if fine { Ok(()) } else { Err(DecodeError("an answer makes no sense here")) }
    }
}

impl GuestClient {
    /// Speaks with a guest over a local socket.
    ///
    /// # Errors
    /// `Timeout` if it does not say hello within [`HELLO_DEADLINE`], `Unsupported` if no version is common,
    /// `Disconnected` if it goes or breaks the protocol.
    pub async fn connect(stream: UnixStream) -> Result<Self> {
        let (reader, writer) = stream.into_split();
        Self::over(reader, writer).await
    }

    /// Speaks with a guest over any byte stream.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn over(
        reader: impl AsyncRead + Send + Unpin + 'static,
        writer: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Result<Self> {
        let client = Self::start(reader, writer);
        client.shared.link.send_frame(0, &ToGuest::Hello { version: VERSION, min_version: MIN_VERSION });
        client.hello(HELLO_DEADLINE).await?;
        Ok(client)
    }

    /// Goes on with a stream on which our hello was sent.
    pub(crate) async fn adopt(stream: UnixStream) -> Result<Self> {
        let (reader, writer) = stream.into_split();
        Self::greeted(reader, writer, HELLO_DEADLINE).await
    }

    /// As [`adopt`](Self::adopt), over any byte stream.
    pub(crate) async fn greeted(
        reader: impl AsyncRead + Send + Unpin + 'static,
        writer: impl AsyncWrite + Send + Unpin + 'static,
        deadline: Duration,
    ) -> Result<Self> {
        let client = Self::start(reader, writer);
        client.hello(deadline).await?;
        Ok(client)
    }

    fn start(
        reader: impl AsyncRead + Send + Unpin + 'static,
        writer: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        let (outgoing, queue) = mpsc::unbounded_channel();
        let state = State { outgoing: Some(outgoing), next_channel: 1, ..State::default() };
        let link = Arc::new(Link {
            state: Mutex::new(state),
            queued: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
        });
        tokio::spawn(write_frames(writer, queue, Arc::clone(&link)));
        let reader = tokio::spawn(read_frames(reader, Arc::clone(&link))).abort_handle();
        Self { shared: Arc::new(Shared { link, reader }) }
    }

    async fn hello(&self, deadline: Duration) -> Result<()> {
        let waiter = self.shared.link.state().hello.wait();
        let (version, min_version) = self.answer("say hello to the guest", waiter, deadline).await?;
        if version < MIN_VERSION || min_version > VERSION {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "talk to the guest",
                "no protocol version is common",
            )
            .with_context("guest", format!("{min_version} to {version}"))
            .with_context("host", format!("{MIN_VERSION} to {VERSION}"))
            .with_hint("make the sandbox anew with this version of agentkernel"));
        }
        Ok(())
    }

    /// Returns what the guest found at boot.
    pub(crate) async fn report(&self) -> Result<Report> {
        let waiter = self.shared.link.state().report.wait();
        self.answer("read the guest's report", waiter, HELLO_DEADLINE).await
    }

    pub(crate) async fn answer<T>(
        &self,
        operation: &'static str,
        waiter: impl Future<Output = Result<T, oneshot::error::RecvError>>,
        deadline: Duration,
    ) -> Result<T> {
        match timeout(deadline, waiter).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(self.shared.link.end_reason().with_operation(operation)),
            Err(_) => Err(Error::new(ErrorKind::Timeout, operation, "it does not answer")
                .with_context("seconds", deadline.as_secs())
                .with_hint("it may be paused or starved: look at `agentkernel inspect`")),
        }
    }

    /// Ends the connection for all clones. A lease ends with it, and the sandbox with the lease.
    pub fn close(&self) {
        self.shared.link.give_up();
        self.shared.reader.abort();
    }

    /// Returns whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.shared.link.is_ended()
    }

    /// Opens a channel with a request; `more` appends frames that follow at once.
    pub(crate) fn request(&self, request: Request, more: impl FnOnce(u32, &mut Vec<u8>)) -> Result<Channel> {
        let inbox = Arc::new(Inbox::new());
        let id = {
            let mut state = self.shared.link.state();
            if self.shared.link.is_ended() {
                drop(state);
                return Err(self.shared.link.end_reason());
            }
            let id = state.next_channel;
            let room = state.open.len() - state.guest_channels < MAX_CHANNELS && id & GUEST_CHANNEL == 0;
            if !room {
                return Err(Error::new(
                    ErrorKind::ResourceExhausted,
                    "talk to the guest",
                    "too much is under way at once",
                )
                .with_context("limit", MAX_CHANNELS));
            }
            state.next_channel += 1;
            state.open.insert(id, Arc::clone(&inbox));
            id
        };
        let mut frames = Vec::new();
        ToGuest::Request(request).encode(id, &mut frames);
        more(id, &mut frames);
        self.shared.link.send(frames);
        Ok(Channel::new(id, inbox, Arc::clone(&self.shared)))
    }
}

impl GuestClient {
    pub(crate) fn from_shared(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    pub(crate) fn link(&self) -> &Link {
        &self.shared.link
    }
}

impl Shared {
    pub(crate) fn link(&self) -> &Link {
        &self.link
    }
}

async fn write_frames(
    mut writer: impl AsyncWrite + Send + Unpin,
    mut queue: mpsc::UnboundedReceiver<Vec<u8>>,
    link: Arc<Link>,
) {
    let mut next = queue.recv().await;
    while let Some(frames) = next {
        let write = async {
            writer.write_all(&frames).await?;
            writer.flush().await
        };
        let result = if link.is_ended() {
            timeout(DRAIN_DEADLINE, write).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
        } else {
            write.await
        };
        let was_full = link.is_full();
        link.queued.fetch_sub(frames.len(), Ordering::Relaxed);
        if was_full && !link.is_full() {
            link.wake_writers();
        }
        if result.is_err() {
            // The reader sees the end too, after what the guest sent before it.
            break;
        }
        next = queue.recv().await;
    }
    let _closed = writer.shutdown().await;
}

async fn read_frames(mut reader: impl AsyncRead + Send + Unpin, link: Arc<Link>) {
    let mut frames = FrameReader::new(MAX_FROM_GUEST);
    let broken = 'connection: loop {
        match reader.read_buf(frames.buffer(READ_CHUNK)).await {
            Ok(0) | Err(_) => break None,
            Ok(_) => {}
        }
        loop {
            match frames.next() {
                Ok(Some((header, payload))) => {
                    if let Err(error) = link.receive(header, payload) {
                        break 'connection Some(error);
                    }
                }
                Ok(None) => break,
                Err(error) => break 'connection Some(error),
            }
        }
    };
    if let Some(error) = &broken {
        tracing::debug!(%error, "the guest broke the protocol");
    }
    link.state().broken = broken;
    link.give_up();
}
