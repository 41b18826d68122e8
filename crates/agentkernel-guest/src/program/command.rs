//! Commands: what is known of each, and its life from launch to the end of its tree.
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::termios::{Winsize, tcsetwinsize};

use super::channel::{Route, Work};
use super::connection::Connection;
use super::event_loop::Guest;
use super::kill::Kill;
use super::launch::{Launched, Told, launch, told};
use super::output::Outputs;
use super::sink::{End, Sink};
use crate::protocol::{
    CommandEntry, Failure, FailureCode, FromGuest, KEPT_COMMANDS, MAX_LISTED_ARGV, Spawn, Status,
};
use crate::sys;

/// The longest payload that tells of a command.
const MOST_ENTRY: usize = MAX_LISTED_ARGV + 64;

/// A command.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) argv: Vec<Vec<u8>>,
    pub(crate) main: bool,
    pub(crate) detached: bool,
    /// The channel whose end is its end.
    pub(crate) owner: Option<Route>,
    /// Channels that were closed and wait for the tree to be gone.
    pub(crate) closing: Vec<Route>,
    /// 0 once it is put to rest.
    pub(crate) stub: i32,
    /// Its pid and process group, while it has not ended.
    pub(crate) pid: Option<i32>,
    /// While it is on its way.
    pub(crate) report: Option<OwnedFd>,
    report_bytes: Vec<u8>,
    /// Its process has told its pid. It may have ended since.
    began: bool,
    failure: Option<Failure>,
    pub(crate) tree: Option<OwnedFd>,
    tree_bytes: Vec<u8>,
    pub(crate) tree_gone: bool,
    pub(crate) sink: Sink,
    stdin_of: Option<Route>,
    terminal: Option<Rc<OwnedFd>>,
    pub(crate) outputs: Outputs,
    /// How the command itself ended.
    pub(crate) ended: Option<Status>,
    /// What is told to those who wait; set when it is certain.
    pub(crate) status: Option<Status>,
    pub(crate) kill: Option<Kill>,
    pub(crate) timed_out: bool,
    /// How many processes the kernel had killed for want of memory before.
    oom_kills: u64,
    pub(crate) timeout: Option<Instant>,
    started: Instant,
}

impl Command {
    pub(crate) fn is_launching(&self) -> bool {
        self.report.is_some()
    }
}

impl Guest {
    /// Starts a command for a new channel.
    pub(crate) fn spawn(&mut self, route: Route, spawn: Spawn) {
        let (commands, connections) = (&mut self.commands, &mut self.connections);
        let shed = || {
            commands.values_mut().for_each(|command| command.outputs.ring.clear());
            connections.values_mut().for_each(Connection::shed);
        };
        let launched = launch(&spawn, &self.settings, shed);
        let Launched { stub, report, tree, stdin, stdout, stderr } = match launched {
            Ok(launched) => launched,
            Err(failure) => return self.finish(route, &FromGuest::Failed(failure)),
        };
        let oom_kills = self.cgroup.oom_kills();
        self.next_command += 1;
        let id = self.next_command;
        let tty = spawn.tty.is_some();
        let terminal = if tty { stdin.clone() } else { None };
        let end = if tty { End::Type } else { End::Close };
        let now = Instant::now();
        let mut outputs = Outputs::new(self.settings.kept, stdout, stderr, tty);
        outputs.attach(route, 0);
        if spawn.main && spawn.detached && self.settings.log_output {
            outputs.log();
        }
        let command = Command {
            argv: listed(spawn.argv),
            main: spawn.main,
            detached: spawn.detached,
            owner: (!spawn.detached).then_some(route),
            closing: Vec::new(),
            stub,
            pid: None,
            report: Some(report),
            report_bytes: Vec::new(),
            began: false,
            failure: None,
            tree: Some(tree),
            tree_bytes: Vec::new(),
            tree_gone: false,
            sink: Sink::new(if tty || spawn.stdin { stdin } else { None }, end),
            stdin_of: Some(route),
            terminal,
            outputs,
            ended: None,
            status: None,
            kill: None,
            timed_out: false,
            oom_kills,
            timeout: spawn.timeout_ms.and_then(|timeout| now.checked_add(Duration::from_millis(timeout))),
            started: now,
        };
        self.commands.insert(id, command);
        self.open(route, Work::Command(id));
    }

    /// Joins a command.
    pub(crate) fn attach(&mut self, route: Route, id: u64, replay: bool) {
        let Some(command) = self.commands.get_mut(&id).filter(|command| !command.is_launching()) else {
            let failure = Failure::new(FailureCode::NoSuchCommand, 0, format!("there is no command {id}"));
            return self.finish(route, &FromGuest::Failed(failure));
        };
        let ring = &command.outputs.ring;
        let position = if replay { ring.begin() } else { ring.end() };
        command.outputs.attach(route, position);
        self.open(route, Work::Command(id));
        self.send(route, &FromGuest::Started { id });
    }

    /// Lists the commands.
    pub(crate) fn list_commands(&mut self, route: Route) {
        let now = Instant::now();
        let entries =
            self.commands.iter().filter(|(_, command)| !command.is_launching()).map(|(id, command)| {
                FromGuest::Command(Box::new(CommandEntry {
                    id: *id,
                    argv: command.argv.clone(),
                    exit: command.status.or(command.ended),
                    running: !command.tree_gone,
                    detached: command.detached,
                    main: command.main,
                    age_ms: u64::try_from((now - command.started).as_millis()).unwrap_or(u64::MAX),
                }))
            });
        let entries = entries.collect();
        self.listings.insert(route, entries);
        self.open(route, Work::Listing);
    }

    /// Moves listings on, as far as there is credit and room.
    pub(crate) fn deliver_listings(&mut self) {
        let mut done = Vec::new();
        for (route, entries) in &mut self.listings {
            let Some(connection) = self.connections.get_mut(&route.connection) else { continue };
            while connection.room(route.channel) >= MOST_ENTRY
                && let Some(entry) = entries.pop_front()
            {
                connection.send_counted(route.channel, &entry);
            }
            if entries.is_empty() {
                done.push(*route);
            }
        }
        for route in done {
            self.listings.remove(&route);
            self.finish(route, &FromGuest::Done);
        }
    }

    /// Takes data for a command's stdin; returns what is used up.
    pub(crate) fn command_data(&mut self, id: u64, route: Route, bytes: &[u8]) -> usize {
        match self.commands.get_mut(&id) {
            Some(command) if command.stdin_of.is_none_or(|it| it == route) => {
                command.stdin_of = Some(route);
                command.sink.push(bytes, true)
            }
            _ => bytes.len(),
        }
    }

    /// Ends a command's stdin.
    pub(crate) fn command_eof(&mut self, id: u64, route: Route) {
        if let Some(command) = self.commands.get_mut(&id)
            && command.stdin_of == Some(route)
        {
            let used = command.sink.finish(true);
            self.consumed(route, used);
        }
    }

    /// Writes what waits for a command's stdin.
    pub(crate) fn command_writable(&mut self, id: u64) {
        if let Some(command) = self.commands.get_mut(&id) {
            let used = command.sink.write();
            if let Some(route) = command.stdin_of {
                self.consumed(route, used);
            }
        }
    }

    /// Lets go of a channel: its command is killed unless it outlives it. The answer comes when that is done.
    pub(crate) fn command_close(&mut self, id: u64, route: Route) {
        let Some(command) = self.commands.get_mut(&id) else { return };
        command.outputs.detach(route);
        if command.stdin_of == Some(route) {
            command.stdin_of = None;
        }
        if command.owner == Some(route) && !command.tree_gone {
            command.owner = None;
            command.closing.push(route);
            self.kill_command(id);
        } else {
            self.finish(route, &FromGuest::Failed(canceled()));
        }
    }

    /// Lets a command outlive its channel.
    pub(crate) fn command_detach(&mut self, id: u64, route: Route) {
        if let Some(command) = self.commands.get_mut(&id)
            && command.owner == Some(route)
        {
            command.detached = true;
            command.owner = None;
        }
    }

    /// Sends a signal to a command's process group. A group that may be somebody else's by now gets none.
    pub(crate) fn command_signal(&mut self, id: u64, number: u8) {
        if let Some(pid) = self.commands.get(&id).and_then(|command| command.pid) {
            drop(sys::kill(-pid, number.into()));
        }
    }

    /// Resizes a command's terminal.
    pub(crate) fn command_resize(&mut self, id: u64, rows: u16, columns: u16) {
        if let Some(terminal) = self.commands.get(&id).and_then(|command| command.terminal.as_ref()) {
            tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })
                .ok();
        }
    }

    /// Reads what a command on its way has to say: its pid, then its failure or, by the end of the pipe, success.
    pub(crate) fn command_report(&mut self, id: u64) {
        let Some(command) = self.commands.get_mut(&id) else { return };
        let Some(report) = &command.report else { return };
        let mut buffer = [0u8; 64];
        match rustix::io::read(report, &mut buffer) {
            Err(Errno::AGAIN | Errno::INTR) => return,
            Ok(count @ 1..) => {
                command.report_bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
                let name = command.argv.first().map(|name| String::from_utf8_lossy(name).into_owned());
                for told in told(&mut command.report_bytes, name.as_deref().unwrap_or_default()) {
                    match told {
                        Told::Pid(pid) => (command.pid, command.began) = (Some(pid), true),
                        Told::Failed(failure) => command.failure = Some(failure),
                        Told::Ended(_) | Told::Gone => {}
                    }
                }
                return;
            }
            Ok(_) | Err(_) => command.report = None,
        }
        if command.failure.is_none() && !command.began {
            command.failure =
                Some(Failure::new(FailureCode::Other, 0, "the command was killed before it began"));
        }
        let Some(failure) = command.failure.take() else {
            if let Some(route) = command.outputs.first() {
                self.send(route, &FromGuest::Started { id });
            }
            return;
        };
        let Some(command) = self.commands.remove(&id) else { return };
        for route in command.outputs.routes().chain(command.closing.iter().copied()) {
            self.finish(route, &FromGuest::Failed(failure.clone()));
        }
    }

    /// Reads what a stub has to say: the command's end, and its tree's.
    pub(crate) fn command_tree(&mut self, id: u64) {
        let Some(command) = self.commands.get_mut(&id) else { return };
        let Some(tree) = &command.tree else { return };
        let mut buffer = [0u8; 64];
        match rustix::io::read(tree, &mut buffer) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(count @ 1..) => {
                command.tree_bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
                for told in told(&mut command.tree_bytes, "") {
                    match told {
                        Told::Ended(status) => self.command_ended(id, status),
                        Told::Gone => self.command_gone(id),
                        Told::Pid(_) | Told::Failed(_) => {}
                    }
                }
            }
            Ok(_) | Err(_) => {
                command.tree = None;
                if !command.tree_gone {
                    // Somebody killed the stub: what it held is with us now.
                    self.kill_orphans(Instant::now());
                }
            }
        }
    }

    pub(crate) fn command_ended(&mut self, id: u64, raw: i32) {
        let Some(command) = self.commands.get_mut(&id) else { return };
        if command.ended.is_some() {
            return;
        }
        command.pid = None;
        let status = if libc::WIFSIGNALED(raw) {
            Status::Signal(u8::try_from(libc::WTERMSIG(raw)).unwrap_or(9))
        } else {
            Status::Code(u8::try_from(libc::WEXITSTATUS(raw)).unwrap_or(u8::MAX))
        };
        let suspicious = matches!(status, Status::Signal(9) | Status::Code(137)) && command.kill.is_none();
        let before = command.oom_kills;
        let status = if suspicious && self.oom_happened(before) { Status::OutOfMemory } else { status };
        let Some(command) = self.commands.get_mut(&id) else { return };
        command.ended = Some(status);
        if !command.timed_out {
            command.timeout = None;
            command.status = Some(status);
            command.outputs.finish();
        }
    }

    /// Notes that nothing of a command's tree is left.
    pub(crate) fn command_gone(&mut self, id: u64) {
        let Some(command) = self.commands.get_mut(&id) else { return };
        command.tree_gone = true;
        command.kill = None;
        if command.timed_out {
            self.command_timed_out(id);
        } else if command.status.is_none() {
            command.status = Some(command.ended.unwrap_or(Status::Signal(9)));
            command.outputs.finish();
        }
        let Some(command) = self.commands.get_mut(&id) else { return };
        for route in std::mem::take(&mut command.closing) {
            self.finish(route, &FromGuest::Failed(canceled()));
        }
    }

    /// Tells those who wait that a command timed out, now that its tree is gone.
    pub(crate) fn command_timed_out(&mut self, id: u64) {
        if let Some(command) = self.commands.get_mut(&id)
            && command.status.is_none()
        {
            command.status = Some(Status::TimedOut);
            command.outputs.finish();
        }
    }

    /// Notes that a child ended: a stub's pid may be somebody else's from now on.
    pub(crate) fn stub_died(&mut self, pid: i32) {
        for command in self.commands.values_mut().filter(|command| command.stub == pid) {
            command.stub = 0;
        }
    }

    /// Drops what nobody can ask for any more.
    pub(crate) fn forget_commands(&mut self) {
        let over = |command: &Command| {
            command.tree_gone && command.outputs.is_read() && command.closing.is_empty() && !command.main
        };
        self.commands.retain(|_, command| command.detached || !over(command));
        let kept: Vec<u64> = self.commands.iter().filter(|(_, it)| over(it)).map(|(id, _)| *id).collect();
        for id in kept.iter().take(kept.len().saturating_sub(KEPT_COMMANDS)) {
            self.commands.remove(id);
        }
        self.forget_output();
    }

    /// Keeps within bounds what nobody waits for: the oldest commands lose it first.
    fn forget_output(&mut self) {
        let idle = |command: &Command| command.outputs.is_read();
        let all: usize =
            self.commands.values().filter(|it| idle(it)).map(|command| command.outputs.ring.len()).sum();
        let mut excess = all.saturating_sub(self.settings.kept_in_all);
        for command in self.commands.values_mut().filter(|it| idle(it)) {
            if excess == 0 {
                break;
            }
            excess = excess.saturating_sub(command.outputs.ring.len());
            command.outputs.ring.clear();
        }
    }
}

pub(crate) fn canceled() -> Failure {
    Failure::new(FailureCode::Canceled, 0, "the host closed the channel")
}

/// As much of the arguments as listings tell.
fn listed(argv: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut left = MAX_LISTED_ARGV;
    let mut listed = Vec::new();
    for mut argument in argv {
        argument.truncate(left);
        // Each costs its length, too.
        left = left.saturating_sub(argument.len() + 4);
        listed.push(argument);
        if left == 0 {
            break;
        }
    }
    listed
}
