//! The guest as a process, and a host that speaks the protocol to it over a real socket.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking and says on stderr why it is skipped"
)]

mod client;
mod commands;
mod crowd;
mod files;
mod fuzzed;
mod hostile;
mod sessions;
mod trees;
