//! Killing whole trees, step by step from the loop: the group and all in sight first, then stop, kill, continue,
//! until the stub finds that it has no child left.
use std::time::{Duration, Instant};

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::getpid;

use super::event_loop::Guest;
use super::tree::{freeze_and_kill, kill_tracers, signal_descendants};
use crate::sys;

/// What the first pass has before the second.
const FIRST: Duration = Duration::from_millis(5);
/// Passes are at most so far apart.
const MOST: Duration = Duration::from_millis(20);
/// From this pass on, those that trace a process of the tree are killed as well.
const TRACERS: u32 = 10;
/// Whoever waits for the end of a tree waits no longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Descriptors that reading /proc takes at once.
const SPARE: usize = 3;

/// A tree that is being killed.
#[derive(Debug)]
pub(crate) struct Kill {
    since: Instant,
    pub(crate) next: Instant,
    passes: u32,
}

impl Guest {
    /// Begins to kill a command's tree.
    pub(crate) fn kill_command(&mut self, id: u64) {
        let Some(command) = self.commands.get_mut(&id) else { return };
        if command.tree_gone || command.kill.is_some() {
            return;
        }
        let now = Instant::now();
        command.kill = Some(Kill { since: now, next: now, passes: 0 });
        self.kill_pass(id, now);
    }

    /// Makes the passes that are due, and gives up waiting where it took too long.
    pub(crate) fn kill_due(&mut self, now: Instant) {
        let due = |next: Instant| next <= now;
        let ids: Vec<u64> = self
            .commands
            .iter()
            .filter(|(_, command)| command.kill.as_ref().is_some_and(|kill| due(kill.next)))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.kill_pass(id, now);
        }
        if self.orphans.is_some_and(due) {
            self.kill_orphans(now);
        }
    }

    fn kill_pass(&mut self, id: u64, now: Instant) {
        self.spare.clear();
        self.kill_pass_with_descriptors(id, now);
        self.reserve();
    }

    fn kill_pass_with_descriptors(&mut self, id: u64, now: Instant) {
        let is_init = self.is_init;
        let Some(command) = self.commands.get_mut(&id) else { return };
        let (stub, pid) = (command.stub, command.pid);
        let Some(kill) = &mut command.kill else { return };
        kill.passes += 1;
        if kill.passes == 1 {
            if let Some(pid) = pid {
                drop(sys::kill(-pid, libc::SIGKILL));
            }
            signal_descendants(stub, &[], libc::SIGKILL);
        } else if is_init {
            freeze_and_kill(stub, &[]);
        } else {
            signal_descendants(stub, &[], libc::SIGKILL);
        }
        if kill.passes >= TRACERS {
            kill_tracers(stub);
        }
        let pause = FIRST.min(Duration::from_millis(kill.passes.into())).max(Duration::from_millis(1));
        let pause = match kill.passes {
            1 => FIRST,
            2..=20 => pause,
            _ => MOST,
        };
        // A pass over a big tree takes a while itself.
        kill.next = now.max(Instant::now()) + pause;
        if kill.since + PATIENCE <= now && command.timed_out {
            self.command_timed_out(id);
        }
    }

    /// Kills what a murdered stub has left: our own children that we did not make.
    pub(crate) fn kill_orphans(&mut self, now: Instant) {
        let ours: Vec<i32> = self
            .commands
            .values()
            .filter(|command| command.tree.is_some())
            .map(|command| command.stub)
            .chain(self.worker_pids())
            .collect();
        let root = getpid().as_raw_nonzero().get();
        self.spare.clear();
        let found = signal_descendants(root, &ours, libc::SIGKILL);
        if found > 0 && self.is_init && self.orphans.is_some() {
            freeze_and_kill(root, &ours);
        }
        self.reserve();
        if found > 0 {
            self.orphans = Some(now.max(Instant::now()) + FIRST);
            return;
        }
        self.orphans = None;
        let gone: Vec<u64> = self
            .commands
            .iter()
            .filter(|(_, command)| command.tree.is_none() && !command.tree_gone)
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.command_gone(id);
        }
    }

    /// Keeps descriptors that nothing else gets: without them /proc could not be read when all are in use, and
    /// nothing killed.
    pub(crate) fn reserve(&mut self) {
        while self.spare.len() < SPARE
            && let Ok(fd) = fcntl_dupfd_cloexec(&self.signals, 3)
        {
            self.spare.push(fd);
        }
    }

    /// Asks every command to end.
    pub(crate) fn terminate_all(&mut self) {
        self.spare.clear();
        for command in self.commands.values().filter(|command| !command.tree_gone) {
            match command.pid {
                Some(pid) => drop(sys::kill(-pid, libc::SIGTERM)),
                None => drop(signal_descendants(command.stub, &[], libc::SIGTERM)),
            }
        }
        self.reserve();
    }

    /// Kills what is in sight. As init this is not needed: the kernel kills the whole namespace when we end.
    pub(crate) fn kill_all(&mut self) {
        if self.is_init {
            return;
        }
        self.spare.clear();
        let root = getpid().as_raw_nonzero().get();
        for _ in 0..100 {
            let stubs: Vec<i32> = self.commands.values().map(|command| command.stub).collect();
            let found: usize = stubs.iter().map(|stub| signal_descendants(*stub, &[], libc::SIGKILL)).sum();
            if found == 0 {
                break;
            }
        }
        signal_descendants(root, &[], libc::SIGKILL);
    }
}
