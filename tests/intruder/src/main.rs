//! What a hostile command does inside a sandbox that no shell can. The conformance kit writes this program into a
//! sandbox and runs it there.
//!
//! - `fork`: doubles itself for ever, in every process that comes of it. Says `ready` once it may have no more.
//! - `knock [once]`: connects to the guest's own socket, once or for ever.
//! - `lease PATH…`: puts a file of its own at each path and takes a lease on it: whoever opens it without
//!   `O_NONBLOCK` waits until the kernel breaks the lease, 45 s by default.
//! - `seize [PID]`: traces that process, or again and again every process that it can, and never waits for any: what a
//!   tracer does not wait for, no parent can.
//! - `swap PATH PATH`: exchanges the two, each time at once, for ever.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "that is how it tells the kit how far it is")]

#[cfg(target_os = "linux")]
mod fork;
#[cfg(target_os = "linux")]
mod knock;
#[cfg(target_os = "linux")]
mod lease;
#[cfg(target_os = "linux")]
mod seize;
#[cfg(target_os = "linux")]
mod swap;
#[cfg(target_os = "linux")]
mod sys;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = std::env::args().skip(1).collect::<Vec<_>>();
    let arguments = arguments.iter().map(String::as_str).collect::<Vec<_>>();
    match arguments.as_slice() {
        #[cfg(target_os = "linux")]
        ["fork"] => fork::without_end(),
        #[cfg(target_os = "linux")]
        ["knock"] => knock::without_end(),
        #[cfg(target_os = "linux")]
        ["knock", "once"] => knock::once(),
        #[cfg(target_os = "linux")]
        ["lease", paths @ ..] => lease::hold(paths),
        #[cfg(target_os = "linux")]
        ["seize"] => seize::everything(),
        #[cfg(target_os = "linux")]
        ["seize", pid] => seize::one(pid),
        #[cfg(target_os = "linux")]
        ["swap", one, other] => swap::without_end(one, other),
        _ => {
            eprintln!(
                "usage: agentkernel-intruder fork | knock [once] | lease PATH… | seize [PID] | swap PATH PATH, on Linux"
            );
            ExitCode::from(2)
        }
    }
}
