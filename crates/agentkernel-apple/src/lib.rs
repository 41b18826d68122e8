//! The Apple backend of agentkernel: each sandbox is a lightweight virtual machine, driven through Apple's `container`
//! command on macOS 26 and later. See [`AppleBackend`].
//!
//! There is no API but the command, so everything that happens inside goes through `container exec`. What cannot be
//! promised that way (`typed_exit`, `kill_tree`, `raw_bytes`, `exec_detached`) is not claimed.
//!
//! # Defaults
//!
//! What a config does not give gets:
//!
//! | field | default |
//! |---|---|
//! | `image` | `busybox` |
//! | `memory_mb` | 2048 |
//! | `vcpus` | 2 |
//! | `network` | none: no interface but `lo` |
//! | `user`, `cwd` | the image's; uid 0 and `/` if it has none |
//! | capabilities | none |
//!
//! The image must have `/bin/sh`, `sleep` and `/dev/null`; for files also what busybox and coreutils both have: `cat`,
//! `chmod`, `dd`, `find`, `head`, `ln`, `ls`, `mkdir`, `mv`, `readlink`, `rm`, `rmdir`, `stat` and `touch`.
#![cfg(any(target_os = "macos", feature = "any-host"))]
#![forbid(unsafe_code)]

mod argv;
mod backend;
mod command;
mod config;
mod create;
mod error;
mod exec;
mod files;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzz;
mod health;
mod images;
mod info;
mod json;
mod mounts;
mod ports;
mod probe;
mod random;
mod reap;
mod sandbox;
mod script;
mod sentinel;
mod stdin;
mod system;
mod unsupported;
mod version;
mod volumes;

pub use backend::AppleBackend;
pub use config::AppleConfig;
pub use sandbox::AppleSandbox;
pub use system::{
    apple_containers_available, apple_system_running, get_container_ip, macos_version_supported,
    start_apple_system,
};
