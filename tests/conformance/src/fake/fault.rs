//! Faults that a test can script: what a real backend may do on a bad day.

/// A fault of the fake, set with [`FakeBackend::with_fault`](super::FakeBackend::with_fault).
///
/// ```
/// use agentkernel_conformance::fake::{FakeBackend, Fault};
/// use agentkernel_core::{Backend, ErrorKind, SandboxConfig, SandboxExt};
///
/// # let runtime = tokio::runtime::Runtime::new().unwrap();
/// # runtime.block_on(async {
/// let backend = FakeBackend::new().with_fault(Fault::LostExit);
/// let sandbox = backend.sandbox("work".parse().unwrap());
/// sandbox.start(&SandboxConfig::new("agentkernel-test")).await.unwrap();
/// let error = sandbox.exec(&["true"]).await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Disconnected);
/// # });
/// ```
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Starting a command never returns: for tests of deadlines.
    Hang,
    /// The connection breaks after a command's output, before its end: `Disconnected`.
    LostExit,
    /// Commands end with [`OutOfMemory`](agentkernel_core::ExitStatus::OutOfMemory).
    OutOfMemory,
    /// No file can be written: `ResourceExhausted`.
    DiskFull,
    /// Starting a command takes half a second: for tests of progress and of cancellation.
    Slow,
}
