//! The suite that every agentkernel backend passes, and an in-memory backend to test against.
//!
//! A backend's repository has this crate as a dev-dependency and one file, `tests/conformance.rs`, with
//! `harness = false` for it in `Cargo.toml`:
//!
//! ```no_run
//! use std::{process::ExitCode, sync::Arc};
//!
//! use agentkernel_conformance::fake::FakeBackend;
//! use agentkernel_core::{Backend, Result};
//!
//! fn main() -> ExitCode {
//!     agentkernel_conformance::main("fake", || async {
//!         let backend: Result<Arc<dyn Backend>> = Ok(Arc::new(FakeBackend::new()));
//!         backend
//!     })
//! }
//! ```
//!
//! # Behavior
//!
//! - Trials are named `suite::rule`. Each makes its own sandboxes and removes them whatever happens.
//! - The arguments of the standard test harness work: a filter, `--list`, `--test-threads`, `--exact`.
//! - What a backend claims must work; what it does not claim must answer `Unsupported` (suite `claims`). Other trials
//!   that need an unclaimed capability are skipped, with the reason.
//! - A backend that is [`Unavailable`](agentkernel_core::ErrorKind::Unavailable) skips everything, unless
//!   `AGENTKERNEL_REQUIRE_BACKENDS` (names, with commas) has its name: then everything fails.
//! - `--json FILE` and `--junit FILE` write the [`Verdict`] there, as JSON and as JUnit XML, whatever it is.
//!   `AGENTKERNEL_VERDICTS=DIR` writes `DIR/NAME.json` and `DIR/NAME.xml`, also under nextest, where each trial is a
//!   process of its own and adds itself. Relative paths start at the directory of the package, where cargo runs tests.
//! - Commands inside are POSIX `sh` and busybox applets only. The image is `agentkernel-test` unless
//!   [`Kit::with_config`] says otherwise: busybox as every command, `/etc/passwd` with `root` and `user` (1000:1000),
//!   `/home/user`.
//! - The suite `hostile` needs a program that no shell can replace, and is skipped without it: [`Kit::with_intruder`].
//!
//! The module [`fake`] is also for tests of what is built on the contract, with faults to survive.
#![forbid(unsafe_code)]

#[cfg(doctest)]
#[doc = include_str!("../../../docs/testing.md")]
struct Testing;

#[cfg(doctest)]
#[doc = include_str!("../../../docs/writing-a-backend.md")]
struct WritingABackend;

pub mod fake;
mod fixture;
mod junit;
mod kit;
mod panics;
mod publish;
mod rule;
mod suites;
mod trial;
mod verdict;
mod wait;
mod watch;

use std::{process::ExitCode, sync::Arc};

use agentkernel_core::{Backend, Result};

pub use kit::{IMAGE, Kit, TRIAL_DEADLINE};
pub use verdict::{CapabilityVerdict, Counts, Engine, Outcome, Standing, Trial, Verdict};

/// Runs the kit with its defaults on the backend of this name, as the main function of a test without a harness.
pub fn main<C, F>(backend: &'static str, connect: C) -> ExitCode
where
    C: Fn() -> F + Send + Sync + 'static,
    F: Future<Output = Result<Arc<dyn Backend>>> + Send + 'static,
{
    Kit::new(backend, connect).main()
}
