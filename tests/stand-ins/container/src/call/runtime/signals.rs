//! The signals of an attached call (reference 0.2 and 4, correction 12).
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command prints")]

use std::{
    io::{Write, stdin},
    os::unix::net::UnixStream,
    sync::{Arc, Mutex},
    thread,
};

use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::SignalFd,
};
use rustix::termios::tcgetwinsize;

use super::Order;
use crate::call::{
    control::Version,
    failure::{Failure, Outcome},
};

/// Where signals go: nowhere until the process has started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Target(Arc<Mutex<Option<UnixStream>>>);

impl Target {
    /// From here on signals do not end the call any more.
    pub(crate) fn started(&self, control: UnixStream) {
        if let Ok(mut target) = self.0.lock() {
            *target = Some(control);
        }
    }
}

/// Catches signals from here on; with a console only changes of its size.
pub(crate) fn catch(has_console: bool, version: Version) -> Outcome<Target> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGWINCH);
    if !has_console {
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1, Signal::SIGUSR2] {
            set.add(signal);
        }
    }
    let caught = set.thread_block().and_then(|()| SignalFd::new(&set));
    let signals = caught.map_err(|error| Failure::Gap(format!("signals: {error}")))?;
    let target = Target::default();
    let own = target.clone();
    thread::spawn(move || obey(&signals, &own, version));
    Ok(target)
}

/// Nothing of the caller's mask may reach the process.
pub(crate) fn release() {
    let _ = SigSet::all().thread_unblock();
}

/// Since 1.0 no signal is ever forwarded; before, each is. The third INT or TERM ends the call.
fn obey(signals: &SignalFd, target: &Target, version: Version) {
    let mut asked = 0;
    loop {
        let signal = signals.read_signal().ok().flatten();
        let Some(number) = signal.and_then(|signal| i32::try_from(signal.ssi_signo).ok()) else { continue };
        let is_end = [2, 15].contains(&number);
        let Ok(target) = target.0.lock() else { return };
        let Some(control) = target.as_ref() else {
            if is_end {
                std::process::exit(128 + number);
            }
            continue;
        };
        if number == Signal::SIGWINCH as i32
            && let Ok(size) = tcgetwinsize(stdin())
        {
            order(control, &Order::Window(size.ws_row, size.ws_col));
            continue;
        }
        asked += i32::from(is_end);
        if asked == 3 {
            let text = "Received 3 SIGINT/SIGTERM's, forcefully exiting.";
            if version < Version::V1_0 {
                println!("{text}");
            } else {
                eprintln!("{text}");
            }
            std::process::exit(1);
        }
        if version < Version::V1_0 {
            order(control, &Order::Signal(number));
        } else {
            eprintln!(
                "failed to send signal: [\"error\": invalidArgument: \"missing signal in xpc message\", \"signal\": {number}]"
            );
        }
    }
}

fn order(mut control: &UnixStream, order: &Order) {
    if let Ok(line) = serde_json::to_string(order) {
        let _ = control.write_all(format!("{line}\n").as_bytes());
    }
}
