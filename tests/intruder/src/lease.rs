//! Files that nobody can open in time.
use std::{
    fs::{self, File},
    io::{self, Write},
    os::fd::AsFd,
    process::ExitCode,
    thread,
    time::Duration,
};

use nix::sys::signal::{SigSet, Signal};

use crate::sys;

/// Takes all that can be taken, says so, and holds it.
pub(crate) fn hold(paths: &[&str]) -> ExitCode {
    // The kernel asks for a lease back by this signal, which would end the process.
    let mut asked_back = SigSet::empty();
    asked_back.add(Signal::SIGIO);
    if let Err(error) = asked_back.thread_block() {
        eprintln!("SIGIO: {error}");
        return ExitCode::FAILURE;
    }
    let mut held = Vec::new();
    for path in paths {
        match take(path) {
            Ok(file) => {
                println!("leased {path}");
                held.push(file);
            }
            Err(error) => println!("refused {path}: {error}"),
        }
    }
    println!("ready");
    loop {
        thread::sleep(Duration::from_secs(1000));
    }
}

/// Puts a file there that reads as users and groups do, so that a reader that does get it is none the wiser.
fn take(path: &str) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options().read(true).write(true).create_new(true).open(path)?;
    file.write_all(b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n")?;
    sys::take_write_lease(file.as_fd())?;
    Ok(file)
}
