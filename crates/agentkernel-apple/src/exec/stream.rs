//! One of the two streams on its way to the reader: held back with it, and whole only with its end mark.
use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use agentkernel_core::{ExecEvent, ExitStatus, Result};
use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::mpsc,
};

use crate::{
    sentinel::{Piece, Scanner, Told},
    stdin::Input,
};

/// How many bytes of a stream wait for the reader before the command is held back.
const BACKLOG: usize = 256 << 10;

/// What lets the call end: its stdin, closed once every stream has been read to its mark.
#[derive(Debug)]
pub(super) struct Ends {
    left: AtomicUsize,
    input: Input,
}

impl Ends {
    pub(super) fn new(streams: usize, input: Input) -> Self {
        Self { left: AtomicUsize::new(streams), input }
    }

    fn reached(&self) {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.input.close();
        }
    }

    /// Whether every stream came whole.
    pub(super) fn are_reached(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }
}

pub(super) struct Stream<'a> {
    pub wrap: fn(Bytes) -> ExecEvent,
    pub sender: &'a mpsc::Sender<Result<ExecEvent>>,
    pub ends: &'a Ends,
    /// Whether it waits for the reader.
    pub waits: &'a AtomicBool,
    pub scanner: Scanner,
}

impl Stream<'_> {
    /// Carries everything up to the end mark or the end, and returns how the command ended if that was told here.
    pub(super) async fn carry(
        mut self,
        pipe: &mut (impl AsyncRead + Unpin),
        rest: Vec<Piece>,
    ) -> Option<ExitStatus> {
        let (mut waiting, mut held) = (VecDeque::new(), 0);
        let (mut is_open, mut ended) = (true, None);
        let mut buffer = vec![0; 64 << 10];
        let mut pieces = rest;
        loop {
            for piece in pieces.drain(..) {
                match piece {
                    // Of somebody in the background, after the end.
                    _ if !is_open => {}
                    Piece::Output(bytes) => {
                        held += bytes.len();
                        waiting.push_back(bytes);
                    }
                    Piece::Told(told @ (Told::Ended(_) | Told::Done)) => {
                        if let Told::Ended(status) = told {
                            ended = Some(status);
                        }
                        is_open = false;
                        self.ends.reached();
                    }
                    Piece::Told(_) => {}
                }
            }
            self.waits.store(!waiting.is_empty(), Ordering::SeqCst);
            if !is_open && waiting.is_empty() {
                return ended;
            }
            tokio::select! {
                read = pipe.read(&mut buffer), if is_open && held < BACKLOG => match read {
                    Ok(length @ 1..) => {
                        pieces = self.scanner.push(buffer.get(..length).unwrap_or_default());
                    }
                    Ok(_) | Err(_) => {
                        is_open = false;
                        let last = self.scanner.finish();
                        held += last.len();
                        waiting.extend((!last.is_empty()).then_some(last));
                    }
                },
                permit = self.sender.reserve(), if !waiting.is_empty() => match permit {
                    Ok(permit) => {
                        if let Some(bytes) = waiting.pop_front() {
                            held -= bytes.len();
                            permit.send(Ok((self.wrap)(bytes)));
                        }
                    }
                    // Nobody reads any more: the rest is read for nothing, so that the call ends.
                    Err(_) => {
                        waiting.clear();
                        held = 0;
                    }
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Carries this from a pipe that stays open, as one does that somebody in the background holds.
    async fn carried(content: &[u8]) -> (Vec<u8>, Option<ExitStatus>, bool) {
        let (sender, mut events) = mpsc::channel(64);
        let (mut near, mut far) = tokio::io::simplex(1 << 20);
        tokio::io::AsyncWriteExt::write_all(&mut far, content).await.unwrap();
        let (ends, waits) = (Ends::new(1, Input::default()), AtomicBool::new(false));
        let scanner = Scanner::new("abc");
        let stream = Stream { wrap: ExecEvent::Stdout, sender: &sender, ends: &ends, waits: &waits, scanner };
        let carried = tokio::time::timeout(Duration::from_millis(200), stream.carry(&mut near, Vec::new()));
        let ended = carried.await.ok().flatten();
        drop(sender);
        let mut all = Vec::new();
        while let Some(Ok(ExecEvent::Stdout(bytes))) = events.recv().await {
            all.extend_from_slice(&bytes);
        }
        (all, ended, ends.are_reached())
    }

    #[tokio::test]
    async fn output_after_the_end_is_nobodys() {
        let ended = Some(ExitStatus::Code(3));
        assert_eq!(carried(b"one\x1eabc code 3\x1etwo").await, (b"one".to_vec(), ended, true));
    }

    #[tokio::test]
    async fn without_its_mark_it_is_not_whole() {
        assert_eq!(carried(b"one").await, (b"one".to_vec(), None, false));
    }
}
