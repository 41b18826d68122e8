//! The frames of both directions: what is read is written the same again, however the stream is cut.
#![expect(clippy::unwrap_used, reason = "a target fails by a panic")]
use agentkernel_guest::protocol::{
    DecodeError, FrameReader, FromGuest, Header, MAX_FROM_GUEST, MAX_TO_GUEST, ToGuest,
};

pub(crate) fn from_guest(bytes: &[u8]) {
    let encode = |frame: &FromGuest, out: &mut Vec<u8>| frame.encode(7, out);
    one(bytes, MAX_FROM_GUEST, FromGuest::decode, encode);
    whole(bytes, MAX_FROM_GUEST, FromGuest::decode);
}

pub(crate) fn to_guest(bytes: &[u8]) {
    let encode = |frame: &ToGuest, out: &mut Vec<u8>| frame.encode(7, out);
    one(bytes, MAX_TO_GUEST, ToGuest::decode, encode);
    whole(bytes, MAX_TO_GUEST, ToGuest::decode);
}

type Decode<F> = fn(u8, &[u8]) -> Result<F, DecodeError>;

/// Takes the first byte for a kind and the rest for a payload: a frame that is read is the same when written and read.
fn one<F: PartialEq + std::fmt::Debug>(
    bytes: &[u8],
    most: usize,
    decode: Decode<F>,
    encode: impl Fn(&F, &mut Vec<u8>),
) {
    let Some((kind, payload)) = bytes.split_first() else { return };
    let Ok(frame) = decode(*kind, payload) else { return };
    let mut written = Vec::new();
    encode(&frame, &mut written);
    let mut reader = FrameReader::new(most);
    reader.push(&written);
    let (header, payload) = reader.next().unwrap().unwrap();
    assert_eq!((header.kind, header.channel), (*kind, 7));
    assert_eq!(decode(header.kind, payload).unwrap(), frame);
    assert!(reader.next().unwrap().is_none() && !reader.is_partial());
}

/// Takes the bytes for a stream: where it is cut makes no difference, and nothing but what was sent is held.
fn whole<F>(bytes: &[u8], most: usize, decode: Decode<F>) {
    let Some((cut, stream)) = bytes.split_first() else { return };
    let frames = |cut: usize| {
        let (mut reader, mut frames) = (FrameReader::new(most), Vec::<(Header, Vec<u8>)>::new());
        for part in stream.chunks(cut) {
            reader.push(part);
            loop {
                match reader.next() {
                    Ok(Some((header, payload))) => {
                        let _frame = decode(header.kind, payload);
                        frames.push((header, payload.to_vec()));
                    }
                    Ok(None) => break,
                    Err(error) => return (frames, Some(error.0)),
                }
            }
        }
        (frames, None)
    };
    assert_eq!(frames(usize::from(*cut).max(1)), frames(usize::MAX));
}
