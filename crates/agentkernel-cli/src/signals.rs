//! Signals sent to us: which one ends us, and when a forwarded one has had its time.
use std::{
    future::{pending, poll_fn},
    io,
    task::Poll,
    time::Duration,
};

use agentkernel_core::{Error, Result, Signal};
use tokio::{
    signal::unix::{self, SignalKind},
    time::{Instant, sleep_until},
};

/// Two interrupts within this time mean it.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a command may take to end after a signal that asks for the end.
const GRACE: Duration = Duration::from_secs(5);

/// What to do about a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Pass it on to the command.
    Forward(Signal),
    /// Tell the command the new size of the terminal.
    Resize,
    /// End now, by the name of this signal.
    End(Signal),
}

/// The signals that we listen to from now on.
pub(crate) struct Signals {
    streams: Vec<(Option<Signal>, unix::Signal)>,
    last: Option<(Signal, Instant)>,
    deadline: Option<(Signal, Instant)>,
}

impl Signals {
    /// Begins to listen. What was ignored when we were started (nohup, a background job of a script) stays so.
    pub(crate) fn install() -> Result<Self> {
        let ends = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM];
        let ignored = ignored();
        let listen = |kind| {
            unix::signal(kind)
                .map_err(|error| Error::unexpected("start", "signals cannot be listened to", error))
        };
        let mut streams = vec![(None, listen(SignalKind::window_change())?)];
        for signal in ends.into_iter().filter(|signal| ignored >> (signal.number() - 1) & 1 == 0) {
            streams.push((Some(signal), listen(SignalKind::from_raw(signal.number().into()))?));
        }
        Ok(Self { streams, last: None, deadline: None })
    }

    /// Waits for the next signal or the end of the time that the last one left. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Act {
        let deadline = self.deadline;
        let signal = tokio::select! {
            signal = receive(&mut self.streams) => signal,
            signal = expired(deadline) => return Act::End(signal),
        };
        match signal {
            Some(signal) => self.judge(signal, Instant::now()),
            None => Act::Resize,
        }
    }

    fn judge(&mut self, signal: Signal, now: Instant) -> Act {
        let within = if signal == Signal::INT { AGAIN } else { GRACE };
        let is_second = self.last.is_some_and(|(last, at)| last == signal && now - at <= within);
        self.last = Some((signal, now));
        if is_second {
            return Act::End(signal);
        }
        if matches!(signal, Signal::TERM | Signal::HUP) {
            self.deadline.get_or_insert((signal, now + GRACE));
        }
        Act::Forward(signal)
    }

    /// Runs work that a signal ends at once; `Err` is that signal.
    pub(crate) async fn race<T>(&mut self, work: impl Future<Output = T>) -> std::result::Result<T, Signal> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                act = self.next() => match act {
                    Act::Forward(signal) | Act::End(signal) => return Err(signal),
                    Act::Resize => {}
                },
            }
        }
    }
}

async fn receive(streams: &mut [(Option<Signal>, unix::Signal)]) -> Option<Signal> {
    poll_fn(|context| {
        for (signal, stream) in &mut *streams {
            if let Poll::Ready(Some(())) = stream.poll_recv(context) {
                return Poll::Ready(*signal);
            }
        }
        Poll::Pending
    })
    .await
}

async fn expired(deadline: Option<(Signal, Instant)>) -> Signal {
    match deadline {
        Some((signal, at)) => {
            sleep_until(at).await;
            signal
        }
        None => pending().await,
    }
}

/// The signals that were ignored before we came, as a bit set; proc_pid_status(5). Elsewhere than on Linux none.
fn ignored() -> u64 {
    let read = || -> io::Result<Option<u64>> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        Ok(line.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()))
    };
    read().ok().flatten().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acts(signals: &[(Signal, u64)]) -> Vec<Act> {
        let mut judge = Signals { streams: Vec::new(), last: None, deadline: None };
        let start = Instant::now();
        signals.iter().map(|(signal, at)| judge.judge(*signal, start + Duration::from_millis(*at))).collect()
    }

    #[test]
    fn a_second_interrupt_ends_only_within_a_second() {
        let int = Signal::INT;
        assert_eq!(acts(&[(int, 0), (int, 900)]), [Act::Forward(int), Act::End(int)]);
        assert_eq!(acts(&[(int, 0), (int, 1100)]), [Act::Forward(int), Act::Forward(int)]);
    }

    #[test]
    fn a_second_request_to_end_ends() {
        let term = Signal::TERM;
        assert_eq!(acts(&[(term, 0), (term, 3000)]), [Act::Forward(term), Act::End(term)]);
        assert_eq!(acts(&[(term, 0), (Signal::INT, 10)]), [Act::Forward(term), Act::Forward(Signal::INT)]);
    }
}
