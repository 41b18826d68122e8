//! Process trees: finding every descendant of a process, and killing them all.
//!
//! A process cannot leave the tree: its command's stub is a subreaper, so that whoever loses a parent becomes the
//! stub's child. What forks faster than it is found is stopped first: while everything is stopped, nothing forks.
use std::ffi::c_int;
use std::fs;

use rustix::fs::{PROC_SUPER_MAGIC, statfs};
use rustix::process::getpid;

use crate::sys;

/// Sends a signal to every descendant of `root`, but not to those in `spared` and what is below them, nor to `root`.
/// Returns how many there were.
pub(crate) fn signal_descendants(root: i32, spared: &[i32], signal: c_int) -> usize {
    // The tree may be gone already; that is what is wanted.
    descendants(root, spared, |pid| drop(sys::kill(pid, signal)))
}

/// Kills whoever traces a descendant of `root`: the end of what is traced is told to the tracer first, and to the
/// parent only when that has heard it.
pub(crate) fn kill_tracers(root: i32) {
    descendants(root, &[], |pid| {
        for tracer in tracers(pid).into_iter().filter(|tracer| *tracer > 1) {
            drop(sys::kill(tracer, libc::SIGKILL));
        }
    });
}

fn tracers(pid: i32) -> Vec<i32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let status = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok());
    let tracer = |status: String| {
        status.lines().find_map(|line| line.strip_prefix("TracerPid:")?.trim().parse::<i32>().ok())
    };
    status.filter_map(tracer).collect()
}

fn descendants(root: i32, spared: &[i32], mut each: impl FnMut(i32)) -> usize {
    let (mut found, mut waiting) = (0, if is_our_proc() { vec![root] } else { Vec::new() });
    while let Some(parent) = waiting.pop() {
        for child in children(parent) {
            if spared.contains(&child) {
                continue;
            }
            found += 1;
            each(child);
            waiting.push(child);
        }
    }
    found
}

/// The numbers of another namespace's /proc mean other processes, and what is no /proc may be anything.
fn is_our_proc() -> bool {
    let ours = fs::read_link("/proc/self").ok().and_then(|pid| pid.to_str()?.parse::<i32>().ok());
    ours == Some(getpid().as_raw_nonzero().get())
        && statfs("/proc").is_ok_and(|it| it.f_type == PROC_SUPER_MAGIC)
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
