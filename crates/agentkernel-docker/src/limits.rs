//! The limits of a process that the engine can surely give: without CAP_SYS_RESOURCE it starts nothing with more than it
//! has itself.
use std::fs;

use rustix::process::{Resource, getrlimit};

use crate::request::MAX_LIMIT;

/// What an engine that cannot be seen surely gives: by default no more processes can have a number (`pid_max` of proc(5)).
const FEW_PROCESSES: u64 = 32_768;

/// The hard limits that a command can have here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub open_files: u64,
    pub processes: u64,
}

/// Returns the least of ours, of the engine's where its process can be seen, and of [`MAX_LIMIT`]; where it cannot, of no
/// more than [`FEW_PROCESSES`].
pub(crate) fn of(engine: Option<i32>) -> Limits {
    let theirs = engine.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/limits")).ok());
    let least = |resource, name| {
        let theirs = theirs.as_deref().and_then(|limits| hard(limits, name));
        let ours = getrlimit(resource).maximum;
        [ours, theirs].into_iter().flatten().fold(MAX_LIMIT, u64::min)
    };
    let processes = least(Resource::Nproc, "Max processes");
    Limits {
        open_files: least(Resource::Nofile, "Max open files"),
        processes: if theirs.is_some() { processes } else { processes.min(FEW_PROCESSES) },
    }
}

/// Reads a hard limit of proc_pid_limits(5); `None` for one without end.
fn hard(limits: &str, name: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hard_limit_is_the_second_number() {
        let limits = "Limit   Soft Limit  Hard Limit  Units\n\
                      Max processes   10   32768   processes\n\
                      Max open files  1024 unlimited files\n";
        assert_eq!(hard(limits, "Max processes"), Some(32768));
        assert_eq!(hard(limits, "Max open files"), None);
        assert_eq!(hard("", "Max processes"), None);
    }

    #[test]
    fn an_engine_that_cannot_be_seen_has_our_limits_and_few_processes() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let ours = of(Some(pid));
        assert_eq!(of(None), Limits { processes: ours.processes.min(FEW_PROCESSES), ..ours });
        assert_eq!(of(None), of(Some(i32::MAX)));
    }
}
