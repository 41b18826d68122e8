//! What one system tells in another way than the next: who a process is, and how to write without a signal.
#[cfg(any(not(target_os = "linux"), test))]
mod elsewhere;
#[cfg(target_os = "linux")]
mod linux;

#[cfg(not(target_os = "linux"))]
pub(crate) use elsewhere::{QUIET, started, this_process};
#[cfg(target_os = "linux")]
pub(crate) use linux::{QUIET, started, this_process};
