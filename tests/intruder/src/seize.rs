//! Processes that have a tracer which never looks at them.
use std::{collections::HashSet, fs, process::ExitCode, thread, time::Duration};

use nix::{
    sys::ptrace::{self, Options},
    unistd::Pid,
};

/// Traces one process, if it can.
pub(crate) fn one(pid: &str) -> ExitCode {
    let Ok(pid) = pid.parse::<i32>() else {
        eprintln!("`{pid}` is no process");
        return ExitCode::from(2);
    };
    match ptrace::seize(Pid::from_raw(pid), Options::empty()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Traces whatever it can, for ever. Says `ready` after the first look around.
pub(crate) fn everything() -> ExitCode {
    let own = std::process::id().to_string();
    let mut seized = HashSet::new();
    let mut is_first = true;
    loop {
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Ok(pid) = name.parse::<i32>() else { continue };
            if name != own
                && ptrace::seize(Pid::from_raw(pid), Options::empty()).is_ok()
                && seized.insert(pid)
            {
                println!("seized {pid}");
            }
        }
        if std::mem::take(&mut is_first) {
            println!("ready");
        }
        thread::sleep(Duration::from_millis(1));
    }
}
