//! The contract of agentkernel: run untrusted commands in a sandbox, through one API over interchangeable backends.
//!
//! - [`Backend`] and [`Sandbox`] are what a backend implements: checked arguments, no default methods.
//! - [`SandboxExt`] is what callers use: it is implemented for every [`Sandbox`], so that no backend can
//!   drift from it or forget a check.
//! - [`SandboxConfig`] is what a caller asks for; [`SandboxConfig::resolve`] checks it against what a backend
//!   can enforce and gives the [`SandboxSpec`] that a backend creates. What was asked for and cannot be
//!   enforced is refused there, never weakened.
//! - [`Registry`] chooses a backend and says why.
//!
//! This crate does no I/O, spawns no task and knows no backend.
#![forbid(unsafe_code)]

mod backend;
mod capability;
mod command;
mod config;
mod error;
mod exec;
mod ext;
mod files;
mod image;
mod info;
mod limits;
mod mounts;
mod name;
mod network;
mod owner;
mod path;
mod profile;
mod registry;
mod resolve;
mod sandbox;
mod store;

pub use backend::{Backend, BackendType, Filter, Health, Reap, Reaped};
pub use capability::{Capabilities, Capability, Isolation};
pub use command::{Arg, EnvVar, ExecId, LinuxCapability, Signal, TtySize, User};
pub use config::{FileInjection, Lifetime, PullPolicy, SandboxConfig};
pub use error::{Error, ErrorKind, Result};
pub use exec::{
    CommandInfo, ExecControl, ExecEvent, ExecOptions, ExecOutput, ExecResult, ExecSession, ExecSpec,
    ExitStatus, LogOptions, OUTPUT_LIMIT, Replay, Stats,
};
pub use ext::{READ_FILE_MAX, STOP_GRACE, SandboxExt};
pub use files::{Depth, DirEntry, Duplex, Events, FileType, Metadata, Reader, Source, WriteOptions, Writer};
pub use image::ImageRef;
pub use info::{Enforcement, SandboxInfo, State};
pub use limits::Cpus;
pub use mounts::{Mount, Tmpfs, Volume, VolumeName};
pub use name::SandboxName;
pub use network::{HostName, Network, PortMapping};
pub use owner::{HostContext, Liveness, Owner};
pub use path::SandboxPath;
pub use profile::Profile;
pub use registry::{Connect, Considered, Registry, Selection};
pub use resolve::{HOME_TARGET, InjectedFile, Requirement, SandboxSpec, WORKSPACE};
pub use sandbox::Sandbox;
pub use store::{ImageInfo, ImageStore, Progress, Pruned, VolumeInfo, VolumeStore};

/// Re-exported, because it appears in signatures of this crate.
pub use async_trait::async_trait;
/// Re-exported, because it appears in signatures of this crate.
pub use bytes::Bytes;
/// Re-exported, because it appears in signatures of this crate.
pub use futures_core::Stream;
