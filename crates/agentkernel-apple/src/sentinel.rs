//! Finds what [`script::RUN`](crate::script::RUN) tells in the stream that it shares with the command.
use agentkernel_core::{ExitStatus, Signal};
use bytes::{Bytes, BytesMut};

/// Around what is told.
const MARK: u8 = 0x1e;
/// The longest of it, nonce and both marks included.
const MAX_LEN: usize = 96;

/// What was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// The working directory does not exist.
    NoDirectory,
    /// It exists, and its permissions keep the command's user out.
    ClosedDirectory,
    /// The command is about to run.
    Runs(Group),
    /// There is no more output on the other stream.
    Done,
    /// It ended, and there is no more output on this one.
    Ended(ExitStatus),
}

/// The processes of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group {
    /// The shell around it.
    pub pid: u32,
    /// Its process group.
    pub group: u32,
}

/// A piece of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// What the command wrote.
    Output(Bytes),
    /// What was told.
    Told(Told),
}

/// Splits the stream as it comes. What could be the begin of something told is held back, [`MAX_LEN`] bytes at most.
#[derive(Debug)]
pub(crate) struct Scanner {
    begin: Vec<u8>,
    held: BytesMut,
}

impl Scanner {
    pub(crate) fn new(nonce: &str) -> Self {
        let mut begin = vec![MARK];
        begin.extend_from_slice(nonce.as_bytes());
        begin.push(b' ');
        Self { begin, held: BytesMut::new() }
    }

    /// Takes bytes and returns what is sure by now.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<Piece> {
        self.held.extend_from_slice(bytes);
        let mut pieces = Vec::new();
        let mut plain = 0;
        while let Some(at) = self.held.get(plain..).and_then(|rest| find(rest, MARK)).map(|at| at + plain) {
            let rest = self.held.get(at..).unwrap_or_default();
            let is_possible = self.begin.starts_with(rest.get(..self.begin.len()).unwrap_or(rest));
            let body = rest.get(self.begin.len()..).unwrap_or_default();
            match find(body, MARK).filter(|_| is_possible) {
                Some(length) => match body.get(..length).and_then(read) {
                    Some(told) => {
                        let whole = self.begin.len() + length + 1;
                        put(&mut pieces, self.held.split_to(at));
                        pieces.push(Piece::Told(told));
                        drop(self.held.split_to(whole));
                        plain = 0;
                    }
                    None => plain = at + 1,
                },
                // The rest may still come.
                None if is_possible && rest.len() < MAX_LEN => {
                    put(&mut pieces, self.held.split_to(at));
                    return pieces;
                }
                None => plain = at + 1,
            }
        }
        put(&mut pieces, self.held.split());
        pieces
    }

    /// Returns what was held back for nothing.
    pub(crate) fn finish(&mut self) -> Bytes {
        self.held.split().freeze()
    }
}

fn find(bytes: &[u8], wanted: u8) -> Option<usize> {
    bytes.iter().position(|byte| *byte == wanted)
}

fn put(pieces: &mut Vec<Piece>, bytes: BytesMut) {
    if !bytes.is_empty() {
        pieces.push(Piece::Output(bytes.freeze()));
    }
}

fn read(body: &[u8]) -> Option<Told> {
    let mut words = std::str::from_utf8(body).ok()?.split(' ');
    let told = match words.next()? {
        "absent" => Told::NoDirectory,
        "closed" => Told::ClosedDirectory,
        "run" => {
            let pid = words.next()?.parse().ok()?;
            Told::Runs(Group { pid, group: words.next()?.parse().ok()? })
        }
        "end" => Told::Done,
        "code" => Told::Ended(ExitStatus::Code(words.next()?.parse().ok()?)),
        "signal" => {
            // Nothing after it: the shell that waits was killed itself.
            let code = words.next()?.parse::<u8>().unwrap_or(137);
            Told::Ended(
                code.checked_sub(128)
                    .and_then(Signal::new)
                    .map_or(ExitStatus::Code(code), ExitStatus::Signal),
            )
        }
        _ => return None,
    };
    words.next().is_none().then_some(told)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(chunks: &[&[u8]]) -> (Vec<u8>, Vec<Told>) {
        let mut scanner = Scanner::new("abc");
        let (mut output, mut told) = (Vec::new(), Vec::new());
        for chunk in chunks {
            for piece in scanner.push(chunk) {
                match piece {
                    Piece::Output(bytes) => output.extend_from_slice(&bytes),
                    Piece::Told(one) => told.push(one),
                }
            }
        }
        output.extend_from_slice(&scanner.finish());
        (output, told)
    }

    const STREAM: &[u8] =
        b"\x1eabc run 12 13\x1eone\x1e two\x1eabd code 1\x1e\x1eabc nonsense\x1e\x1eabc signal 137\x1e";

    #[test]
    fn what_is_told_is_taken_out_and_the_rest_stays() {
        let told =
            vec![Told::Runs(Group { pid: 12, group: 13 }), Told::Ended(ExitStatus::Signal(Signal::KILL))];
        assert_eq!(split(&[STREAM]), (b"one\x1e two\x1eabd code 1\x1e\x1eabc nonsense\x1e".to_vec(), told));
    }

    #[test]
    fn a_code_is_no_signal() {
        assert_eq!(split(&[b"\x1eabc code 137\x1e"]).1, [Told::Ended(ExitStatus::Code(137))]);
        assert!(split(&[b"\x1eabc code 256\x1e"]).1.is_empty());
        assert_eq!(split(&[b"\x1eabc absent\x1e"]).1, [Told::NoDirectory]);
        assert_eq!(split(&[b"\x1eabc end\x1e"]).1, [Told::Done]);
    }

    #[test]
    fn a_mark_without_an_end_is_not_held_without_end() {
        let long = [b"\x1eabc ".as_slice(), &[b'x'; 200]].concat();
        let mut scanner = Scanner::new("abc");
        assert_eq!(scanner.push(&long), [Piece::Output(Bytes::from(long))]);
    }

    proptest! {
        #[test]
        fn however_the_stream_is_cut_it_is_the_same(cuts in proptest::collection::vec(0..STREAM.len(), 0..6)) {
            let mut cuts = cuts;
            cuts.extend([0, STREAM.len()]);
            cuts.sort_unstable();
            let chunks = cuts.windows(2).map(|pair| &STREAM[pair[0]..pair[1]]).collect::<Vec<_>>();
            prop_assert_eq!(split(&chunks), split(&[STREAM]));
        }

        #[test]
        fn what_has_no_mark_goes_through(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let bytes = bytes.into_iter().filter(|byte| *byte != MARK).collect::<Vec<_>>();
            prop_assert_eq!(split(&[&bytes]), (bytes, vec![]));
        }

        #[test]
        fn push_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            split(&[b"\x1eabc ", &bytes, b"\x1e"]);
        }
    }
}
