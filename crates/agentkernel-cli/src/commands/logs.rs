//! `logs`: the output of what runs detached.
use std::{collections::VecDeque, pin::pin};

use agentkernel_core::{
    Bytes, ErrorKind, ExecEvent, ExecId, ExecSession, LogOptions, Replay, Result, Sandbox,
};
use futures_util::{Stream, StreamExt, stream};

use super::{Outcome, ended_by};
use crate::{
    args::LogsArgs,
    context::Context,
    session::{self, End},
    signals::Signals,
};

/// How many answers without output between them say that all that was kept has come.
const QUIET: usize = 2;

pub(crate) async fn logs(context: &Context, args: &LogsArgs, signals: &mut Signals) -> Result<Outcome> {
    let found = async {
        let sandbox = context.sandbox(&args.name).await?;
        let events = match &args.id {
            None => {
                let options = LogOptions { follow: args.follow, tail: args.tail };
                sandbox.logs(&options).await.map_err(|error| match error.kind() {
                    ErrorKind::Unsupported => error,
                    _ => error.with_hint(format!("see `agentkernel ps {}`", args.name)),
                })?
            }
            Some(id) => of_command(&*sandbox, id, args).await?,
        };
        Ok::<_, agentkernel_core::Error>(events)
    };
    let events = match signals.race(found).await {
        Ok(events) => events?,
        Err(signal) => return Ok(ended_by(signal)),
    };
    // How the command ended is no news of this verb's.
    Ok(match session::print(events, context.json, signals).await? {
        End::Signaled(signal) => ended_by(signal),
        End::ReaderGone => Outcome::Code(crate::report::READER_GONE),
        End::Exited(_) | End::Detached(_) => Outcome::Code(0),
    })
}

async fn of_command(
    sandbox: &dyn Sandbox,
    id: &ExecId,
    args: &LogsArgs,
) -> Result<agentkernel_core::Events<ExecEvent>> {
    let mut session = sandbox.attach(id, Replay::Kept).await?;
    drop(session.take_stdin());
    let kept = match (args.follow, args.tail) {
        (true, None) => VecDeque::new(),
        _ => kept(sandbox, &mut session).await?,
    };
    let kept = match args.tail {
        Some(lines) => tail(kept, lines),
        None => kept,
    };
    let has_ended = matches!(kept.back(), Some(ExecEvent::Exited(_)));
    let kept = stream::iter(kept.into_iter().map(Ok));
    if args.follow && !has_ended { Ok(kept.chain(rest(session)).boxed()) } else { Ok(kept.boxed()) }
}

/// Reads what is kept. The sandbox answers in order: once it has told twice of its commands and nothing came between, all
/// that it kept has come.
async fn kept(sandbox: &dyn Sandbox, session: &mut ExecSession) -> Result<VecDeque<ExecEvent>> {
    let mut events = VecDeque::new();
    let mut quiet = 0;
    while quiet < QUIET {
        quiet += 1;
        let mut answer = pin!(sandbox.commands());
        loop {
            tokio::select! {
                biased;
                event = session.next_event() => match event.transpose()? {
                    Some(event) => {
                        quiet = 0;
                        let is_last = matches!(event, ExecEvent::Exited(_));
                        events.push_back(event);
                        if is_last {
                            return Ok(events);
                        }
                    }
                    None => return Ok(events),
                },
                answered = &mut answer => {
                    answered?;
                    break;
                }
            }
        }
    }
    Ok(events)
}

fn rest(session: ExecSession) -> impl Stream<Item = Result<ExecEvent>> + Send {
    stream::unfold(session, async |mut session| session.next_event().await.map(|event| (event, session)))
}

/// Leaves the last lines of each stream.
fn tail(events: VecDeque<ExecEvent>, lines: u64) -> VecDeque<ExecEvent> {
    let (mut stdout, mut stderr) = (Last::new(lines), Last::new(lines));
    let mut left = VecDeque::new();
    for event in events.into_iter().rev() {
        let event = match event {
            ExecEvent::Stdout(bytes) => stdout.of(bytes).map(ExecEvent::Stdout),
            ExecEvent::Stderr(bytes) => stderr.of(bytes).map(ExecEvent::Stderr),
            other => Some(other),
        };
        left.extend(event);
    }
    left.into_iter().rev().collect()
}

/// Counts lines from the end of a stream.
struct Last {
    lines: u64,
    /// Whether the last byte was seen: a newline there begins no line.
    begun: bool,
}

impl Last {
    fn new(lines: u64) -> Self {
        Self { lines, begun: false }
    }

    /// What belongs to the last lines of the chunk before those seen.
    fn of(&mut self, bytes: Bytes) -> Option<Bytes> {
        if self.lines == 0 || bytes.is_empty() {
            return None;
        }
        let end = if self.begun { bytes.len() } else { bytes.len() - 1 };
        self.begun = true;
        let newlines = bytes[..end].iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
        for (at, _) in newlines {
            self.lines -= 1;
            if self.lines == 0 {
                return Some(bytes.slice(at + 1..)).filter(|left| !left.is_empty());
            }
        }
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out(text: &'static str) -> ExecEvent {
        ExecEvent::Stdout(Bytes::from_static(text.as_bytes()))
    }

    fn err(text: &'static str) -> ExecEvent {
        ExecEvent::Stderr(Bytes::from_static(text.as_bytes()))
    }

    fn left(events: Vec<ExecEvent>, lines: u64) -> Vec<ExecEvent> {
        tail(events.into(), lines).into()
    }

    #[test]
    fn the_last_lines_are_left_wherever_they_were_cut() {
        let whole = || vec![out("1\n2"), out("2\n3"), out("3\n")];
        assert_eq!(left(whole(), 1), [out("3"), out("3\n")]);
        assert_eq!(left(whole(), 2), [out("2"), out("2\n3"), out("3\n")]);
        assert_eq!(left(whole(), 9), whole());
        assert_eq!(left(whole(), 0), []);
        assert_eq!(left(vec![out("1\n2\n3")], 2), [out("2\n3")]);
    }

    #[test]
    fn each_stream_has_its_own_lines() {
        let whole = vec![out("1\n"), err("a\n"), out("2\n"), err("b\n")];
        assert_eq!(left(whole, 1), [out("2\n"), err("b\n")]);
    }
}
