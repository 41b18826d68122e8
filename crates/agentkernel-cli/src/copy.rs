//! Copying between the host and a sandbox. What comes out of a sandbox is hostile: its bytes are kept, its names are
//! checked, and its links, devices and modes decide nothing on the host.
mod channel;
mod endpoint;
mod pack;
mod part;
#[cfg(test)]
mod swapping;
mod unpack;
mod worker;

pub(crate) use channel::{AsyncEnd, SyncReader, SyncWriter, channel, feed, send};
pub(crate) use endpoint::{Endpoint, sides};
pub(crate) use pack::pack;
pub(crate) use part::Part;
pub(crate) use unpack::{Limits, unpack};
pub(crate) use worker::Worker;

/// How many of the left out entries are named.
const NAMED: usize = 100;

/// What was left out of a copy, and why; the first ones by name.
#[derive(Debug, Default)]
pub(crate) struct Skipped {
    pub(crate) named: Vec<(String, &'static str)>,
    pub(crate) more: u64,
}

impl Skipped {
    fn add(&mut self, path: &[u8], why: &'static str) {
        if self.named.len() < NAMED {
            self.named.push((String::from_utf8_lossy(path).into_owned(), why));
        } else {
            self.more += 1;
        }
    }
}
