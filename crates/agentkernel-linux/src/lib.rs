//! The embedded Linux backend of agentkernel: sandboxes of the kernel's own means, with no engine and no daemon.
//!
//! A small helper, which is the guest's own program, makes each sandbox and becomes its init; see
//! `docs/adr/0006-a-helper-becomes-the-init.md`. Root or an ordinary user: both can.
//!
//! # Defaults
//!
//! What a config does not give gets:
//!
//! | field | default |
//! |---|---|
//! | `image` | `host`: this machine's system directories, read-only, with private `/tmp`, `/run`, `/home`, `/proc`, `/dev` |
//! | `memory_mb`, `vcpus`, `pids` | no limit |
//! | `open_files` | the hard limit of this process |
//! | `network` | none: no interface but `lo` |
//! | `user` | of `host`: the caller's own, or 1000 for root; of an image: uid 0 |
//! | capabilities | none for commands |
//! | `no_new_privileges`, `syscall_filter` | on |
//! | `/dev/shm` | 64 MiB; the root of `host`, with `/tmp` and the home directory, 1 GiB; counted as memory |
//!
//! User ids inside are never root's outside: a caller that is root gets a range of its own, any other its own id.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]

mod backend;
mod boot;
mod config;
mod create;
mod end;
mod error;
mod exec;
mod helper;
mod host_image;
mod images;
mod info;
mod machine;
mod plan;
mod reap;
mod sandbox;
mod state;
mod verify;
mod volumes;

pub use backend::{LinuxBackend, UPPER_BOUND};
pub use config::LinuxConfig;
