//! What `tests/fuzz` drives: the reader of archives. No part of the API.
use super::tar::{self, Entry, Input, Kind};
use super::unpack;
use crate::protocol::Failure;

struct Bytes<'a>(&'a [u8]);

impl Input for Bytes<'_> {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let length = buffer.len().min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        buffer[..length].copy_from_slice(taken);
        self.0 = rest;
        Ok(length)
    }
}

/// Reads an archive to its end, as unpacking does. What was read of an entry is what its own headers say again.
pub fn archive(bytes: &[u8]) {
    let mut input = Bytes(bytes);
    while let Ok(Some(entry)) = tar::next(&mut input) {
        if let Ok(steps) = unpack::steps(&entry.path) {
            assert!(steps.iter().all(|step| !matches!(step.to_bytes(), b"" | b"." | b"..")));
            assert!(steps.iter().all(|step| !step.to_bytes().contains(&b'/')));
        }
        assert!(entry.mode <= 0o7777 && (entry.kind == Kind::File || entry.size == 0));
        again(&entry);
        let padded = entry.size.saturating_add(tar::padding(entry.size) as u64);
        let data = usize::try_from(padded).unwrap_or(usize::MAX).min(input.0.len());
        input.0 = &input.0[data..];
    }
}

fn again(entry: &Entry) {
    let headers = tar::encode(entry);
    if let Ok(Some(read)) = tar::next(&mut Bytes(&headers)) {
        assert_eq!((read.size, &read.target), (entry.size, &entry.target));
    }
}
