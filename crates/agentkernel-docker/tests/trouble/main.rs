//! An engine in trouble: hung, killed, paused, full, or busy with the same container. Each is made to happen, on an engine
//! of the test's own; each ends with a typed error within its deadline, and never with a wrong success.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test says so by failing"
)]
#[cfg(feature = "tls")]
#[path = "../support/authority.rs"]
mod authority;
mod daemon;
mod full;
#[path = "../support/guest.rs"]
mod guest;
mod hung;
mod image;
mod killed;
mod lost;
mod paused;
mod quota;
mod races;
#[cfg(feature = "tls")]
mod tls;

use std::time::{Duration, Instant};

use agentkernel_core::{Error, ErrorKind, Lifetime, SandboxConfig};

/// Returns a config that ends with its owner.
fn owned() -> SandboxConfig {
    SandboxConfig::new(image::NAME)
}

/// Returns a config that outlives its owner.
fn detached() -> SandboxConfig {
    let mut config = owned();
    config.lifetime = Lifetime::Detached;
    config
}

/// Awaits an answer that must be a timeout, with a hint, soon after its deadline.
async fn times_out<T: std::fmt::Debug>(
    what: &str,
    deadline: Duration,
    call: impl Future<Output = Result<T, Error>>,
) {
    let begin = Instant::now();
    let error = call.await.expect_err(what);
    let took = begin.elapsed();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{what}: {error:?}");
    assert!(error.hint().is_some(), "{what}: {error:?}");
    assert!(took < deadline + daemon::SLACK, "{what}: {took:?}");
}
