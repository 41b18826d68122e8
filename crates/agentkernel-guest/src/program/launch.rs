//! Starting a command: everything is prepared before the fork; a stub holds the tree; the failure of a step comes
//! back through a pipe that exec closes, so that no program can forge it.
use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal, chdir, setrlimit, setsid};
use rustix::stdio::dup2_stdin;
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::event_loop::Settings;
use super::identity::{Identity, Rights, Step, become_command, offer_to_oom_killer};
use super::stdio::{Stdio, pipes, standard_io, terminal};
use super::user::Users;
use crate::protocol::{Failure, FailureCode, Spawn};
use crate::sys::{self, Fork, Strings};

/// A command on its way: the guest's ends of everything.
pub(crate) struct Launched {
    pub(crate) stub: i32,
    /// Tells the pid and the failure; ends at exec.
    pub(crate) report: OwnedFd,
    /// Tells the end of the command and of its tree.
    pub(crate) tree: OwnedFd,
    pub(crate) stdin: Option<Rc<OwnedFd>>,
    pub(crate) stdout: Option<Rc<OwnedFd>>,
    pub(crate) stderr: Option<Rc<OwnedFd>>,
}

struct Plan {
    candidates: Vec<CString>,
    argv: Strings,
    env: Strings,
    cwd: CString,
    identity: Identity,
    rights: Rights,
}

/// Starts a command. Its own failures come later, through the report. The stub lets go of the guest's memory by `shed`:
/// what was copied with it would stay for as long as the tree lives.
pub(crate) fn launch(spawn: &Spawn, settings: &Settings, shed: impl FnOnce()) -> Result<Launched, Failure> {
    let plan = plan(spawn, settings)?;
    let at = |what: &'static str| move |errno: Errno| failure(errno, what);
    let (report, report_writer) = pipe_with(PipeFlags::CLOEXEC).map_err(at("making a pipe"))?;
    let (tree, tree_writer) = pipe_with(PipeFlags::CLOEXEC).map_err(at("making a pipe"))?;
    // The kernel counts what all pipes of a user could hold, and makes further ones tiny; a few bytes pass here.
    fcntl_setpipe_size(&tree, 4096).ok();
    let (stdio, [stdin, stdout, stderr]) =
        sys::as_owner(plan.identity.uid, plan.identity.gid, || match spawn.tty {
            Some(size) => terminal(size).map_err(at("making a terminal")),
            None => pipes(spawn.stdin).map_err(at("making pipes")),
        })?;
    let ours = [stdin.as_deref(), stdout.as_deref(), stderr.as_deref(), Some(&report), Some(&tree)];
    for fd in ours.into_iter().flatten() {
        rustix::io::ioctl_fionbio(fd, true).map_err(at("preparing a pipe"))?;
    }
    let stub = match sys::fork() {
        Ok(Fork::Child) => become_stub(&plan, &stdio, report_writer, &tree_writer, shed),
        Ok(Fork::Parent(pid)) => pid,
        Err(error) => return Err(failure(errno(&error), "starting a process")),
    };
    Ok(Launched { stub, report, tree, stdin, stdout, stderr })
}

pub(crate) fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

fn failure(errno: Errno, what: &str) -> Failure {
    let code = match errno {
        Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::NOSPC => FailureCode::Exhausted,
        _ => FailureCode::Other,
    };
    let source = io::Error::from(errno);
    Failure::new(code, errno.raw_os_error().cast_unsigned(), format!("{what}: {source}"))
}

fn plan(spawn: &Spawn, settings: &Settings) -> Result<Plan, Failure> {
    let identity = Users::read().resolve(spawn.user.as_deref().or(settings.user.as_deref()))?;
    let mut environment = settings.environment.clone();
    environment.extend(&spawn.env);
    environment.complete(&identity, spawn.tty.is_some());
    // The protocol lets no NUL through.
    let strings = |strings: Vec<Vec<u8>>| -> Result<Vec<CString>, Failure> {
        strings
            .into_iter()
            .map(|string| {
                CString::new(string).map_err(|_| Failure::new(FailureCode::Invalid, 0, "a string has a NUL"))
            })
            .collect()
    };
    let candidates = strings(candidates(spawn.argv.first().map_or(&[], Vec::as_slice), environment.path()))?;
    let mut cwd = strings(vec![spawn.cwd.clone().unwrap_or_else(|| settings.cwd.clone())])?;
    Ok(Plan {
        candidates,
        argv: Strings::new(strings(spawn.argv.clone())?),
        env: Strings::new(strings(environment.into_strings().collect())?),
        cwd: cwd.pop().unwrap_or_default(),
        identity,
        rights: settings.rights,
    })
}

fn candidates(program: &[u8], path: &[u8]) -> Vec<Vec<u8>> {
    if program.contains(&b'/') {
        return vec![program.to_vec()];
    }
    let directory = |directory: &[u8]| match directory {
        // An empty one is the working directory, as for every shell.
        b"" => [b"./", program].concat(),
        _ => [directory, b"/", program].concat(),
    };
    path.split(|byte| *byte == b':').map(directory).collect()
}

/// Where a command's start failed.
const FORK: u8 = 1;
const IDENTITY: u8 = 2;
const DIRECTORY: u8 = 3;
const STDIO: u8 = 4;
const EXEC: u8 = 5;
/// The program is there, but not what it names as its interpreter.
const INTERPRETER: u8 = 6;
/// Not a failure: the command's pid.
const PID: u8 = 7;

/// The length of a record: what, then a number.
const RECORD: usize = 5;

fn record(what: u8, number: i32) -> [u8; RECORD] {
    let [a, b, c, d] = number.to_le_bytes();
    [what, a, b, c, d]
}

/// The process that holds the command's tree and waits, nothing else.
fn become_stub(plan: &Plan, stdio: &Stdio, report: OwnedFd, tree: &OwnedFd, shed: impl FnOnce()) -> ! {
    rustix::thread::set_name(c"agentkernel-tree").ok();
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).ok();
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).ok();
    if let Err(errno) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        rustix::io::write(&report, &record(FORK, errno.raw_os_error())).ok();
        sys::exit(1);
    }
    let command = match sys::fork() {
        Ok(Fork::Child) => become_program(plan, stdio, &report),
        Ok(Fork::Parent(pid)) => pid,
        Err(error) => {
            rustix::io::write(&report, &record(FORK, errno(&error).raw_os_error())).ok();
            sys::exit(1)
        }
    };
    drop(report);
    let none = CapabilitySet::empty();
    let nothing = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, nothing).ok();
    // Standard input is the only descriptor that is kept.
    if dup2_stdin(tree).is_err() {
        sys::exit(1);
    }
    sys::close_from(1);
    shed();
    let tell = |what, number| {
        rustix::io::write(rustix::stdio::stdin(), &record(what, number)).ok();
    };
    loop {
        match sys::wait(-1, libc::__WALL) {
            Ok(Some((pid, status))) if pid == command => tell(ENDED, status),
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => break,
            Err(_) => {}
        }
    }
    tell(GONE, 0);
    sys::exit(0)
}

/// A record of the stub: the command ended, with its wait status.
const ENDED: u8 = 8;
/// A record of the stub: nothing of the tree is left.
const GONE: u8 = 9;

fn become_program(plan: &Plan, stdio: &Stdio, report: &OwnedFd) -> ! {
    let fail = |what: u8, number: i32| -> ! {
        rustix::io::write(report, &record(what, number)).ok();
        sys::exit(127)
    };
    setsid().ok();
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    rustix::io::write(report, &record(PID, pid)).ok();
    offer_to_oom_killer();
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).ok();
    if let Err(errno) = standard_io(stdio) {
        fail(STDIO, errno.raw_os_error());
    }
    // Whoever can stop this process before exec does not hold what belongs to other commands.
    sys::close_others(3, report);
    if let Err((step, error)) = become_command(&plan.identity, plan.rights) {
        // The step travels above the error number.
        fail(IDENTITY, errno(&error).raw_os_error() | (step_number(step) << 16));
    }
    if let Err(errno) = chdir(plan.cwd.as_c_str()) {
        fail(DIRECTORY, errno.raw_os_error());
    }
    sys::reset_signals();
    let exists =
        |candidate: &CString| accessat(CWD, candidate.as_c_str(), Access::EXISTS, AtFlags::empty()).is_ok();
    let mut worst = (EXEC, libc::ENOENT);
    for candidate in &plan.candidates {
        match sys::execute(candidate, &plan.argv, &plan.env) {
            libc::ENOENT | libc::ENOTDIR if worst.1 == libc::ENOENT && exists(candidate) => {
                worst.0 = INTERPRETER;
            }
            libc::ENOENT | libc::ENOTDIR => {}
            // A directory of the path that may not be searched hides nothing that could be run.
            libc::EACCES if plan.candidates.len() == 1 || exists(candidate) => worst = (EXEC, libc::EACCES),
            libc::EACCES => {}
            other => fail(EXEC, other),
        }
    }
    fail(worst.0, worst.1)
}

fn step_number(step: Step) -> i32 {
    match step {
        Step::Groups => 1,
        Step::Group => 2,
        Step::User => 3,
        Step::Capabilities => 4,
        Step::Privileges => 5,
    }
}

/// What a stub or a command on its way has to say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Pid(i32),
    Failed(Failure),
    Ended(i32),
    Gone,
}

/// Cuts whole records off the front.
pub(crate) fn told(bytes: &mut Vec<u8>, spawn: &str) -> Vec<Told> {
    let whole = bytes.len() - bytes.len() % RECORD;
    let (records, _) = bytes.as_chunks::<RECORD>();
    let told = records
        .iter()
        .map(|[what, number @ ..]| {
            let number = i32::from_le_bytes(*number);
            match *what {
                PID => Told::Pid(number),
                ENDED => Told::Ended(number),
                GONE => Told::Gone,
                what => Told::Failed(explain(what, number, spawn)),
            }
        })
        .collect();
    bytes.drain(..whole);
    told
}

fn explain(what: u8, number: i32, program: &str) -> Failure {
    let errno = number & 0xffff;
    let source = io::Error::from_raw_os_error(errno);
    let (code, message) = match (what, errno) {
        (_, libc::EAGAIN | libc::ENOMEM) => (FailureCode::Exhausted, format!("starting a process: {source}")),
        (IDENTITY, _) => {
            let step = match number >> 16 {
                1 => "its groups",
                2 => "its group",
                3 => "its user",
                4 => "its capabilities",
                _ => "its privileges",
            };
            (FailureCode::BadUser, format!("giving the command {step}: {source}"))
        }
        (DIRECTORY, _) => (FailureCode::BadDirectory, format!("entering the working directory: {source}")),
        (EXEC, libc::ENOENT | libc::ENOTDIR) => {
            (FailureCode::CommandNotFound, format!("`{program}`: {source}"))
        }
        (INTERPRETER, _) => (
            FailureCode::CommandNotFound,
            format!("`{program}` is there, but not the interpreter that it names"),
        ),
        (EXEC, libc::E2BIG) => (FailureCode::ArgumentListTooLong, format!("`{program}`: {source}")),
        (
            EXEC,
            libc::EACCES
            | libc::ENOEXEC
            | libc::EPERM
            | libc::EISDIR
            | libc::ETXTBSY
            | libc::ELOOP
            | libc::EINVAL
            | libc::ELIBBAD,
        ) => (FailureCode::CommandNotExecutable, format!("`{program}`: {source}")),
        _ => (FailureCode::Other, format!("starting `{program}`: {source}")),
    };
    Failure::new(code, errno.cast_unsigned(), message)
}
