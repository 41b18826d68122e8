//! The Docker and Podman backends of agentkernel.
//!
//! Containers and images go through the Engine API; everything that happens inside goes through the guest, which is
//! process 1 of the container and connects out, once, to a socket of ours. See [`DockerBackend`].
//!
//! ```no_run
//! use agentkernel_core::{Backend, Result, SandboxConfig, SandboxExt};
//! use agentkernel_docker::{DockerBackend, DockerConfig};
//!
//! async fn answer() -> Result<String> {
//!     let backend = DockerBackend::connect(DockerConfig::default()).await?;
//!     let sandbox = backend.sandbox("demo".parse()?);
//!     sandbox.start(&SandboxConfig::new("busybox")).await?;
//!     let result = sandbox.exec(&["echo", "42"]).await?;
//!     sandbox.stop().await?;
//!     Ok(result.stdout)
//! }
//! ```
//!
//! # Defaults
//!
//! What a config does not give gets:
//!
//! | field | default |
//! |---|---|
//! | `image` | `busybox` |
//! | `memory_mb`, `vcpus` | no limit |
//! | `pids` | 2048, where the engine can |
//! | `open_files` | 1,048,576, or the hard limit of this process if that is less |
//! | `network` | none: no interface but `lo`, `/etc/hosts` with `localhost` only |
//! | `user`, `cwd` | the image's; uid 0 and `/` if it has none |
//! | capabilities | none for commands; the guest keeps SETUID, SETGID and KILL |
//! | `no_new_privileges`, `syscall_filter` | on, where the engine can |
//! | `/dev/shm` | 64 MiB; with `read_only` also `/tmp` and `/run`, 64 MiB each, counted as memory |
//!
//! Core dumps are off and an image's health check does not run. Directories that an image declares as `VOLUME` stay
//! writable under `read_only`; they go with the sandbox. On engines before 25 what is mounted below a read-only mount is
//! not shown, since it would be writable.
#![forbid(unsafe_code)]

mod accounts;
mod address;
mod backend;
mod boot;
mod config;
mod context;
mod create;
mod credentials;
mod elsewhere;
mod endpoint;
mod engine;
mod error;
mod exec;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzz;
mod greeting;
mod guest_volume;
mod health;
mod hijack;
mod hosts;
mod id;
mod images;
mod import;
mod info;
mod kind;
mod limits;
mod logs;
mod peer;
mod place;
mod podman;
mod probe;
mod pull;
mod reap;
mod request;
mod sandbox;
mod search;
mod snapshot;
mod surroundings;
mod tls;
mod transport;
mod verify;
mod volumes;

pub use backend::DockerBackend;
pub use config::DockerConfig;
pub use kind::EngineKind;
pub use tls::TlsFiles;
