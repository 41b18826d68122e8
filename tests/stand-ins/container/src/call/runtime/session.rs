//! The call's side of a process: its streams, its signals, and how it ends (reference 4).
#![expect(clippy::print_stderr, reason = "a command prints")]

use std::{
    fs::File,
    io::{self, BufRead, BufReader, PipeReader, PipeWriter, Read, Write, pipe, stdin},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::{Command, Stdio},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr},
};

use super::{
    Launch, Report, SUPERVISOR,
    signals::{self, Target},
};
use crate::call::{
    Host,
    failure::{Failure, Outcome, failed},
};

/// How a call is connected with the process.
#[derive(Debug)]
pub(crate) struct Attach {
    stdin: bool,
    console: Option<Termios>,
    target: Target,
}

impl Attach {
    /// From here on the call has its own way with signals; with `-i` and `-t` its stdin must be a terminal.
    pub(crate) fn new(host: &Host, stdin: bool, terminal: bool) -> Outcome<Self> {
        let console = if stdin && terminal {
            match tcgetattr(io::stdin()) {
                Ok(attributes) => Some(attributes),
                Err(error) => {
                    return failed(format!("failed to get the attributes of the terminal: {error}"));
                }
            }
        } else {
            None
        };
        let target = signals::catch(console.is_some(), host.version())?;
        Ok(Self { stdin, console, target })
    }
}

/// A process that has been started.
#[derive(Debug)]
pub(crate) struct Session {
    reader: BufReader<UnixStream>,
    out: Vec<(PipeReader, bool)>,
    stdin: Option<PipeWriter>,
    console: Option<Termios>,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    /// Output was still not taken three seconds after the end.
    pub(crate) is_late: bool,
}

/// Starts a supervisor and waits until it has started the process.
pub(crate) fn launch(mut launch: Launch, attach: Option<Attach>) -> Outcome<Session> {
    if attach.as_ref().is_some_and(|attach| attach.console.is_some()) {
        launch.window = tcgetwinsize(stdin()).ok().map(|size| (size.ws_row, size.ws_col));
    }
    let (mine, theirs) = UnixStream::pair()?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg(SUPERVISOR)
        .env_clear()
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let (mut out, mut own_stdin, mut their_stdin) = (Vec::new(), None, None);
    if let Some(attach) = &attach {
        let (stdout, their_stdout) = pipe()?;
        let (stderr, their_stderr) = pipe()?;
        command.stdout(their_stdout).stderr(their_stderr);
        out = vec![(stdout, false), (stderr, true)];
        if attach.stdin {
            let (theirs, own) = pipe()?;
            launch.stdin = Some(format!("/proc/{}/fd/{}", std::process::id(), theirs.as_raw_fd()));
            own_stdin = Some(own);
            their_stdin = Some(theirs);
        }
    }
    command.spawn()?;
    // It holds the other ends of the pipes.
    drop(command);
    (&mine).write_all(format!("{}\n", serde_json::to_string(&launch)?).as_bytes())?;
    let mut reader = BufReader::new(mine.try_clone()?);
    let report = read_report(&mut reader);
    drop(their_stdin);
    match report {
        Some(Report::Started) => {}
        Some(Report::Failed(error)) if error.starts_with("container stand-in: ") => {
            return Err(Failure::Gap(error));
        }
        Some(Report::Failed(error)) => return failed(error),
        Some(Report::Exited(_)) | None => {
            return failed("interrupted: \"XPC connection error: Connection interrupted\"");
        }
    }
    let console = match attach {
        Some(attach) => {
            attach.target.started(mine);
            attach.console
        }
        None => None,
    };
    Ok(Session { reader, out, stdin: own_stdin, console })
}

fn read_report(reader: &mut BufReader<UnixStream>) -> Option<Report> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    serde_json::from_str(&line).ok()
}

impl Session {
    /// Carries everything until the process has ended and its output is through, or three seconds have passed.
    pub(crate) fn follow(mut self) -> Ended {
        let (done, relays) = channel();
        let count = self.out.len();
        for (from, is_stderr) in self.out.drain(..) {
            let done = done.clone();
            thread::spawn(move || relay_out(from, is_stderr, &done));
        }
        if let Some(console) = &self.console {
            let mut raw = console.clone();
            raw.make_raw();
            let _ = tcsetattr(stdin(), OptionalActions::Now, &raw);
        }
        if let Some(to) = self.stdin.take() {
            thread::spawn(move || relay_in(to));
        }
        let ended = match read_report(&mut self.reader) {
            Some(Report::Exited(code)) => Ended { code, is_late: !all_done(&relays, count) },
            _ => {
                eprintln!("Error: interrupted: \"XPC connection error: Connection interrupted\"");
                Ended { code: 1, is_late: false }
            }
        };
        if let Some(console) = &self.console {
            let _ = tcsetattr(stdin(), OptionalActions::Now, console);
        }
        ended
    }
}

fn all_done(relays: &Receiver<()>, count: usize) -> bool {
    let end = Instant::now() + Duration::from_secs(3);
    (0..count).all(|_| relays.recv_timeout(end.saturating_duration_since(Instant::now())).is_ok())
}

fn relay_out(mut from: PipeReader, is_stderr: bool, done: &Sender<()>) {
    let own = if is_stderr {
        io::stderr().as_fd().try_clone_to_owned()
    } else {
        io::stdout().as_fd().try_clone_to_owned()
    };
    let mut to = own.ok().map(File::from);
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let chunk = buffer.get(..count).unwrap_or_default();
        if to.as_mut().is_some_and(|to| to.write_all(chunk).is_err()) {
            to = None;
        }
    }
    let _ = done.send(());
}

/// Puts the own stdin in non-blocking mode, which stays with whoever shares it, and copies it until its end.
fn relay_in(mut to: PipeWriter) {
    let own = stdin();
    if rustix::io::ioctl_fionbio(&own, true).is_err() {
        return;
    }
    let mut buffer = [0; 4096];
    loop {
        let mut polled = [PollFd::new(&own, PollFlags::IN)];
        if poll(&mut polled, None).is_err() {
            return;
        }
        match rustix::io::read(&own, &mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                // The program may have closed it: that is its right.
                if to.write_all(buffer.get(..count).unwrap_or_default()).is_err() {
                    return;
                }
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}
