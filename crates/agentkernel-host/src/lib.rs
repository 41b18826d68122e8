//! The host's side of a sandbox: everything that backends share and callers never see.
//!
//! - [`GuestClient`] speaks the guest's protocol over any byte stream and believes nothing of what it reads.
//! - [`GuestSandbox`] is the exec and file half of [`agentkernel_core::Sandbox`], written once over a client.
//! - [`RunDir`], [`BootSocket`] and [`ControlSocket`] are how host and guest find each other on one kernel.
//! - [`find_guest`] finds the guest's program and lays it out so that it can be mounted.
//! - [`BoundPorts`] lead from ports of the host to ports inside.
//! - [`StateLabels`] is what is kept with the engine's object; [`host_context`] and [`liveness`] are the owner.
#![forbid(unsafe_code)]

mod boot;
mod channel;
mod client;
mod elf;
mod elsewhere;
mod exec;
mod failure;
mod files;
mod forward;
mod labels;
mod os;
mod owner;
mod ping;
mod program;
mod publish;
mod run_dir;
mod sandbox;
mod stream;

pub use agentkernel_guest::protocol::{Configure, GUEST_DIR, INIT_UID, Report};
pub use agentkernel_guest::setup;
pub use boot::{BootConnection, BootSocket, ControlSocket};
pub use client::{GuestClient, HELLO_DEADLINE, REQUEST_DEADLINE};
pub use elf::Machine;
pub use elsewhere::GuestKey;
pub use labels::StateLabels;
pub use owner::{host_context, liveness};
pub use program::{GUEST_BIN_DIR, GuestProgram, data_dir, find_guest, find_guest_for, offer_own_executable};
pub use publish::{BoundPorts, Inward, PublishedPorts};
pub use run_dir::{BOOT_TARGET, RunDir, make_private};
pub use sandbox::GuestSandbox;
