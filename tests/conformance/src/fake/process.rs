//! Processes as tasks: groups, signals, traps, children, and commands that own whole trees of them.
use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

use agentkernel_core::{ExitStatus, Signal};
use tokio::sync::{Notify, watch};

use super::{bug::Bug, command::Command, loopback::Loopback, tree::Tree};

/// A mutex whose poisoning does not matter: what it guards is always whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What happens to a process that gets a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disposition {
    Ignored,
    Caught,
}

/// One process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) group: AtomicU32,
    pub(super) command: Arc<Command>,
    pub(super) dispositions: Mutex<BTreeMap<u8, Disposition>>,
    pub(super) pending: Mutex<Vec<u8>>,
    /// Told when a caught signal is pending.
    pub(super) caught: Notify,
    fatal: watch::Sender<Option<u8>>,
    exit: watch::Sender<Option<ExitStatus>>,
}

/// The body of a process.
pub(super) type Body = Pin<Box<dyn Future<Output = ExitStatus> + Send>>;

impl Process {
    /// Sends a signal.
    pub(super) fn signal(&self, number: u8) {
        const HARMLESS: [u8; 4] = [17, 18, 23, 28];
        let disposition = lock(&self.dispositions).get(&number).copied();
        match disposition {
            Some(Disposition::Ignored) if number != 9 => {}
            Some(Disposition::Caught) if number != 9 => {
                lock(&self.pending).push(number);
                self.caught.notify_one();
            }
            _ if number == 0 || HARMLESS.contains(&number) => {}
            _ => {
                self.fatal.send_if_modified(|fatal| fatal.is_none() && fatal.replace(number).is_none());
            }
        }
    }

    /// Waits for its end.
    pub(super) async fn ended(&self) -> ExitStatus {
        let mut exit = self.exit.subscribe();
        let ended = exit.wait_for(Option::is_some).await.ok().and_then(|status| *status);
        ended.unwrap_or(ExitStatus::Signal(Signal::KILL))
    }
}

/// Everything that runs in one boot of a sandbox.
#[derive(Debug)]
pub(super) struct World {
    pub(super) tree: Arc<Mutex<Tree>>,
    pub(super) commands: Mutex<BTreeMap<u64, Arc<Command>>>,
    pub(super) ports: Loopback,
    pub(super) bug: Option<Bug>,
    /// Nothing starts any more.
    pub(super) closing: AtomicBool,
    processes: Mutex<BTreeMap<u32, Arc<Process>>>,
    gone: Notify,
    next_pid: AtomicU32,
    next_command: AtomicU64,
}

impl World {
    pub(super) fn new(tree: Arc<Mutex<Tree>>, bug: Option<Bug>) -> Self {
        Self {
            tree,
            commands: Mutex::default(),
            ports: Loopback::default(),
            bug,
            closing: AtomicBool::new(false),
            processes: Mutex::default(),
            gone: Notify::new(),
            next_pid: AtomicU32::new(2),
            next_command: AtomicU64::new(1),
        }
    }

    pub(super) fn next_command(&self) -> u64 {
        self.next_command.fetch_add(1, Ordering::Relaxed)
    }

    /// Starts a process of a command. Without a group it leads one of its own. Ignored signals stay ignored.
    pub(super) fn start(
        self: &Arc<Self>,
        command: &Arc<Command>,
        group: Option<u32>,
        parent: Option<&Process>,
        body: impl FnOnce(Arc<Process>) -> Body,
    ) -> Arc<Process> {
        let pid = self.next_pid.fetch_add(1, Ordering::Relaxed);
        let ignored = parent.map(|parent| {
            let mut dispositions = lock(&parent.dispositions).clone();
            dispositions.retain(|_, disposition| *disposition == Disposition::Ignored);
            dispositions
        });
        let process = Arc::new(Process {
            pid,
            group: AtomicU32::new(group.unwrap_or(pid)),
            command: Arc::clone(command),
            dispositions: Mutex::new(ignored.unwrap_or_default()),
            pending: Mutex::default(),
            caught: Notify::new(),
            fatal: watch::Sender::new(None),
            exit: watch::Sender::new(None),
        });
        let mut processes = lock(&self.processes);
        processes.insert(pid, Arc::clone(&process));
        if command.is_killed() || self.closing.load(Ordering::SeqCst) {
            process.signal(9);
        }
        drop(processes);
        let (world, running, body) = (Arc::clone(self), Arc::clone(&process), body(Arc::clone(&process)));
        tokio::spawn(async move {
            let mut fatal = running.fatal.subscribe();
            let status = tokio::select! {
                biased;
                killed = fatal.wait_for(Option::is_some) => {
                    let number = killed.ok().and_then(|number| *number).and_then(Signal::new);
                    ExitStatus::Signal(number.unwrap_or(Signal::KILL))
                }
                status = body => status,
            };
            lock(&world.processes).remove(&running.pid);
            running.exit.send_replace(Some(status));
            running.command.wake();
            world.gone.notify_waiters();
        });
        process
    }

    pub(super) fn process(&self, pid: u32) -> Option<Arc<Process>> {
        lock(&self.processes).get(&pid).cloned()
    }

    /// Returns the processes that are wanted.
    pub(super) fn processes(&self, wanted: impl Fn(&Process) -> bool) -> Vec<Arc<Process>> {
        lock(&self.processes).values().filter(|process| wanted(process)).cloned().collect()
    }

    /// Kills everything that a command started.
    pub(super) fn kill_tree(&self, command: &Arc<Command>) {
        command.set_killed();
        let leader = command.leader();
        let survives = matches!(
            self.bug,
            Some(Bug::TreeSurvivesKill | Bug::FalseClaim(agentkernel_core::Capability::KillTree))
        );
        let of_command = |process: &Process| {
            Arc::ptr_eq(&process.command, command) && (!survives || Some(process.pid) == leader)
        };
        self.processes(of_command).iter().for_each(|process| process.signal(9));
    }

    /// Waits until no process is left.
    pub(super) async fn empty(&self) {
        loop {
            let gone = self.gone.notified();
            tokio::pin!(gone);
            gone.as_mut().enable();
            if lock(&self.processes).is_empty() {
                return;
            }
            gone.await;
        }
    }

    /// Kills everything; does not wait.
    pub(super) fn kill_all(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.processes(|_| true).iter().for_each(|process| process.signal(9));
    }
}
