//! The command as people and programs see it: exit code, stdout and stderr of the real binary.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[cfg(feature = "apple-any-host")]
mod apple;
mod backends;
mod config;
mod copy;
mod described;
mod detached;
#[cfg(feature = "linux")]
mod embedded;
mod ending;
mod exec;
mod inputs;
mod lifecycle;
mod naming;
mod plan;
mod program;
mod run;
mod stored;
mod terminal;
mod usage;
