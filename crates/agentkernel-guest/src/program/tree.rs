//! Process trees: finding every descendant of a process, and killing them all.
//!
//! A process cannot leave the tree: its command's stub is a subreaper, so that whoever loses a parent becomes the
//! stub's child. What forks faster than it is found is stopped first: while everything is stopped, nothing forks.
use std::ffi::c_int;
use std::fs;

use rustix::process::getpid;

use crate::sys;

/// Sends a signal to every descendant of `root`, but not to those in `spared` and what is below them, nor to `root`.
/// Returns how many there were.
pub(crate) fn signal_descendants(root: i32, spared: &[i32], signal: c_int) -> usize {
    // The numbers of another namespace's /proc mean other processes.
    let ours = fs::read_link("/proc/self").ok().and_then(|pid| pid.to_str()?.parse::<i32>().ok());
    if ours != Some(getpid().as_raw_nonzero().get()) {
        return 0;
    }
    let (mut found, mut waiting) = (0, vec![root]);
    while let Some(parent) = waiting.pop() {
        for child in children(parent) {
            if spared.contains(&child) {
                continue;
            }
            found += 1;
            // The tree may be gone already; that is what is wanted.
            drop(sys::kill(child, signal));
            waiting.push(child);
        }
    }
    found
}

/// Kills every descendant of `root` while nobody can fork. Only for a process namespace of our own.
pub(crate) fn freeze_and_kill(root: i32, spared: &[i32]) {
    drop(sys::kill(-1, libc::SIGSTOP));
    signal_descendants(root, spared, libc::SIGKILL);
    drop(sys::kill(-1, libc::SIGCONT));
}

fn children(parent: i32) -> Vec<i32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{parent}/task")) else { return Vec::new() };
    let mut children = Vec::new();
    for thread in threads.flatten() {
        match fs::read_to_string(thread.path().join("children")) {
            Ok(list) => {
                children.extend(list.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => children.extend(by_parent(parent)),
            Err(_) => {}
        }
    }
    children
}

/// For kernels without `CONFIG_PROC_CHILDREN`.
fn by_parent(parent: i32) -> Vec<i32> {
    if fs::exists("/proc/thread-self/children").unwrap_or(false) {
        return Vec::new();
    }
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}
