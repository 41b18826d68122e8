//! The output of a command: from its pipes into the ring, from the ring to everyone who is attached.
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::channel::Route;
use super::ring::{Ring, Stream};
use crate::protocol::MAX_DATA;

/// A terminal that says nothing for so long has said everything, and a pipe is looked into again after it.
const QUIET: Duration = Duration::from_millis(20);
/// A terminal that somebody else keeps writing to is waited for so long.
const PATIENCE: Duration = Duration::from_secs(1);
/// What a pipe that is ready takes at once without blocking (`PIPE_BUF`, pipe(7)).
const PIPE_BUF: usize = 4096;

/// A pipe or terminal that is read.
#[derive(Debug)]
struct Source {
    fd: Rc<OwnedFd>,
    stream: Stream,
    /// After the command ended: what of its output is still to be read.
    left: Option<u64>,
}

/// A channel that gets the output.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) route: Route,
    pub(crate) position: u64,
    /// Where it ends.
    pub(crate) until: Option<u64>,
}

/// All of a command's output.
#[derive(Debug)]
pub(crate) struct Outputs {
    pub(crate) ring: Ring,
    sources: Vec<Source>,
    pub(crate) attached: Vec<Attachment>,
    /// The guest's own output, as one more reader.
    log: Option<Attachment>,
    tty: bool,
    /// The command ended; its last output is being read.
    finishing: bool,
    quiet_at: Option<Instant>,
    patience: Option<Instant>,
    /// Everything that belongs to the command is in the ring.
    complete: bool,
}

impl Outputs {
    pub(crate) fn new(
        kept: usize,
        stdout: Option<Rc<OwnedFd>>,
        stderr: Option<Rc<OwnedFd>>,
        tty: bool,
    ) -> Self {
        let sources = [(stdout, Stream::Stdout), (stderr, Stream::Stderr)];
        let sources =
            sources.into_iter().filter_map(|(fd, stream)| Some(Source { fd: fd?, stream, left: None }));
        Self {
            ring: Ring::new(kept),
            sources: sources.collect(),
            attached: Vec::new(),
            log: None,
            tty,
            finishing: false,
            quiet_at: None,
            patience: None,
            complete: false,
        }
    }

    /// Adds a reader.
    pub(crate) fn attach(&mut self, route: Route, position: u64) {
        let until = self.complete.then(|| self.ring.end());
        self.attached.push(Attachment { route, position, until });
    }

    /// Removes a reader.
    pub(crate) fn detach(&mut self, route: Route) {
        self.attached.retain(|it| it.route != route);
    }

    /// Adds the guest's own output as a reader.
    pub(crate) fn log(&mut self) {
        self.log = Some(Attachment { route: Route { connection: 0, channel: 0 }, position: 0, until: None });
    }

    pub(crate) fn first(&self) -> Option<Route> {
        self.attached.first().map(|it| it.route)
    }

    pub(crate) fn routes(&self) -> impl Iterator<Item = Route> {
        self.attached.iter().map(|it| it.route)
    }

    /// Whether the command's output is complete and everyone has it.
    pub(crate) fn is_over(&self) -> bool {
        self.complete && self.attached.is_empty() && self.log.is_none()
    }

    /// Whether nobody waits for anything.
    pub(crate) fn is_read(&self) -> bool {
        self.attached.is_empty() && self.log.is_none()
    }

    fn room(&self) -> usize {
        self.ring.room(self.attached.iter().chain(&self.log).map(|it| it.position).min())
    }

    /// What is to be waited for, if there is room for it.
    pub(crate) fn readable(&self) -> impl Iterator<Item = (Stream, BorrowedFd<'_>)> {
        let room = self.room() > 0;
        self.sources.iter().filter(move |_| room).map(|source| (source.stream, source.fd.as_fd()))
    }

    /// Reads once.
    pub(crate) fn read(&mut self, stream: Stream, buffer: &mut [u8]) {
        let room = self.room().min(buffer.len());
        let Some(index) = self.sources.iter().position(|source| source.stream == stream) else { return };
        let Some(source) = self.sources.get_mut(index) else { return };
        let most = source
            .left
            .filter(|left| *left > 0)
            .map_or(room, |left| room.min(usize::try_from(left).unwrap_or(room)));
        let Some(buffer) = buffer.get_mut(..most).filter(|buffer| !buffer.is_empty()) else { return };
        match rustix::io::read(&source.fd, &mut *buffer) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(count @ 1..) => {
                if let Some(left) = &mut source.left {
                    *left = left.saturating_sub(count as u64);
                }
                self.ring.push(stream, buffer.get(..count).unwrap_or_default());
                self.quiet_at = self.quiet_at.map(|_| Instant::now() + QUIET);
            }
            // The end of a pipe; a terminal whose last user is gone says EIO.
            Ok(_) | Err(_) => drop(self.sources.remove(index)),
        }
        self.check();
    }

    /// The command ended: what its pipes hold now is the last of its output.
    pub(crate) fn finish(&mut self) {
        if self.finishing {
            return;
        }
        self.finishing = true;
        let now = Instant::now();
        self.quiet_at = Some(now + QUIET);
        self.patience = Some(now + PATIENCE);
        if !self.tty {
            for source in &mut self.sources {
                source.left = Some(rustix::io::ioctl_fionread(&source.fd).unwrap_or(0));
            }
        }
        self.check();
    }

    /// Somebody inside may have opened a pipe and taken what was counted, or made it forget a part.
    fn look_again(&mut self) {
        for source in &mut self.sources {
            let there = rustix::io::ioctl_fionread(&source.fd).unwrap_or(0);
            source.left = source.left.map(|left| left.min(there));
        }
    }

    fn check(&mut self) {
        if !self.finishing || self.complete {
            return;
        }
        let read = self.sources.iter().all(|source| source.left == Some(0));
        if self.sources.is_empty() || (!self.tty && read) {
            self.complete();
        }
    }

    fn complete(&mut self) {
        self.complete = true;
        (self.quiet_at, self.patience) = (None, None);
        let end = self.ring.end();
        for reader in self.attached.iter_mut().chain(&mut self.log) {
            reader.until = Some(end);
        }
    }

    /// When [`Outputs::tick`] is due. While a slow reader holds a pipe back there is nothing to look for.
    pub(crate) fn due(&self) -> Option<Instant> {
        if !self.tty && self.room() == 0 {
            return None;
        }
        self.quiet_at.min(self.patience).or(self.quiet_at)
    }

    /// Lets a terminal's silence end its output, and a pipe that was emptied by others. While a slow reader holds it back, its silence means nothing.
    pub(crate) fn tick(&mut self, now: Instant) {
        if self.due().is_none_or(|due| due > now) {
            return;
        }
        if !self.tty {
            self.look_again();
            self.quiet_at = self.quiet_at.map(|_| now + QUIET);
            self.patience = self.patience.map(|_| now + PATIENCE);
            return self.check();
        }
        if self.room() == 0 {
            self.quiet_at = Some(now + QUIET);
            self.patience = Some(now + PATIENCE);
        } else {
            self.complete();
        }
    }

    /// The descriptor of the guest's own output, if something waits for it.
    pub(crate) fn log_waits(&self) -> Option<BorrowedFd<'static>> {
        let log = self.log.as_ref()?;
        let (stream, _, _) = self.ring.read(log.position, 1)?;
        Some(own(stream))
    }

    /// Writes to the guest's own output as much as it takes without blocking.
    pub(crate) fn write_log(&mut self) {
        while let Some(log) = &mut self.log {
            if log.until.is_some_and(|until| log.position >= until) {
                self.log = None;
                return;
            }
            let Some((stream, bytes, second)) = next(&self.ring, log, PIPE_BUF) else { return };
            let mut fds = [PollFd::from_borrowed_fd(own(stream), PollFlags::OUT)];
            if !matches!(poll(&mut fds, Some(&Timespec::default())), Ok(1)) {
                return;
            }
            let bytes = if bytes.is_empty() { second } else { bytes };
            match rustix::io::write(own(stream), bytes) {
                Ok(count @ 1..) => log.position += count as u64,
                Err(Errno::AGAIN | Errno::INTR) => return,
                Ok(_) | Err(_) => self.log = None,
            }
        }
    }
}

fn own(stream: Stream) -> BorrowedFd<'static> {
    match stream {
        Stream::Stdout => rustix::stdio::stdout(),
        Stream::Stderr => rustix::stdio::stderr(),
    }
}

/// The most that one frame carries of a reader's next output.
pub(crate) fn next<'a>(
    ring: &'a Ring,
    reader: &Attachment,
    room: usize,
) -> Option<(Stream, &'a [u8], &'a [u8])> {
    let before_end = reader.until.map_or(usize::MAX, |until| {
        usize::try_from(until.saturating_sub(reader.position.max(ring.begin()))).unwrap_or(usize::MAX)
    });
    ring.read(reader.position, room.min(MAX_DATA).min(before_end))
}
