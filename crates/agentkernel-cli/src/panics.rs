//! A bug of our own: told as any other failure is, with no backtrace, and with the terminal given back.
use std::{io, panic, process};

use agentkernel_core::Error;

use crate::{report, terminal};

/// From here on a panic, of any thread, ends the process with the exit code `failed`.
pub(crate) fn tell_and_end(failed: i32, as_json: bool) {
    panic::set_hook(Box::new(move |info| {
        terminal::restore();
        let payload = info.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let what = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let what = what.unwrap_or("it does not say why");
        let place = info.location().map(|place| format!(" ({place})")).unwrap_or_default();
        let cause = io::Error::other(format!("{what}{place}"));
        let error = Error::unexpected("go on", "agentkernel has a bug", cause)
            .with_hint("please report it, with what you ran and the line above");
        report::report(&error, as_json);
        process::exit(failed);
    }));
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{File, OpenOptions},
        io::Read,
        os::fd::OwnedFd,
        process::{Command, Stdio},
    };

    use rustix::{
        pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
        termios::{LocalModes, tcgetattr},
    };

    use super::*;

    const BREAKS: &str = "AGENTKERNEL_TEST_BREAKS";

    fn is_raw(terminal: impl std::os::fd::AsFd) -> bool {
        !tcgetattr(terminal).unwrap().local_modes.contains(LocalModes::ICANON)
    }

    /// What the test runs in a process of its own, on a terminal.
    fn breaks() -> ! {
        tell_and_end(report::AROUND_COMMAND, false);
        let raw = terminal::RawMode::enter().unwrap();
        report::note(&format!("raw: {}", is_raw(io::stdin())));
        panic!("broken on purpose, in {raw:?}");
    }

    #[test]
    fn a_panic_gives_the_terminal_back_and_shows_no_backtrace() {
        if std::env::var_os(BREAKS).is_some() {
            breaks();
        }
        let keys = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&keys).unwrap();
        unlockpt(&keys).unwrap();
        let path = ptsname(&keys, Vec::new()).unwrap().into_string().unwrap();
        let open = || OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let ours = OwnedFd::from(open());
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args([
            "--exact",
            "panics::tests::a_panic_gives_the_terminal_back_and_shows_no_backtrace",
            "--nocapture",
        ]);
        again.env(BREAKS, "1").env("RUST_BACKTRACE", "full");
        again.stdin(Stdio::from(open())).stdout(Stdio::from(open())).stderr(Stdio::from(open()));
        let code = again.status().unwrap().code();
        assert!(!is_raw(&ours), "the terminal is left raw");
        // Once nobody has the terminal any more, what it showed has an end.
        drop((again, ours));
        let mut shown = Vec::new();
        let _ended = File::from(keys).read_to_end(&mut shown);
        let shown = String::from_utf8(shown).unwrap();
        assert_eq!(code, Some(report::AROUND_COMMAND), "{shown}");
        for part in
            ["raw: true", "error: failed to go on: agentkernel has a bug", "broken on purpose", "hint: "]
        {
            assert!(shown.contains(part), "no {part:?} in {shown}");
        }
        assert!(!shown.contains("backtrace") && !shown.contains("panicked"), "{shown}");
    }
}
