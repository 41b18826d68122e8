//! A path that is now one thing and now another.
use std::process::ExitCode;

use rustix::fs::{CWD, RenameFlags, renameat_with};

/// Exchanges what is at two paths, for ever. Says `ready` after the first time.
pub(crate) fn without_end(one: &str, other: &str) -> ExitCode {
    let mut is_first = true;
    loop {
        match renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE) {
            Ok(()) if std::mem::take(&mut is_first) => println!("ready"),
            Err(error) if is_first => {
                eprintln!("{one}, {other}: {error}");
                return ExitCode::FAILURE;
            }
            // Somebody has removed one of them: it may come again.
            Ok(()) | Err(_) => {}
        }
    }
}
