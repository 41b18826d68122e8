//! File work: a process per request, with the user of commands, so that nothing that hangs inside holds up the init.
//! Data goes through its stdin and stdout, answers through its stderr, as frames.
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::process::Signal;
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::channel::{Route, Work};
use super::event_loop::{Guest, Source};
use super::files;
use super::identity::{Identity, Rights, become_command, offer_to_oom_killer};
use super::sink::{End, Sink};
use super::user::Users;
use crate::protocol::{Failure, FailureCode, FrameReader, FromGuest, Request, WINDOW};
use crate::sys::{self, Fork};

/// The longest frame that a worker answers with.
const MAX_ANSWER: usize = 4096;
/// A worker that is stopped more often than that is killed.
const MOST_STOPS: u32 = 16;
/// How long a worker whose input has ended too early may take to remove what it has made.
const LEAVE: Duration = Duration::from_secs(2);

/// A worker, seen from the init.
#[derive(Debug)]
pub(crate) struct Worker {
    route: Route,
    pid: i32,
    sink: Sink,
    output: Option<OwnedFd>,
    /// Its output is directory entries, as frames.
    entries: Option<FrameReader>,
    status: Option<OwnedFd>,
    /// Tells the worker that the end of its input is the end that the host meant: ours closes it as well.
    whole: Option<OwnedFd>,
    /// The host has sent all.
    eof: bool,
    /// How often somebody inside has stopped it.
    stops: u32,
    /// Puts what it makes in place at the end, and removes it when its input ends too early.
    makes_draft: bool,
    answers: FrameReader,
    end: Option<FromGuest>,
}

struct Ends {
    input: OwnedFd,
    output: OwnedFd,
    status: OwnedFd,
}

impl Guest {
    /// Starts a worker for a request.
    pub(crate) fn work(&mut self, route: Route, request: &Request) {
        match self.start_worker(route, request) {
            Ok(worker) => {
                let id = self.next_id();
                self.workers.insert(id, worker);
                self.open(route, Work::Worker(id));
            }
            Err(failure) => self.finish(route, &FromGuest::Failed(failure)),
        }
    }

    fn start_worker(&self, route: Route, request: &Request) -> Result<Worker, Failure> {
        let identity = Users::read().resolve(self.settings.user.as_deref())?;
        let failed = |errno: Errno| files::failure(errno, "starting file work");
        let (input, input_writer) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
        let (status_reader, status) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
        let takes_data = matches!(request, Request::Write { .. } | Request::Unpack { .. });
        // Who takes data sends none: then the second pipe leads in as well.
        let (output, ours) = if takes_data { (reader, writer) } else { (writer, reader) };
        for fd in [&input_writer, &ours, &status_reader] {
            rustix::io::ioctl_fionbio(fd, true).map_err(failed)?;
        }
        // A window's worth under way means fewer turns; where there is no room for it, it is only slower.
        fcntl_setpipe_size(if takes_data { &input_writer } else { &ours }, WINDOW as usize).ok();
        let ends = Ends { input, output, status };
        let rights = self.settings.rights;
        let pid = match sys::fork() {
            Ok(Fork::Child) => run(&ends, &identity, rights, request),
            Ok(Fork::Parent(pid)) => pid,
            Err(error) => return Err(failed(Errno::from_io_error(&error).unwrap_or(Errno::IO))),
        };
        let (output, whole) = if takes_data { (None, Some(ours)) } else { (Some(ours), None) };
        Ok(Worker {
            route,
            pid,
            sink: Sink::new(takes_data.then(|| Rc::new(input_writer)), End::Close),
            output,
            whole,
            eof: false,
            stops: 0,
            makes_draft: matches!(request, Request::Write { .. }),
            entries: matches!(request, Request::ReadDir { .. }).then(|| FrameReader::new(MAX_ANSWER)),
            status: Some(status_reader),
            answers: FrameReader::new(MAX_ANSWER),
            end: None,
        })
    }

    pub(crate) fn worker_sources<'a>(&'a self, add: &mut dyn FnMut(Source, BorrowedFd<'a>, PollFlags)) {
        for (id, worker) in &self.workers {
            // First: what it says before its output is passed on before it.
            if let Some(status) = &worker.status {
                add(Source::WorkerStatus(*id), status.as_fd(), PollFlags::IN);
            }
            let room =
                self.connections.get(&worker.route.connection).map_or(0, |it| it.room(worker.route.channel));
            if let Some(output) =
                worker.output.as_ref().filter(|_| room > MAX_ANSWER || worker.entries.is_none() && room > 0)
            {
                add(Source::WorkerOutput(*id), output.as_fd(), PollFlags::IN);
            }
            if let Some(fd) = worker.sink.waiting_for() {
                add(Source::WorkerInput(*id), fd, PollFlags::OUT);
            }
        }
    }

    pub(crate) fn worker_data(&mut self, id: u64, bytes: &[u8]) -> usize {
        self.workers.get_mut(&id).map_or(bytes.len(), |worker| worker.sink.push(bytes, true))
    }

    pub(crate) fn worker_eof(&mut self, id: u64) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.eof = true;
            let (route, used) = (worker.route, worker.sink.finish(true));
            worker.confirm();
            self.consumed(route, used);
        }
    }

    pub(crate) fn worker_writable(&mut self, id: u64) {
        if let Some(worker) = self.workers.get_mut(&id) {
            let (route, used) = (worker.route, worker.sink.write());
            worker.confirm();
            self.consumed(route, used);
        }
    }

    /// Stops a worker; one that hangs in the kernel is left to it. Who has something to remove gets the time for it,
    /// unless it could put that in place yet.
    pub(crate) fn worker_cancel(&mut self, id: u64) {
        let Some(worker) = self.workers.remove(&id).filter(|worker| worker.pid > 0) else { return };
        if worker.makes_draft && worker.whole.is_some() {
            self.leaving.insert(worker.pid, Instant::now() + LEAVE);
        } else {
            drop(sys::kill(worker.pid, libc::SIGKILL));
        }
    }

    /// Kills the workers that have not ended in time.
    pub(crate) fn workers_due(&mut self, now: Instant) {
        for (pid, due) in &mut self.leaving {
            if *due <= now {
                drop(sys::kill(*pid, libc::SIGKILL));
                *due = now + LEAVE;
            }
        }
    }

    pub(crate) fn worker_pids(&self) -> impl Iterator<Item = i32> {
        let working = self.workers.values().map(|worker| worker.pid).filter(|pid| *pid > 0);
        working.chain(self.leaving.keys().copied())
    }

    /// Notes that a child ended; a pid that may be somebody else's by now must not be killed.
    pub(crate) fn worker_died(&mut self, pid: i32, status: i32) {
        self.leaving.remove(&pid);
        for worker in self.workers.values_mut().filter(|worker| worker.pid == pid) {
            worker.pid = 0;
            if worker.end.is_none() && libc::WIFSIGNALED(status) {
                worker.killed();
            }
        }
    }

    /// Lets a worker go on that somebody inside has stopped; who does it for ever has it killed.
    pub(crate) fn worker_stopped(&mut self, pid: i32) {
        for worker in self.workers.values_mut().filter(|worker| worker.pid == pid) {
            worker.stops += 1;
            let signal = if worker.stops > MOST_STOPS { libc::SIGKILL } else { libc::SIGCONT };
            drop(sys::kill(pid, signal));
        }
    }

    pub(crate) fn worker_status(&mut self, id: u64) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Some(status) = &worker.status else { return };
        let (route, mut buffer) = (worker.route, [0u8; 1024]);
        match rustix::io::read(status, &mut buffer) {
            Err(Errno::AGAIN | Errno::INTR) => return,
            Ok(count @ 1..) => worker.answers.push(buffer.get(..count).unwrap_or_default()),
            Ok(_) | Err(_) => worker.status = None,
        }
        let mut answers = Vec::new();
        while let Ok(Some((header, payload))) = worker.answers.next() {
            if let Ok(frame) = FromGuest::decode(header.kind, payload) {
                answers.push(frame);
            }
        }
        for frame in answers {
            if frame.is_terminal() {
                worker.end.get_or_insert(frame);
            } else if let Some(connection) = self.connections.get_mut(&route.connection) {
                connection.send(route.channel, &frame);
            }
        }
        self.worker_check(id);
    }

    pub(crate) fn worker_output(&mut self, id: u64) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Some(output) = &worker.output else { return };
        let channel = worker.route.channel;
        let Some(connection) = self.connections.get_mut(&worker.route.connection) else { return };
        // What a part of an entry holds back is less than that.
        let held = if worker.entries.is_some() { MAX_ANSWER } else { 0 };
        let room = connection.room(channel).saturating_sub(held);
        if room == 0 {
            return;
        }
        let read = match &mut worker.entries {
            None => connection.send_read(channel, FromGuest::STDOUT, output, room),
            Some(entries) => {
                let read = sys::read_more(output, entries.buffer(room), room);
                while let Ok(Some((header, payload))) = entries.next() {
                    if let Ok(frame @ FromGuest::Entry(_)) = FromGuest::decode(header.kind, payload) {
                        connection.send_counted(channel, &frame);
                    }
                }
                read
            }
        };
        match read {
            Ok(1..) | Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(_) | Err(_) => {
                worker.output = None;
                self.worker_check(id);
            }
        }
    }

    /// Ends the channel when everything that the worker had to say is passed on.
    fn worker_check(&mut self, id: u64) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if worker.status.is_some() || worker.output.is_some() {
            return;
        }
        if worker.end.is_none() {
            worker.killed();
        }
        let (route, end) = (worker.route, worker.end.take());
        self.workers.remove(&id);
        if let Some(end) = end {
            self.finish(route, &end);
        }
    }
}

impl Worker {
    /// Once all is written: says that it was all.
    fn confirm(&mut self) {
        if self.eof
            && self.sink.is_closed()
            && let Some(whole) = self.whole.take()
        {
            rustix::io::write(whole, &[1]).ok();
        }
    }

    fn killed(&mut self) {
        let failure = Failure::new(
            FailureCode::Exhausted,
            0,
            "the file work was killed, by a process of its user or for want of memory",
        );
        self.end = Some(FromGuest::Failed(failure));
    }
}

/// The worker itself.
fn run(ends: &Ends, identity: &Identity, rights: Rights, request: &Request) -> ! {
    rustix::thread::set_name(c"agentkernel-file").ok();
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).ok();
    if dup2_stdin(&ends.input).and(dup2_stdout(&ends.output)).and(dup2_stderr(&ends.status)).is_err() {
        sys::exit(1);
    }
    sys::close_from(3);
    offer_to_oom_killer();
    sys::reset_signals();
    let end = match become_command(identity, rights) {
        Ok(()) => files::perform(request),
        Err((_, error)) => Err(Failure::new(
            FailureCode::BadUser,
            error.raw_os_error().unwrap_or(0).cast_unsigned(),
            format!("taking the identity of the sandbox's user: {error}"),
        )),
    };
    files::answer(&end.map_or_else(FromGuest::Failed, |()| FromGuest::Done));
    sys::exit(0)
}
