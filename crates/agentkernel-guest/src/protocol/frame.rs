//! Frames: a header, then a payload.
use super::DecodeError;

/// Length of a header in bytes.
pub const HEADER_LEN: usize = 9;

/// What stands before a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Payload length in bytes.
    pub length: usize,
    /// Kind of the frame.
    pub kind: u8,
    /// Channel that it is for.
    pub channel: u32,
}

impl Header {
    /// Reads a header and refuses a payload longer than `most`.
    ///
    /// # Errors
    /// If the payload would be longer than `most`.
    pub fn decode(bytes: [u8; HEADER_LEN], most: usize) -> Result<Self, DecodeError> {
        let [a, b, c, d, kind, e, f, g, h] = bytes;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length > most {
            return Err(DecodeError("a frame is longer than allowed"));
        }
        Ok(Self { length, kind, channel: u32::from_le_bytes([e, f, g, h]) })
    }

    /// Writes the header.
    pub fn encode(self) -> [u8; HEADER_LEN] {
        let [a, b, c, d] = u32::try_from(self.length).unwrap_or(u32::MAX).to_le_bytes();
        let [e, f, g, h] = self.channel.to_le_bytes();
        [a, b, c, d, self.kind, e, f, g, h]
    }
}

/// Appends a frame to a buffer.
pub fn encode_frame(out: &mut Vec<u8>, kind: u8, channel: u32, payload: &[u8]) {
    out.extend_from_slice(&Header { length: payload.len(), kind, channel }.encode());
    out.extend_from_slice(payload);
}

/// Cuts a byte stream into frames. It never holds more than one frame and what was pushed with its end.
#[derive(Debug)]
pub struct FrameReader {
    buffer: Vec<u8>,
    start: usize,
    most: usize,
}

impl FrameReader {
    /// Makes a reader that refuses payloads longer than `most`.
    pub fn new(most: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, most }
    }

    /// Adds received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer(bytes.len()).extend_from_slice(bytes);
    }

    /// Returns what received bytes are to be appended to, with room for at least so many: reading straight into it
    /// saves a copy.
    pub fn buffer(&mut self, room: usize) -> &mut Vec<u8> {
        if !self.is_partial() {
            self.buffer.clear();
            self.start = 0;
        } else if self.buffer.capacity() - self.buffer.len() < room {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.reserve(room);
        &mut self.buffer
    }

    /// Returns the next whole frame, `None` if more bytes are needed.
    ///
    /// # Errors
    /// If the other side announces a frame that is too long: the connection must end.
    #[expect(clippy::should_implement_trait, reason = "lending: the payload borrows from the reader")]
    pub fn next(&mut self) -> Result<Option<(Header, &[u8])>, DecodeError> {
        let waiting = self.buffer.get(self.start..).unwrap_or_default();
        let Some((header, rest)) = waiting.split_first_chunk::<HEADER_LEN>() else { return Ok(None) };
        let header = Header::decode(*header, self.most)?;
        if rest.len() < header.length {
            return Ok(None);
        }
        self.start += HEADER_LEN + header.length;
        Ok(Some((header, rest.get(..header.length).unwrap_or_default())))
    }

    /// Returns whether a frame has begun and is not whole.
    pub fn is_partial(&self) -> bool {
        self.start < self.buffer.len()
    }

    /// Gives memory back when nothing is waiting: an idle connection costs nothing.
    pub fn shrink(&mut self) {
        if !self.is_partial() {
            self.buffer = Vec::new();
            self.start = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_frame_longer_than_allowed_is_refused_before_its_payload() {
        let mut reader = FrameReader::new(16);
        reader.push(&Header { length: 17, kind: 1, channel: 2 }.encode());
        assert!(reader.next().is_err());
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut(
            frames in proptest::collection::vec((any::<u8>(), any::<u32>(), proptest::collection::vec(any::<u8>(), 0..64)), 0..8),
            cut in 1usize..32,
        ) {
            let mut stream = Vec::new();
            for (kind, channel, payload) in &frames {
                encode_frame(&mut stream, *kind, *channel, payload);
            }
            let (mut reader, mut seen) = (FrameReader::new(64), Vec::new());
            for part in stream.chunks(cut) {
                reader.push(part);
                while let Some((header, payload)) = reader.next().unwrap() {
                    seen.push((header.kind, header.channel, payload.to_vec()));
                }
            }
            prop_assert!(!reader.is_partial());
            prop_assert_eq!(seen, frames);
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = FrameReader::new(1024);
            reader.push(&bytes);
            while let Ok(Some(_)) = reader.next() {}
        }
    }
}
