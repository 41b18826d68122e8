//! Waiting for a condition, never blindly.
use std::time::Duration;

use tokio::time;

/// How long a condition can take that is due at once on an idle machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// How long between two looks.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);

/// Waits until the condition, which may await, holds; panics with `what` if it does not within [`SOON`].
macro_rules! eventually {
    ($what:expr, $condition:expr) => {
        let end = tokio::time::Instant::now() + crate::wait::SOON;
        while !$condition {
            assert!(tokio::time::Instant::now() < end, "not within {:?}: {}", crate::wait::SOON, $what);
            tokio::time::sleep(crate::wait::PAUSE).await;
        }
    };
}
pub(crate) use eventually;

/// Returns the future's output; panics with `what` if it takes longer than [`SOON`].
#[expect(clippy::panic, reason = "a trial fails by a panic")]
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match time::timeout(SOON, future).await {
        Ok(output) => output,
        Err(_) => panic!("not within {} s: {what}", SOON.as_secs()),
    }
}
