//! The guest: the small init that does everything inside a sandbox, and the protocol that it speaks.
//!
//! - [`protocol`] is the wire format, for both sides; it compiles everywhere. It is described in
//!   `docs/guest-protocol.md`.
//! - [`setup`] is the plan of a sandbox that the program makes itself, of the kernel's own means.
//! - `program` is the init itself, Linux only: PID 1 of the sandbox, one poll loop, no threads.

#[cfg(target_os = "linux")]
pub mod program;
pub mod protocol;
pub mod setup;
#[cfg(target_os = "linux")]
mod sys;
