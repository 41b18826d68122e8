//! Processes without end.
use std::{process::ExitCode, thread, time::Duration};

use crate::sys;

/// Doubles this process and all that come of it, for ever. Says `ready` once it may have no more.
pub(crate) fn without_end() -> ExitCode {
    let mut is_first = true;
    loop {
        match sys::fork() {
            Ok(sys::Forked::Child) => is_first = false,
            Ok(sys::Forked::Parent) => {}
            Err(_) => {
                if std::mem::take(&mut is_first) {
                    println!("ready");
                }
                // The next that ends makes room; until then the processor is for others.
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}
