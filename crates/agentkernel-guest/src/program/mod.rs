//! The guest program: init of a sandbox. One poll loop, no threads; commands and file work are forked.
//!
//! `agentkernel-guest boot SOCKET` connects out to the host, learns how the sandbox is to be, and serves it until it
//! ends. Where the engine shares no kernel with the host, `boot-stdin` waits for the host inside, and `relay` carries
//! each of the host's connections there. `sandbox` makes a sandbox of the kernel's own means around itself first. It needs
//! nothing of the image and trusts nothing that comes from it.

mod boot;
mod cgroup;
mod channel;
mod command;
mod connection;
mod door;
mod environment;
mod event_loop;
mod files;
mod forward;
mod identity;
mod kill;
mod launch;
mod output;
mod relay;
mod report;
mod request;
mod ring;
mod sandbox;
mod sink;
mod stdio;
mod tree;
mod user;
mod worker;

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub use files::fuzz;

use std::ffi::OsString;
use std::io::Write;

use crate::sys;

/// Exit code of a guest that could not do its work: software error, sysexits(3).
const FAILED: u8 = 70;

/// Runs the guest: `[__guest] boot SOCKET`, `[__guest] boot-stdin`, `[__guest] relay` or `[__guest] sandbox`. Never
/// returns.
pub fn main(args: impl Iterator<Item = OsString>) -> ! {
    let args: Vec<OsString> = args.skip_while(|arg| arg == "__guest").collect();
    let result = match args.as_slice() {
        [verb, socket] if verb == "boot" => {
            boot::boot(boot::Meeting::Socket(socket)).map(event_loop::Guest::serve)
        }
        [verb] if verb == "boot-stdin" => boot::boot(boot::Meeting::Stdin).map(event_loop::Guest::serve),
        [verb] if verb == "relay" => relay::relay(),
        [verb] if verb == "sandbox" => sandbox::sandbox().map(event_loop::Guest::serve),
        _ => {
            Err(std::io::Error::other("usage: agentkernel-guest boot SOCKET | boot-stdin | relay | sandbox"))
        }
    };
    let code = match result {
        Ok(code) => code,
        Err(error) => {
            // Nobody may listen; the exit code says it as well.
            drop(writeln!(std::io::stderr(), "agentkernel-guest: {error}"));
            FAILED
        }
    };
    sys::exit(code)
}
