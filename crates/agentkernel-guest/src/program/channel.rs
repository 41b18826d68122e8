//! Channels: whose turn it is to send, and how much.
use crate::protocol::{DecodeError, WINDOW};

/// Where an answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Route {
    pub(crate) connection: u64,
    pub(crate) channel: u32,
}

/// What a channel is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Command(u64),
    Worker(u64),
    Forward(u64),
    Listener(u64),
    Listing,
}

/// One channel of a connection.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) work: Work,
    /// Bytes that we may send.
    pub(crate) credit: u64,
    /// Bytes that the host may send.
    window: u32,
    /// Bytes that were used up here and not granted again.
    consumed: u32,
}

impl Channel {
    pub(crate) fn new(work: Work) -> Self {
        Self { work, credit: WINDOW.into(), window: WINDOW, consumed: 0 }
    }

    /// Counts received data.
    pub(crate) fn receive(&mut self, count: usize) -> Result<(), DecodeError> {
        let window = u32::try_from(count).ok().and_then(|count| self.window.checked_sub(count));
        self.window = window.ok_or(DecodeError("more data than was granted"))?;
        Ok(())
    }

    /// Counts data that needs no room any more, and returns how much is to be granted now.
    pub(crate) fn consume(&mut self, count: usize) -> Option<u32> {
        let outstanding = WINDOW - self.window - self.consumed;
        self.consumed += u32::try_from(count).unwrap_or(u32::MAX).min(outstanding);
        if self.consumed < WINDOW / 4 {
            return None;
        }
        self.window += self.consumed;
        Some(std::mem::take(&mut self.consumed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_beyond_the_window_is_refused_and_consumed_data_is_granted_again() {
        let mut channel = Channel::new(Work::Command(1));
        channel.receive(WINDOW as usize).unwrap();
        assert!(channel.receive(1).is_err());
        assert_eq!(channel.consume(1), None);
        assert_eq!(channel.consume(WINDOW as usize), Some(WINDOW));
        channel.receive(WINDOW as usize).unwrap();
        assert!(channel.receive(1).is_err());
    }
}
