//! Our stdin: read by a thread, since a blocking read cannot be called off, and sent to where it goes.
use std::{future::pending, io, sync::Arc, thread};

use agentkernel_core::Writer;
use bytes::Bytes;
use rustix::{
    buffer::spare_capacity,
    event::{PollFd, PollFlags, poll},
    io::Errno,
    stdio::stdin,
};
use tokio::{
    io::AsyncWriteExt,
    sync::{Notify, mpsc},
};

const CHUNK: usize = 64 << 10;
/// Ctrl-P, Ctrl-Q.
const DETACH: [u8; 2] = [0x10, 0x11];

/// Starts reading and returns the chunks; the end of the stream is the end of our stdin. The thread is left behind in
/// its read when nobody wants more: the process ends over it.
pub(crate) fn chunks() -> io::Result<mpsc::Receiver<Bytes>> {
    let (chunks, queue) = mpsc::channel(1);
    thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        while let Some(bytes) = read() {
            if chunks.blocking_send(bytes).is_err() {
                break;
            }
        }
    })?;
    Ok(queue)
}

fn read() -> Option<Bytes> {
    let mut buffer = Vec::with_capacity(CHUNK);
    loop {
        match rustix::io::read(stdin(), spare_capacity(&mut buffer)) {
            Ok(0) => return None,
            Ok(_) => return Some(buffer.into()),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                poll(&mut [PollFd::from_borrowed_fd(stdin(), PollFlags::IN)], None).ok()?;
            }
            // A stdin that cannot be read has nothing to say.
            Err(_) => return None,
        }
    }
}

/// Sends our stdin to the command until one of them ends. With `detach` the detach keys are taken out and told.
pub(crate) async fn forward(mut queue: mpsc::Receiver<Bytes>, mut to: Writer, detach: Option<Arc<Notify>>) {
    let mut keys = detach.is_some().then(Keys::default);
    while let Some(bytes) = queue.recv().await {
        let (bytes, is_detached) = match &mut keys {
            Some(keys) => keys.pass(&bytes),
            None => (bytes, false),
        };
        // A command that closed its stdin may still run: its end is told elsewhere.
        if to.write_all(&bytes).await.is_err() || to.flush().await.is_err() {
            return;
        }
        if is_detached {
            detach.iter().for_each(|detach| detach.notify_one());
            // Dropping the writer is end-of-file, and the command that is left running shall not read that.
            return pending().await;
        }
    }
    // The other side may have ended first.
    let _ended = to.shutdown().await;
}

/// Holds the first detach key back until the next key is known.
#[derive(Debug, Default)]
struct Keys {
    is_first_held: bool,
}

impl Keys {
    fn pass(&mut self, bytes: &[u8]) -> (Bytes, bool) {
        let mut passed = Vec::with_capacity(bytes.len() + 1);
        for byte in bytes {
            if self.is_first_held && *byte == DETACH[1] {
                return (passed.into(), true);
            }
            if self.is_first_held {
                passed.push(DETACH[0]);
            }
            self.is_first_held = *byte == DETACH[0];
            if !self.is_first_held {
                passed.push(*byte);
            }
        }
        (passed.into(), false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(chunks: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut keys = Keys::default();
        let passed = chunks.iter().map(|chunk| keys.pass(chunk)).collect::<Vec<_>>();
        (passed.iter().flat_map(|(bytes, _)| bytes.to_vec()).collect(), passed.iter().any(|(_, end)| *end))
    }

    #[test]
    fn both_detach_keys_in_a_row_detach_even_if_read_apart() {
        assert_eq!(passed(&[b"a\x10\x11b"]), (b"a".to_vec(), true));
        assert_eq!(passed(&[b"a\x10", b"\x11"]), (b"a".to_vec(), true));
        assert_eq!(passed(&[b"\x10\x10\x11"]), (b"\x10".to_vec(), true));
    }

    #[test]
    fn one_detach_key_alone_passes_with_the_next_key() {
        assert_eq!(passed(&[b"\x10", b"a\x11"]), (b"\x10a\x11".to_vec(), false));
    }
}
