//! One channel: what has come and waits to be read, and how much may still be sent.
use std::{
    future::poll_fn,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use agentkernel_core::{Error, ErrorKind, Result};
use agentkernel_guest::protocol::{DecodeError, FromGuest, HEADER_LEN, Header, MAX_DATA, ToGuest, WINDOW};
use bytes::{BufMut, Bytes, BytesMut, buf::Limit};
use tokio::time::timeout;

use crate::client::{GuestClient, Shared};

/// How many small frames (started, end-of-file, metadata, …) may wait on a channel.
const MAX_SMALL: u32 = 64;
/// How much is read before more is granted, in bytes: grants are few and the window never runs dry.
const GRANT_STEP: u32 = WINDOW / 4;

/// What has come on a channel and waits. Data is kept as records in one buffer, so that many small frames cost little
/// more than their bytes.
pub(crate) struct Inbox {
    state: Mutex<InboxState>,
}

struct InboxState {
    /// Records: kind, length, payload.
    records: BytesMut,
    /// How much more data the guest may send.
    allowance: u32,
    small: u32,
    consumed: u32,
    /// How much more data we may send.
    credit: u32,
    ended: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// A frame of a channel; data without a copy.
#[derive(Debug)]
pub(crate) enum Frame {
    Stdout(Bytes),
    Stderr(Bytes),
    Other(FromGuest),
}

/// A frame of data on its way to the guest: filled where it is sent from.
pub(crate) struct DataFrame {
    bytes: Vec<u8>,
    most: usize,
}

impl DataFrame {
    pub(crate) fn with_room(most: usize) -> Self {
        let mut bytes = Vec::with_capacity(HEADER_LEN + most);
        bytes.resize(HEADER_LEN, 0);
        Self { bytes, most }
    }

    fn len(&self) -> usize {
        self.bytes.len() - HEADER_LEN
    }

    /// Where data is put, no more than there is room for.
    pub(crate) fn room(&mut self) -> Limit<&mut Vec<u8>> {
        let left = self.most - self.len();
        (&mut self.bytes).limit(left)
    }

    fn finish(mut self, channel: u32) -> Vec<u8> {
        let header = Header { length: self.len(), kind: ToGuest::DATA, channel }.encode();
        self.bytes[..HEADER_LEN].copy_from_slice(&header);
        self.bytes
    }
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(InboxState {
                records: BytesMut::new(),
                allowance: WINDOW,
                small: 0,
                consumed: 0,
                credit: WINDOW,
                ended: false,
                reader: None,
                writer: None,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, InboxState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a frame of the guest's; returns the channel that it opened, if it did.
    pub(crate) fn receive(&self, kind: u8, payload: &[u8]) -> Result<Option<u32>, DecodeError> {
        let mut state = self.state();
        if state.ended {
            return Err(DecodeError("a frame comes after the end of its channel"));
        }
        let mut accepted = None;
        let is_data = match kind {
            // It would cost memory here and none of what was granted.
            FromGuest::STDOUT | FromGuest::STDERR if payload.is_empty() => {
                return Err(DecodeError("a frame of data is empty"));
            }
            FromGuest::STDOUT | FromGuest::STDERR => true,
            _ => match FromGuest::decode(kind, payload)? {
                FromGuest::Credit(bytes) => {
                    // Never more than a window: a guest cannot make us queue more than it takes.
                    state.credit = state.credit.saturating_add(bytes).min(WINDOW);
                    return Ok(None);
                }
                FromGuest::Hello { .. } | FromGuest::Report(_) | FromGuest::Pong(_) => {
                    return Err(DecodeError("an answer makes no sense here"));
                }
                FromGuest::Accepted { channel } => {
                    accepted = Some(channel);
                    true
                }
                FromGuest::Entry(_) | FromGuest::Command(_) => true,
                frame => {
                    state.ended = frame.is_terminal();
                    false
                }
            },
        };
        if is_data {
            let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
            state.allowance =
                state.allowance.checked_sub(length).ok_or(DecodeError("more data came than was granted"))?;
        } else {
            state.small += 1;
            if state.small > MAX_SMALL {
                return Err(DecodeError("too many answers came on a channel"));
            }
        }
        state.records.reserve(5 + payload.len());
        state.records.extend_from_slice(&[kind]);
        state.records.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
        state.records.extend_from_slice(payload);
        Ok(accepted)
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.state().ended
    }

    /// Wakes whoever waits.
    pub(crate) fn wake(&self) {
        let (reader, writer) = {
            let mut state = self.state();
            (state.reader.take(), state.writer.take())
        };
        for waker in reader.into_iter().chain(writer) {
            waker.wake();
        }
    }

    pub(crate) fn wake_writer(&self) {
        let writer = self.state().writer.take();
        if let Some(waker) = writer {
            waker.wake();
        }
    }
}

/// This side's end of a channel. Dropping it closes the channel, if it has not ended.
pub(crate) struct Channel {
    id: u32,
    inbox: Arc<Inbox>,
    shared: Arc<Shared>,
}

impl Channel {
    pub(crate) fn new(id: u32, inbox: Arc<Inbox>, shared: Arc<Shared>) -> Self {
        Self { id, inbox, shared }
    }

    /// Returns whether the guest has said how it ended, read or not.
    pub(crate) fn has_ended(&self) -> bool {
        self.inbox.has_ended()
    }

    /// Returns the channel of a connection that the guest accepted.
    pub(crate) fn accepted(&self, id: u32) -> Option<Self> {
        let inbox = self.shared.link().accepted(id)?;
        Some(Self { id, inbox, shared: Arc::clone(&self.shared) })
    }

    pub(crate) fn send(&self, frame: &ToGuest) {
        self.shared.link().send_frame(self.id, frame);
    }

    /// Tells the guest that we are done with the channel, unless it has ended.
    pub(crate) fn close(&self) {
        if !self.inbox.has_ended() {
            self.send(&ToGuest::Close);
        }
        self.shared.link().forget(self.id);
    }

    /// Returns the next frame.
    pub(crate) fn poll_next(&self, context: &mut Context<'_>) -> Poll<Result<Frame>> {
        let mut state = self.inbox.state();
        let Some((&kind, rest)) = state.records.split_first() else {
            if state.ended || self.shared.link().is_ended() {
                drop(state);
                return Poll::Ready(Err(self.shared.link().end_reason()));
            }
            state.reader = Some(context.waker().clone());
            return Poll::Pending;
        };
        let length = rest.first_chunk().map_or(0, |length| u32::from_le_bytes(*length));
        let mut record = state.records.split_to(5 + length as usize);
        let payload = record.split_off(5).freeze();
        if state.records.is_empty() {
            // Gives the memory back; what was split off keeps its own part alive.
            state.records = BytesMut::new();
        }
        let frame = match kind {
            FromGuest::STDOUT => Frame::Stdout(payload),
            FromGuest::STDERR => Frame::Stderr(payload),
            _ => match FromGuest::decode(kind, &payload) {
                Ok(frame) => {
                    if !matches!(
                        frame,
                        FromGuest::Entry(_) | FromGuest::Command(_) | FromGuest::Accepted { .. }
                    ) {
                        state.small -= 1;
                        return Poll::Ready(Ok(Frame::Other(frame)));
                    }
                    Frame::Other(frame)
                }
                Err(error) => return Poll::Ready(Err(crate::failure::violation(error))),
            },
        };
        state.consumed += length;
        if state.consumed >= GRANT_STEP && !state.ended {
            let bytes = std::mem::take(&mut state.consumed);
            state.allowance = state.allowance.saturating_add(bytes);
            drop(state);
            self.send(&ToGuest::Credit(bytes));
        }
        Poll::Ready(Ok(frame))
    }

    pub(crate) async fn next(&self) -> Result<Frame> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// Returns the next frame, which must come within the deadline.
    pub(crate) async fn answer(&self, operation: &'static str, deadline: Duration) -> Result<Frame> {
        match timeout(deadline, self.next()).await {
            Ok(answer) => answer.map_err(|error| error.with_operation(operation)),
            Err(_) => Err(Error::new(ErrorKind::Timeout, operation, "the guest does not answer")
                .with_context("seconds", deadline.as_secs())
                .with_hint("it may be paused or starved: look at `agentkernel inspect`")),
        }
    }

    /// Returns how much may be sent now, at most a frame. `None` once the guest ended the channel.
    pub(crate) fn poll_credit(&self, context: &mut Context<'_>) -> Poll<Option<usize>> {
        let mut state = self.inbox.state();
        if state.ended || self.shared.link().is_ended() {
            return Poll::Ready(None);
        }
        if state.credit == 0 || self.shared.link().is_full() {
            state.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Some((state.credit as usize).min(MAX_DATA)))
    }

    /// Sends data, no more than [`poll_credit`](Self::poll_credit) allowed.
    pub(crate) fn send_data(&self, frame: DataFrame) {
        self.spend(frame.len());
        self.shared.link().send(frame.finish(self.id));
    }

    /// Counts data that was sent with the request.
    pub(crate) fn spend(&self, bytes: usize) {
        let mut state = self.inbox.state();
        state.credit = state.credit.saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// Writes as an `AsyncWrite` does.
    pub(crate) fn poll_write(&self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        match self.poll_credit(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Poll::Ready(Some(most)) => {
                let part = bytes.get(..most).unwrap_or(bytes);
                let mut frame = DataFrame::with_room(part.len());
                frame.room().put_slice(part);
                self.send_data(frame);
                Poll::Ready(Ok(part.len()))
            }
        }
    }

    /// Waits until the guest has taken all that was sent before.
    pub(crate) async fn settle(&self) -> Result<()> {
        GuestClient::from_shared(Arc::clone(&self.shared)).ping().await
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.close();
    }
}
