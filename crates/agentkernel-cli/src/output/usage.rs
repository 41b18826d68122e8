//! What sandboxes use.
use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use agentkernel_core::{SandboxName, Stats};
use serde_json::{Value, json};

use super::{bytes, table};

/// What a sandbox used up to a moment.
#[derive(Debug)]
pub(crate) struct Usage {
    name: SandboxName,
    stats: Stats,
    at: Instant,
    /// Of one processor, in per cent, since it was shown before.
    share: Option<f64>,
}

impl Usage {
    pub(crate) fn new(name: SandboxName, stats: Stats) -> Self {
        Self { name, stats, at: Instant::now(), share: None }
    }

    /// Adds the share of the processor since then.
    pub(crate) fn since(mut self, before: &[Self]) -> Self {
        let before = before.iter().find(|before| before.name == self.name);
        self.share = before.and_then(|before| {
            let used = self.stats.cpu_usec?.checked_sub(before.stats.cpu_usec?)?;
            let passed = (self.at - before.at).as_secs_f64();
            Some(Duration::from_micros(used).as_secs_f64() / passed * 100.0)
        });
        self
    }
}

pub(super) fn human(usage: &[Usage]) -> String {
    let unknown = || "-".to_owned();
    table(
        &["NAME", "CPU", "CPU TIME", "MEMORY", "PROCESSES"],
        usage.iter().map(|one| {
            let time =
                one.stats.cpu_usec.map(|usec| format!("{:.2}s", Duration::from_micros(usec).as_secs_f64()));
            vec![
                one.name.to_string(),
                one.share.map_or_else(unknown, |share| format!("{share:.0}%")),
                time.unwrap_or_else(unknown),
                one.stats.memory_bytes.map_or_else(unknown, bytes),
                one.stats.pids.map_or_else(unknown, |pids| pids.to_string()),
            ]
        }),
    )
}

pub(super) fn object(usage: &Usage) -> Value {
    let mut object = json!(usage.stats);
    object["name"] = json!(usage.name);
    object["cpu_percent"] = json!(usage.share);
    object
}

/// Makes room on a terminal to show the same again.
pub(crate) fn clear() {
    // There is nothing to be lost: what follows is shown below what was.
    let _closed = io::stdout().write_all(b"\x1b[H\x1b[J");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_what_was_used_since() {
        let usage = |cpu_usec, at| Usage {
            name: "a".parse().unwrap(),
            stats: Stats { cpu_usec, ..Stats::default() },
            at,
            share: None,
        };
        let begin = Instant::now();
        let later = begin + Duration::from_secs(2);
        let before = [usage(Some(1_000_000), begin)];
        let share = |cpu| usage(cpu, later).since(&before).share;
        assert_eq!((share(Some(2_000_000)), share(Some(0)), share(None)), (Some(50.0), None, None));
    }
}
