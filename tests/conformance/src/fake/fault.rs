//! Faults that a test can script: what a real backend may do on a bad day, and at which call.
use std::{future, sync::Mutex, time::Duration};

use agentkernel_core::{Error, ErrorKind, Result};
use tokio::time;

use super::{TYPE, process::lock};

/// A fault of the fake, given to [`FakeBackend::with_fault`](super::FakeBackend::with_fault) or, at any time later, to
/// [`FakeBackend::inject`](super::FakeBackend::inject).
///
/// By itself it strikes every time at the call that its description names; [`at`](Self::at), [`Scripted::after`] and
/// [`Scripted::times`] say otherwise.
///
/// ```
/// use agentkernel_conformance::fake::{Call, FakeBackend, Fault};
/// use agentkernel_core::{Backend, ErrorKind, SandboxConfig, SandboxExt};
///
/// # let runtime = tokio::runtime::Runtime::new().unwrap();
/// # runtime.block_on(async {
/// let fault = Fault::Error(ErrorKind::Unavailable).at(Call::Create).times(1);
/// let backend = FakeBackend::new().with_fault(fault).with_fault(Fault::LostExit);
/// let sandbox = backend.sandbox("work".parse().unwrap());
/// let config = SandboxConfig::new("agentkernel-test");
/// assert_eq!(sandbox.start(&config).await.unwrap_err().kind(), ErrorKind::Unavailable);
/// sandbox.start(&config).await.unwrap();
/// assert_eq!(sandbox.exec(&["true"]).await.unwrap_err().kind(), ErrorKind::Disconnected);
/// # });
/// ```
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The call never returns; dropping its future is all that ends it. At [`Call::Spawn`]: for tests of deadlines.
    Hang,
    /// The call takes this long before it does anything. At [`Call::Spawn`]: for tests of progress and cancellation.
    Slow(Duration),
    /// The call fails with this kind and does nothing. At [`Call::Spawn`]: for tests of retries and of what is shown.
    Error(ErrorKind),
    /// The command runs and its session tells nothing, not even the end. At [`Call::Spawn`] and [`Call::Attach`].
    Silent,
    /// The stream breaks after the command's output, before its end: [`Disconnected`](ErrorKind::Disconnected), and
    /// never a success. At [`Call::Spawn`] and [`Call::Attach`].
    LostExit,
    /// The way in is closed: inside is end-of-file, writing to stdin or to the connection fails with
    /// [`BrokenPipe`](std::io::ErrorKind::BrokenPipe), and what comes out comes whole. At [`Call::Spawn`],
    /// [`Call::Connect`] and [`Call::Listen`].
    HalfClosed,
    /// The command ends with [`OutOfMemory`](agentkernel_core::ExitStatus::OutOfMemory) when it would have ended; what
    /// it wrote is kept. At [`Call::Spawn`].
    OutOfMemory,
    /// No file grows any more, whoever writes it: calls fail with [`ResourceExhausted`](ErrorKind::ResourceExhausted),
    /// commands see a write fail. Everywhere, until [`heal`](super::FakeBackend::heal): it has no calls of its own.
    DiskFull,
}

/// A call of the contract that a fault can strike at.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// [`Backend::health`](agentkernel_core::Backend::health).
    Health,
    /// [`Backend::list`](agentkernel_core::Backend::list).
    List,
    /// [`Backend::reap`](agentkernel_core::Backend::reap).
    Reap,
    /// [`Sandbox::inspect`](agentkernel_core::Sandbox::inspect).
    Inspect,
    /// [`Sandbox::create`](agentkernel_core::Sandbox::create).
    Create,
    /// [`Sandbox::boot`](agentkernel_core::Sandbox::boot).
    Boot,
    /// [`Sandbox::spawn`](agentkernel_core::Sandbox::spawn).
    Spawn,
    /// [`Sandbox::commands`](agentkernel_core::Sandbox::commands).
    Commands,
    /// [`Sandbox::attach`](agentkernel_core::Sandbox::attach).
    Attach,
    /// [`Sandbox::halt`](agentkernel_core::Sandbox::halt).
    Halt,
    /// [`Sandbox::remove`](agentkernel_core::Sandbox::remove).
    Remove,
    /// [`Sandbox::logs`](agentkernel_core::Sandbox::logs).
    Logs,
    /// [`Sandbox::stats`](agentkernel_core::Sandbox::stats).
    Stats,
    /// [`Sandbox::connect`](agentkernel_core::Sandbox::connect).
    Connect,
    /// [`Sandbox::listen`](agentkernel_core::Sandbox::listen).
    Listen,
    /// [`Sandbox::open`](agentkernel_core::Sandbox::open).
    Open,
    /// [`Sandbox::write`](agentkernel_core::Sandbox::write).
    Write,
    /// [`Sandbox::metadata`](agentkernel_core::Sandbox::metadata).
    Metadata,
    /// [`Sandbox::read_dir`](agentkernel_core::Sandbox::read_dir).
    ReadDir,
    /// [`Sandbox::create_dir`](agentkernel_core::Sandbox::create_dir).
    CreateDir,
    /// [`Sandbox::remove_path`](agentkernel_core::Sandbox::remove_path).
    RemovePath,
    /// [`Sandbox::pack`](agentkernel_core::Sandbox::pack).
    Pack,
    /// [`Sandbox::unpack`](agentkernel_core::Sandbox::unpack).
    Unpack,
}

impl Fault {
    /// Makes it strike at this call only.
    ///
    /// # Panics
    /// If the call cannot have this fault: one of a stream at a call without one, or [`DiskFull`](Self::DiskFull).
    pub fn at(self, call: Call) -> Scripted {
        assert!(self.calls().is_none_or(|calls| calls.contains(&call)), "{self:?} cannot be at {call:?}");
        Scripted { calls: Calls::One(call), ..self.into() }
    }

    /// Makes it strike at every call, as an engine that is gone or stuck does.
    ///
    /// # Panics
    /// If not every call can have this fault: only [`Hang`](Self::Hang), [`Slow`](Self::Slow) and
    /// [`Error`](Self::Error) can be everywhere.
    pub fn everywhere(self) -> Scripted {
        assert!(self.calls().is_none(), "{self:?} cannot be everywhere");
        Scripted { calls: Calls::All, ..self.into() }
    }

    /// The calls that can have it; `None` if every one can.
    const fn calls(self) -> Option<&'static [Call]> {
        match self {
            Self::Hang | Self::Slow(_) | Self::Error(_) => None,
            Self::Silent | Self::LostExit => Some(&[Call::Spawn, Call::Attach]),
            Self::HalfClosed => Some(&[Call::Spawn, Call::Connect, Call::Listen]),
            Self::OutOfMemory => Some(&[Call::Spawn]),
            Self::DiskFull => Some(&[]),
        }
    }
}

/// A fault with the calls that it strikes at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scripted {
    fault: Fault,
    calls: Calls,
    spared: u32,
    left: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Calls {
    All,
    One(Call),
    Those(&'static [Call]),
}

impl From<Fault> for Scripted {
    fn from(fault: Fault) -> Self {
        let calls = Calls::Those(fault.calls().unwrap_or(&[Call::Spawn]));
        Self { fault, calls, spared: 0, left: u32::MAX }
    }
}

impl Scripted {
    /// Spares the first of these calls.
    #[must_use]
    pub fn after(mut self, calls: u32) -> Self {
        self.spared = calls;
        self
    }

    /// Strikes only so often. Default: always.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.left = times;
        self
    }

    /// Returns the fault if it strikes at this call, and counts.
    fn struck(&mut self, call: Call) -> Option<Fault> {
        let concerned = match self.calls {
            Calls::All => true,
            Calls::One(one) => one == call,
            Calls::Those(calls) => calls.contains(&call),
        };
        if !concerned || self.left == 0 {
            return None;
        }
        if self.spared > 0 {
            self.spared -= 1;
            return None;
        }
        self.left = if self.left == u32::MAX { u32::MAX } else { self.left - 1 };
        Some(self.fault)
    }
}

/// The faults of a fake, in the order in which they were given.
#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<Vec<Scripted>>);

/// What strikes a stream.
#[derive(Debug)]
pub(super) struct Struck(Vec<Fault>);

impl Struck {
    pub(super) fn has(&self, fault: Fault) -> bool {
        self.0.contains(&fault)
    }
}

impl Faults {
    pub(super) fn inject(&self, fault: Scripted) {
        lock(&self.0).push(fault);
    }

    pub(super) fn heal(&self) {
        lock(&self.0).clear();
    }

    /// Returns whether disks are full.
    pub(super) fn fill_disks(&self) -> bool {
        lock(&self.0).iter().any(|scripted| scripted.fault == Fault::DiskFull)
    }

    /// Does what the faults of this call do to the call, and returns those that are for its stream.
    pub(super) async fn strike(&self, call: Call) -> Result<Struck> {
        let struck = lock(&self.0).iter_mut().filter_map(|fault| fault.struck(call)).collect::<Vec<_>>();
        let mut of_stream = Vec::new();
        for fault in struck {
            match fault {
                Fault::Hang => future::pending().await,
                Fault::Slow(duration) => time::sleep(duration).await,
                Fault::Error(kind) => return Err(scripted_error(kind, call)),
                other => of_stream.push(other),
            }
        }
        Ok(Struck(of_stream))
    }
}

fn scripted_error(kind: ErrorKind, call: Call) -> Error {
    Error::new(kind, format!("call {call:?}"), "a test scripted this fault")
        .with_context("backend", TYPE)
        .with_source("Fault::Error of the fake")
}
