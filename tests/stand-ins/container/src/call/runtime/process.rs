//! From a supervisor's child to the program: two steps of the same executable.
//!
//! The first only gives the second its environment as it is, with duplicate keys, which `Command` cannot; the second
//! enters the namespaces, gives up what the program may not have, and becomes it.
use std::{
    ffi::CString,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Write, stdin},
    os::{
        fd::AsFd,
        unix::{
            fs::{DirBuilderExt, PermissionsExt},
            net::UnixStream,
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use nix::{
    sched::{CloneFlags, setns},
    sys::{
        signal::{SigSet, Signal},
        signalfd::SignalFd,
    },
};
use rustix::{
    process::{Gid, Resource, Rlimit, Uid, WaitOptions},
    thread::{CapabilitySet, CapabilitySets},
};
use serde::{Deserialize, Serialize};

use super::tree;
use crate::call::{
    state::{Limit, Process, Record},
    values::effective,
};

pub(crate) const FIRST: &str = "__stand-in-process";
pub(crate) const SECOND: &str = "__stand-in-program";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Whose the program is.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// What the second step is told.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Program {
    pub(crate) directory: PathBuf,
    pub(crate) record: Record,
    pub(crate) process: Process,
    pub(crate) account: Account,
    pub(crate) addresses: Vec<[u8; 4]>,
    pub(crate) inside: Option<i32>,
    pub(crate) stdin: String,
    pub(crate) groups: Vec<PathBuf>,
}

/// The account that `user` names in the tree: `name|uid[:group|gid]`.
pub(crate) fn account(rootfs: &Path, user: &str, more: &[u32]) -> Result<Account, String> {
    let table = |name: &str| {
        let path = rootfs.join("etc").join(name);
        // What a command has put there may be a FIFO, or lead out of the tree.
        let is_file = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file());
        is_file.then(|| fs::read_to_string(&path).ok()).flatten().unwrap_or_default()
    };
    let (passwd, group) = (table("passwd"), table("group"));
    let rows = |text: &str| {
        text.lines().map(|line| line.split(':').map(str::to_owned).collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    let field = |row: &[String], index: usize| row.get(index).cloned().unwrap_or_default();
    let (name, wanted_group) = user.split_once(':').unwrap_or((user, ""));
    let name = if name.is_empty() { "0" } else { name };
    let row = rows(&passwd).into_iter().find(|row| field(row, 0) == name || field(row, 2) == name);
    let (uid, mut gid, home) = match (&row, name.parse::<u32>()) {
        (Some(row), _) => {
            (field(row, 2).parse().unwrap_or(0), field(row, 3).parse().unwrap_or(0), field(row, 5))
        }
        (None, Ok(uid)) => (uid, 0, "/".to_owned()),
        (None, Err(_)) => return Err(format!("failed to find user {name} in /etc/passwd")),
    };
    if !wanted_group.is_empty() {
        let found =
            rows(&group).into_iter().find(|row| field(row, 0) == wanted_group).map(|row| field(&row, 2));
        gid = match found.unwrap_or_else(|| wanted_group.to_owned()).parse() {
            Ok(gid) => gid,
            Err(_) => return Err(format!("failed to find group {wanted_group} in /etc/group")),
        };
    }
    let login = row.map(|row| field(&row, 0)).unwrap_or_default();
    let mut groups = rows(&group)
        .into_iter()
        .filter(|row| !login.is_empty() && field(row, 3).split(',').any(|member| member == login))
        .filter_map(|row| field(&row, 2).parse().ok())
        .collect::<Vec<u32>>();
    groups.extend(more);
    Ok(Account { uid, gid, groups, home })
}

/// The environment as the program gets it.
pub(crate) fn environment(process: &Process, account: &Account) -> Vec<String> {
    let mut all = process.environment.clone();
    let mut default = |key: &str, value: &str| {
        if !all.iter().any(|entry| entry.split('=').next() == Some(key)) {
            all.push(format!("{key}={value}"));
        }
    };
    default("PATH", PATH);
    default("HOME", &account.home);
    if process.terminal {
        default("TERM", "xterm");
    }
    all
}

fn control() -> io::Result<UnixStream> {
    Ok(UnixStream::from(stdin().as_fd().try_clone_to_owned()?))
}

fn fail(control: &UnixStream, error: &str) -> u8 {
    let _ = (&*control).write_all(format!("failed {}\n", error.replace('\n', " ")).as_bytes());
    255
}

pub(crate) fn first() -> u8 {
    let Ok(mut control) = control() else { return 255 };
    // Byte by byte: the rest is for the second step.
    let mut line = Vec::new();
    let mut byte = [0];
    while control.read_exact(&mut byte).is_ok() && byte != [b'\n'] {
        line.extend(byte);
    }
    let next = || -> io::Result<()> {
        let environment: Vec<String> = serde_json::from_slice(&line)?;
        let environment = environment.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>()?;
        nix::unistd::execve(
            c"/proc/self/exe",
            &[c"container", CString::new(SECOND)?.as_c_str()],
            &environment,
        )?;
        Ok(())
    };
    match next() {
        Ok(()) => 255,
        Err(error) => fail(&control, &error.to_string()),
    }
}

pub(crate) fn second() -> u8 {
    let Ok(control) = control() else { return 255 };
    match prepare(&control) {
        Ok(code) => code,
        Err(error) => fail(&control, &error.to_string()),
    }
}

fn prepare(control: &UnixStream) -> io::Result<u8> {
    let mut line = String::new();
    BufReader::new(control).read_line(&mut line)?;
    let program: Program = serde_json::from_str(&line)?;
    for group in &program.groups {
        fs::write(group.join("cgroup.procs"), "0")?;
    }
    let own_stdin = if program.process.terminal {
        File::from(io::stdout().as_fd().try_clone_to_owned()?)
    } else {
        File::open(&program.stdin)?
    };
    match program.inside {
        None => tree::enter(&program.directory, &program.record, &program.addresses)?,
        Some(pid) => {
            let names = ["ipc", "uts", "net", "mnt"];
            let files = names.map(|name| File::open(format!("/proc/{pid}/ns/{name}")));
            for file in files {
                setns(file?, CloneFlags::empty())?;
            }
            rustix::process::chdir("/")?;
        }
    }
    let _ = rustix::process::setsid();
    rustix::stdio::dup2_stdin(&own_stdin)?;
    drop(own_stdin);
    if program.process.terminal {
        rustix::process::ioctl_tiocsctty(stdin())?;
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    for limit in &program.process.limits {
        set_limit(limit)?;
    }
    if program.inside.is_none() && program.record.init {
        return reap(control, program);
    }
    let is_first = program.inside.is_none();
    let never: io::Result<std::convert::Infallible> = become_program(&program, |command| {
        if is_first {
            let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
        }
        // All that can be said in words has been done; the end of the stream is the start of the program.
        let _ = (&*control).write_all(b"ready\n");
        Err(command.exec())
    });
    match never {
        Ok(never) => match never {},
        Err(error) => Err(error),
    }
}

fn set_limit(limit: &Limit) -> io::Result<()> {
    let resource = match limit.limit.as_str() {
        "RLIMIT_CORE" => Resource::Core,
        "RLIMIT_CPU" => Resource::Cpu,
        "RLIMIT_DATA" => Resource::Data,
        "RLIMIT_FSIZE" => Resource::Fsize,
        "RLIMIT_LOCKS" => Resource::Locks,
        "RLIMIT_MEMLOCK" => Resource::Memlock,
        "RLIMIT_MSGQUEUE" => Resource::Msgqueue,
        "RLIMIT_NICE" => Resource::Nice,
        "RLIMIT_NOFILE" => Resource::Nofile,
        "RLIMIT_NPROC" => Resource::Nproc,
        "RLIMIT_RSS" => Resource::Rss,
        "RLIMIT_RTPRIO" => Resource::Rtprio,
        "RLIMIT_RTTIME" => Resource::Rttime,
        "RLIMIT_SIGPENDING" => Resource::Sigpending,
        _ => Resource::Stack,
    };
    let value = |number: u64| (number != u64::MAX).then_some(number);
    Ok(rustix::process::setrlimit(
        resource,
        Rlimit { current: value(limit.soft), maximum: value(limit.hard) },
    )?)
}

/// Gives this thread the program's account and capabilities, and then starts the program as `start` says.
fn become_program<T>(program: &Program, start: impl FnOnce(&mut Command) -> io::Result<T>) -> io::Result<T> {
    let allowed = effective(&program.record.cap_add, &program.record.cap_drop)
        .into_iter()
        .fold(CapabilitySet::empty(), |set, number| set | CapabilitySet::from_bits_retain(1 << number));
    for number in 0..64_u64 {
        let one = CapabilitySet::from_bits_retain(1 << number);
        // What this kernel does not know is refused, and nothing is lost.
        if !allowed.contains(one) {
            let _ = rustix::thread::remove_capability_from_bounding_set(one);
        }
    }
    let account = &program.account;
    rustix::thread::set_keep_capabilities(true)?;
    let groups = account.groups.iter().map(|group| Gid::from_raw(*group)).collect::<Vec<_>>();
    rustix::thread::set_thread_groups(&groups)?;
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    let have = rustix::thread::capabilities(None)?.permitted & allowed;
    let sets = CapabilitySets { effective: have, permitted: have, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets)?;
    rustix::thread::set_keep_capabilities(false)?;
    // Made by the process itself, with what capabilities it has (correction 5).
    let directory = Path::new(&program.process.directory);
    if !directory.is_dir() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    }
    rustix::process::chdir(directory)?;
    let name = &program.process.executable;
    let Some(path) = find(name) else {
        return Err(io::Error::other(format!("failed to find target executable {name}")));
    };
    start(Command::new(path).arg0(name).args(&program.process.arguments))
}

/// Looks along the program's own PATH, which is this process' environment.
fn find(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return Path::new(name).exists().then(|| PathBuf::from(name));
    }
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .map(|directory| Path::new(if directory.is_empty() { "." } else { directory }).join(name))
        .find(|file| {
            fs::metadata(file).is_ok_and(|there| there.is_file() && there.permissions().mode() & 0o111 != 0)
        })
}

/// `--init`: stays PID 1, forwards signals to the program, and waits for whatever ends.
fn reap(control: &UnixStream, program: Program) -> io::Result<u8> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    SigSet::all().thread_block()?;
    let signals = SignalFd::new(&SigSet::all())?;
    // Accounts and capabilities are a thread's own: PID 1 keeps what it needs to signal the program.
    let started = thread::spawn(move || {
        become_program(&program, |command| {
            super::signals::release();
            command.spawn().map(|child| child.id())
        })
    });
    let child = match started.join() {
        Ok(child) => child?,
        Err(_) => return Err(io::Error::other("the thread that starts the program died")),
    };
    let child = i32::try_from(child).unwrap_or_default();
    (&*control).write_all(b"ready\n")?;
    control.shutdown(std::net::Shutdown::Both)?;
    drop_streams()?;
    loop {
        // First what has ended already: the signal of that may have gone to the thread that started it.
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if pid.as_raw_nonzero().get() == child {
                let code =
                    status.exit_status().unwrap_or_else(|| 128 + status.terminating_signal().unwrap_or(0));
                return Ok(u8::try_from(code).unwrap_or(255));
            }
        }
        let number =
            signals.read_signal()?.map_or(0, |signal| i32::try_from(signal.ssi_signo).unwrap_or_default());
        if number != Signal::SIGCHLD as i32 {
            let _ = super::send(child, number);
        }
    }
}

/// So that PID 1 does not hold the program's streams.
fn drop_streams() -> io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(rustix::stdio::dup2_stderr(&null)?)
}
