//! The supervisor of one process: starts it, carries its output, says how it ended, and outlives the call.
use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, PipeReader, Read, Write, pipe, stdin},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{net::UnixStream, process::ExitStatusExt},
    },
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use nix::sched::{CloneFlags, setns, unshare};
use rustix::{
    event::{PollFd, PollFlags, poll},
    pty::OpenptFlags,
    termios::Winsize,
};

use super::{
    Launch, Order, Report, limits, ports,
    process::{self, Program},
    wrapped,
};
use crate::call::state::{Status, lock, now, write};

/// How long output may lag behind the end of the process (correction 4).
const LAG: Duration = Duration::from_secs(3);

/// The process' ends of its three streams, and ours.
struct Streams {
    stdin: OwnedFd,
    stdout: Stdio,
    stderr: Stdio,
    master: Option<File>,
    relays: Receiver<()>,
    count: usize,
    /// Its end tells the relays that the process is gone.
    _alive: io::PipeWriter,
}

pub(crate) fn main() -> u8 {
    let Ok(control) = stdin().as_fd().try_clone_to_owned() else { return 255 };
    let control = Arc::new(UnixStream::from(control));
    match supervise(&control) {
        Ok(()) => 0,
        Err(error) => {
            say(&control, &Report::Failed(error));
            1
        }
    }
}

fn say(control: &UnixStream, report: &Report) {
    if let Ok(line) = serde_json::to_string(report) {
        let _ = (&*control).write_all(format!("{line}\n").as_bytes());
    }
}

fn text(error: impl std::fmt::Display) -> String {
    format!("container stand-in: {error}")
}

fn supervise(control: &Arc<UnixStream>) -> Result<(), String> {
    super::signals::release();
    let _ = rustix::process::setsid();
    rustix::process::chdir("/").map_err(text)?;
    let mut reader = BufReader::new(control.try_clone().map_err(text)?);
    let mut line = String::new();
    reader.read_line(&mut line).map_err(text)?;
    let launch: Launch = serde_json::from_str(&line).map_err(text)?;
    let alive = match launch.inside {
        None => Some(lock(&launch.directory.join("alive")).map_err(|error| format!("{error:?}"))?),
        Some(_) => None,
    };
    thread::sleep(Duration::from_millis(launch.delay_ms));
    let id = &launch.record.id;
    let wrap = |error: String| wrapped(&launch.name, id, &error);
    let account =
        process::account(&launch.directory.join("rootfs"), &launch.process.user, &launch.process.groups)
            .map_err(wrap)?;
    let groups = launch.inside.is_none().then(|| limits::Groups::new(&launch.record));
    let openers = match launch.inside {
        None => ports::publish(&launch.record.ports, launch.addresses.first().copied())?,
        Some(_) => Vec::new(),
    };
    let mut streams = streams(&launch).map_err(text)?;
    let environment = process::environment(&launch.process, &account);
    let program = Program {
        directory: launch.directory.clone(),
        record: launch.record.clone(),
        process: launch.process.clone(),
        account,
        addresses: launch.addresses.clone(),
        inside: launch.inside,
        stdin: format!("/proc/{}/fd/{}", std::process::id(), streams.stdin.as_raw_fd()),
        groups: groups.as_ref().map_or_else(
            || launch.inside.map(limits::of).unwrap_or_default(),
            |groups| groups.paths().to_vec(),
        ),
    };
    // Threads first: none can be made once the children of this one belong elsewhere.
    let (sender, receiver) = channel::<i32>();
    let master = streams.master.take();
    thread::spawn(move || obey(reader, master.as_ref(), &receiver));
    let mut child =
        spawn(&launch, &mut streams, &environment, &program).map_err(|error| match error.to_string() {
            said if said.starts_with("failed ") => wrap(said),
            other => text(other),
        })?;
    let pid = i32::try_from(child.id()).unwrap_or_default();
    let _ = sender.send(pid);
    for opener in openers {
        let _ = opener.send(pid);
    }
    if launch.inside.is_none() {
        let addresses = launch.addresses.iter().map(|[_, _, _, last]| *last).collect();
        let status = Status { started: now(), pid, addresses };
        write(&launch.directory.join("status.json"), &status).map_err(|error| format!("{error:?}"))?;
    }
    let Streams { stdin, relays, count, _alive, .. } = streams;
    drop(stdin);
    say(control, &Report::Started);
    let code = ended(&mut child);
    drop(_alive);
    let done = (0..count).all(|_| relays.recv_timeout(Duration::from_millis(200)).is_ok());
    drop(groups);
    if launch.inside.is_none() {
        finish(&launch);
    }
    drop(alive);
    say(control, &Report::Exited(code));
    if !done {
        for _ in 0..count {
            let _ = relays.recv_timeout(LAG);
        }
    }
    // Not waiting for any thread: what the reader did not take by now is lost.
    std::process::exit(0)
}

fn finish(launch: &Launch) {
    let _ = fs::remove_file(launch.directory.join("status.json"));
    if launch.record.remove {
        let gone = launch.directory.with_file_name(format!(".gone-{}", crate::call::state::uuid()));
        if fs::rename(&launch.directory, &gone).is_ok() {
            let _ = fs::remove_dir_all(gone);
        }
    }
}

fn ended(child: &mut Child) -> i32 {
    match child.wait() {
        Ok(status) => status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
        Err(_) => 255,
    }
}

/// Orders of the call, for as long as it lives.
fn obey(reader: BufReader<UnixStream>, master: Option<&File>, pid: &Receiver<i32>) {
    let Ok(pid) = pid.recv() else { return };
    for line in reader.lines() {
        match line.ok().and_then(|line| serde_json::from_str(&line).ok()) {
            Some(Order::Signal(signal)) => {
                let _ = super::send(pid, signal);
            }
            Some(Order::Window(rows, columns)) => {
                if let Some(master) = master {
                    let _ = rustix::termios::tcsetwinsize(master, window(rows, columns));
                }
            }
            None => return,
        }
    }
}

fn window(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

fn streams(launch: &Launch) -> io::Result<Streams> {
    let (watch, alive) = pipe()?;
    let (done, relays) = channel();
    let log = if launch.inside.is_none() {
        fs::write(launch.directory.join("boot.log"), "booted\n")?;
        Some(Arc::new(Mutex::new(File::create(launch.directory.join("log"))?)))
    } else {
        None
    };
    let stdin = match &launch.stdin {
        Some(path) => File::open(path)?,
        None => File::open("/dev/null")?,
    };
    let relay = |from: OwnedFd, to: OwnedFd| -> io::Result<()> {
        let (watch, log, done) = (watch.try_clone()?, log.clone(), done.clone());
        let to = launch.is_attached.then(|| File::from(to));
        thread::spawn(move || carry(&File::from(from), &watch, to, log.as_deref(), &done));
        Ok(())
    };
    let (own_out, own_err) =
        (io::stdout().as_fd().try_clone_to_owned()?, io::stderr().as_fd().try_clone_to_owned()?);
    let null = File::options().read(true).write(true).open("/dev/null")?;
    // So that the call sees the end of its pipes when the relays are through, and not before.
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    if launch.process.terminal {
        // Of the container's own devices if it has them already, so that it has a name inside.
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = match launch.inside {
            Some(pid) => {
                File::options().read(true).write(true).open(format!("/proc/{pid}/root/dev/pts/ptmx"))?
            }
            None => File::from(rustix::pty::openpt(flags)?),
        };
        rustix::pty::grantpt(&master)?;
        rustix::pty::unlockpt(&master)?;
        let slave = rustix::pty::ioctl_tiocgptpeer(
            &master,
            OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
        )?;
        if let Some((rows, columns)) = launch.window {
            rustix::termios::tcsetwinsize(&master, window(rows, columns))?;
        }
        relay(master.try_clone()?.into(), own_out)?;
        if launch.stdin.is_some() {
            let (mut from, mut to) = (stdin.try_clone()?, master.try_clone()?);
            thread::spawn(move || io::copy(&mut from, &mut to));
        }
        return Ok(Streams {
            stdin: stdin.into(),
            stdout: Stdio::from(slave.try_clone()?),
            stderr: Stdio::from(slave),
            master: Some(master),
            relays,
            count: 1,
            _alive: alive,
        });
    }
    if !launch.is_attached && launch.inside.is_some() {
        let (stdout, stderr) = (Stdio::null(), Stdio::null());
        return Ok(Streams {
            stdin: stdin.into(),
            stdout,
            stderr,
            master: None,
            relays,
            count: 0,
            _alive: alive,
        });
    }
    let mut ends = Vec::new();
    for own in [own_out, own_err] {
        let (from, to) = pipe()?;
        relay(from.into(), own)?;
        ends.push(to);
    }
    let mut ends = ends.into_iter().map(Stdio::from);
    let (stdout, stderr) = (ends.next().unwrap_or(Stdio::null()), ends.next().unwrap_or(Stdio::null()));
    Ok(Streams { stdin: stdin.into(), stdout, stderr, master: None, relays, count: 2, _alive: alive })
}

/// From the process to the call and the log, until the process is gone and what it wrote is taken: what it left
/// behind is not waited for (correction 4).
fn carry(from: &File, watch: &PipeReader, to: Option<File>, log: Option<&Mutex<File>>, done: &Sender<()>) {
    let was_attached = to.is_some();
    let (mut to, mut buffer) = (to, vec![0; 16 << 10]);
    let (mut is_gone, mut reader) = (false, from);
    loop {
        let mut polled = [PollFd::new(from, PollFlags::IN), PollFd::new(watch, PollFlags::IN)];
        let last = if is_gone { 1 } else { 2 };
        let timeout = rustix::fs::Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(polled.get_mut(..last).unwrap_or_default(), is_gone.then_some(&timeout)) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => break,
            Ok(0) => break,
            Ok(_) => {}
        }
        is_gone = is_gone || polled.last().is_some_and(|watch| !watch.revents().is_empty());
        if polled.first().is_none_or(|own| own.revents().is_empty()) {
            continue;
        }
        let count = match reader.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        let chunk = buffer.get(..count).unwrap_or_default();
        if to.as_mut().is_some_and(|to| to.write_all(chunk).is_err()) {
            // The call is dead: the process goes on, into nothing.
            to = None;
        }
        // The log comes second, and gets nothing once the call is dead (correction 9).
        let log = log.filter(|_| to.is_some() || !was_attached);
        if let Some(Ok(mut log)) = log.map(Mutex::lock) {
            let _ = log.write_all(chunk);
        }
    }
    drop(to);
    let _ = done.send(());
}

/// Starts the two steps; an error of theirs begins with `failed `.
fn spawn(
    launch: &Launch,
    streams: &mut Streams,
    environment: &[String],
    program: &Program,
) -> io::Result<Child> {
    let (mut mine, theirs) = UnixStream::pair()?;
    match launch.inside {
        None => unshare(CloneFlags::CLONE_NEWPID)?,
        Some(pid) => setns(File::open(format!("/proc/{pid}/ns/pid"))?, CloneFlags::CLONE_NEWPID)?,
    }
    let mut command = Command::new("/proc/self/exe");
    command.arg(process::FIRST).env_clear().stdin(OwnedFd::from(theirs));
    command.stdout(std::mem::replace(&mut streams.stdout, Stdio::null()));
    command.stderr(std::mem::replace(&mut streams.stderr, Stdio::null()));
    let mut child = command.spawn()?;
    // It holds the process' streams.
    drop(command);
    let told = mine.write_all(
        format!("{}\n{}\n", serde_json::to_string(environment)?, serde_json::to_string(program)?).as_bytes(),
    );
    let mut said = String::new();
    mine.read_to_string(&mut said)?;
    let failure = said.lines().find_map(|line| line.strip_prefix("failed "));
    if said.starts_with("ready") && failure.is_none() {
        return Ok(child);
    }
    let status = child.wait()?;
    Err(match (failure, told) {
        (Some(failure), _) if failure.starts_with("failed ") => io::Error::other(failure),
        (Some(failure), _) => io::Error::other(format!("failed {failure}")),
        (None, Err(error)) => error,
        (None, Ok(())) => io::Error::other(format!("the process ended before it was the program: {status}")),
    })
}
