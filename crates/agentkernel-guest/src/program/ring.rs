//! The last output of a command: bytes with their streams and absolute positions.
use std::collections::VecDeque;

/// What one run of bytes costs beside the bytes, so that many tiny writes stay bounded as well.
const RUN_COST: usize = 16;

/// Which output bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    start: u64,
    stream: Stream,
}

/// A bounded memory of output. Nothing before the oldest reader is dropped as long as no more than [`Ring::room`]
/// is pushed.
#[derive(Debug)]
pub(crate) struct Ring {
    bytes: VecDeque<u8>,
    runs: VecDeque<Run>,
    begin: u64,
    capacity: usize,
}

impl Ring {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { bytes: VecDeque::new(), runs: VecDeque::new(), begin: 0, capacity }
    }

    /// The position of the oldest byte that is kept.
    pub(crate) fn begin(&self) -> u64 {
        self.begin
    }

    /// The position after the newest byte.
    pub(crate) fn end(&self) -> u64 {
        self.begin + self.bytes.len() as u64
    }

    /// How many bytes are kept.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets all that is kept, and gives its memory back.
    pub(crate) fn clear(&mut self) {
        self.begin = self.end();
        (self.bytes, self.runs) = (VecDeque::new(), VecDeque::new());
    }

    /// How many bytes may be pushed while a reader is at `reader`.
    pub(crate) fn room(&self, reader: Option<u64>) -> usize {
        let Some(reader) = reader else { return self.capacity };
        let waiting = usize::try_from(self.end().saturating_sub(reader)).unwrap_or(usize::MAX);
        let runs = if waiting == 0 { 0 } else { self.runs.len() - self.run_at(reader) };
        self.capacity.saturating_sub(waiting.saturating_add((runs + 1) * RUN_COST))
    }

    /// Adds bytes and drops the oldest beyond the capacity.
    pub(crate) fn push(&mut self, stream: Stream, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.runs.back().is_none_or(|run| run.stream != stream) {
            self.runs.push_back(Run { start: self.end(), stream });
        }
        self.bytes.extend(bytes);
        while let Some(excess) = (self.bytes.len() + self.runs.len() * RUN_COST).checked_sub(self.capacity)
            && excess > 0
            && !self.bytes.is_empty()
        {
            // Run by run: the end of a run frees its cost too.
            let stop = self.runs.get(1).map_or(self.end(), |next| next.start);
            let oldest = usize::try_from(stop - self.begin).unwrap_or(usize::MAX);
            self.forget(excess.min(oldest));
        }
    }

    fn forget(&mut self, count: usize) {
        self.bytes.drain(..count);
        self.begin += count as u64;
        while self.runs.get(1).is_some_and(|next| next.start <= self.begin) {
            self.runs.pop_front();
        }
        if self.bytes.is_empty() {
            self.runs.clear();
        }
    }

    /// Returns the stream at `position` and at most `most` bytes of it, as two slices; `None` at the end.
    pub(crate) fn read(&self, position: u64, most: usize) -> Option<(Stream, &[u8], &[u8])> {
        let position = position.max(self.begin);
        let index = self.run_at(position);
        let run = self.runs.get(index)?;
        let stop = self.runs.get(index + 1).map_or(self.end(), |next| next.start);
        let length = usize::try_from(stop.checked_sub(position)?).unwrap_or(usize::MAX).min(most);
        if length == 0 {
            return None;
        }
        let from = usize::try_from(position - self.begin).ok()?;
        let (front, back) = self.bytes.as_slices();
        Some(match from.checked_sub(front.len()) {
            Some(from) => (run.stream, back.get(from..from + length)?, &[]),
            None => {
                let first = front.get(from..)?;
                match length.checked_sub(first.len()) {
                    Some(rest) => (run.stream, first, back.get(..rest)?),
                    None => (run.stream, first.get(..length)?, &[]),
                }
            }
        })
    }

    fn run_at(&self, position: u64) -> usize {
        self.runs.partition_point(|run| run.start <= position).saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(ring: &Ring, mut position: u64, most: usize) -> Vec<(Stream, u8)> {
        let mut seen = Vec::new();
        while let Some((stream, first, second)) = ring.read(position, most) {
            seen.extend(first.iter().chain(second).map(|byte| (stream, *byte)));
            position = position.max(ring.begin()) + (first.len() + second.len()) as u64;
        }
        seen
    }

    #[test]
    fn a_cleared_ring_goes_on_where_it_was() {
        let mut ring = Ring::new(1000);
        ring.push(Stream::Stdout, b"before");
        ring.clear();
        assert_eq!((ring.len(), ring.begin(), ring.end()), (0, 6, 6));
        ring.push(Stream::Stderr, b"after");
        assert_eq!(ring.read(0, 100), Some((Stream::Stderr, b"after".as_slice(), b"".as_slice())));
    }

    proptest! {
        #[test]
        fn it_keeps_the_newest_and_never_more_than_its_capacity(
            writes in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..40),
            most in 1usize..50,
        ) {
            let (mut ring, mut model) = (Ring::new(256), Vec::new());
            for (out, bytes) in &writes {
                let stream = if *out { Stream::Stdout } else { Stream::Stderr };
                ring.push(stream, bytes);
                model.extend(bytes.iter().map(|byte| (stream, *byte)));
            }
            let seen = all(&ring, 0, most);
            prop_assert_eq!(ring.end(), model.len() as u64);
            prop_assert!(ring.bytes.len() + ring.runs.len() * RUN_COST <= 256);
            prop_assert_eq!(&seen[..], &model[model.len() - seen.len()..]);
            prop_assert_eq!(seen.len(), ring.bytes.len());
        }

        #[test]
        fn a_reader_loses_nothing_when_the_room_is_respected(
            steps in proptest::collection::vec((any::<bool>(), 1usize..100, 0usize..120), 1..80),
        ) {
            let (mut ring, mut model, mut seen, mut cursor) = (Ring::new(256), Vec::new(), Vec::new(), 0);
            for (out, write, read) in steps {
                let stream = if out { Stream::Stdout } else { Stream::Stderr };
                let bytes: Vec<u8> = (0..=u8::MAX).take(write.min(ring.room(Some(cursor)))).collect();
                ring.push(stream, &bytes);
                model.extend(bytes.iter().map(|byte| (stream, *byte)));
                prop_assert!(ring.begin() <= cursor);
                if let Some((stream, first, second)) = ring.read(cursor, read) {
                    seen.extend(first.iter().chain(second).map(|byte| (stream, *byte)));
                    cursor += (first.len() + second.len()) as u64;
                }
            }
            seen.extend(all(&ring, cursor, 1000));
            prop_assert_eq!(seen, model);
        }
    }
}
