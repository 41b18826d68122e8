//! An in-memory backend: for tests of what is built on the contract, and of the kit itself.
//!
//! It runs a small `sh` and about twenty programs over a file tree in memory; nothing of it touches the host. It claims
//! only what it really does: no terminal, no kernel limits, no network at all.
//!
//! ```
//! use agentkernel_conformance::fake::FakeBackend;
//! use agentkernel_core::{Backend, SandboxConfig, SandboxExt};
//!
//! # let runtime = tokio::runtime::Runtime::new().unwrap();
//! # runtime.block_on(async {
//! let sandbox = FakeBackend::new().sandbox("work".parse().unwrap());
//! sandbox.start(&SandboxConfig::new("agentkernel-test")).await.unwrap();
//! assert_eq!(sandbox.exec(&["echo", "hello"]).await.unwrap().stdout, "hello\n");
//! # });
//! ```
//!
//! # Faults
//!
//! A [`Fault`] makes it do what a real backend may do on a bad day: hang, be slow, fail, fall silent, lose the end of a
//! command, close half of a stream, run out of memory, fill the disk; at every call or at one, always or so many times.
#![doc = include_str!("testing.md")]
mod applets;
mod archive;
mod backend;
mod bug;
mod command;
mod descriptor;
mod expansion;
mod fault;
mod image;
mod instance;
mod interpreter;
mod launch;
mod loopback;
mod pipe;
mod process;
mod program;
mod sandbox;
mod shell;
mod tree;

use agentkernel_core::{BackendType, Capabilities, Capability, Isolation};

pub use backend::FakeBackend;
pub use bug::Bug;
pub use fault::{Call, Fault, Scripted};

/// The fake's type: `fake`.
pub const TYPE: BackendType = BackendType::External("fake");

/// What the fake can do.
pub const CAPABILITIES: Capabilities = Capabilities::new(Isolation::Process).with_all(&[
    Capability::ExecStdin,
    Capability::ExecSignal,
    Capability::ExecUser,
    Capability::ExecDetached,
    Capability::TypedExit,
    Capability::KillTree,
    Capability::RawBytes,
    Capability::Files,
    Capability::Forward,
    Capability::NetworkNone,
    Capability::DiskLimit,
    Capability::ReadOnlyRoot,
    Capability::Lease,
    Capability::Persistence,
    Capability::Logs,
    Capability::Stats,
]);
