//! The suites: each rule of the contract and the trial of it.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a trial fails by a panic")]

mod archives;
mod claims;
mod concurrency;
mod directories;
mod env;
mod errors;
mod exec;
mod files;
mod hostile;
mod lifecycle;
mod limits;
mod network;
mod ownership;
mod ports;
mod snapshots;
mod stdin;
mod stream;
mod trees;
mod tty;

use crate::rule::Rule;

/// Every suite, in the order in which a new backend meets them.
pub(crate) const ALL: &[&[Rule]] = &[
    lifecycle::RULES,
    exec::RULES,
    env::RULES,
    stream::RULES,
    stdin::RULES,
    trees::RULES,
    tty::RULES,
    files::RULES,
    directories::RULES,
    archives::RULES,
    network::RULES,
    ports::RULES,
    limits::RULES,
    snapshots::RULES,
    errors::RULES,
    concurrency::RULES,
    ownership::RULES,
    hostile::RULES,
    claims::RULES,
];
