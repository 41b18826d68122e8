//! The way up: connect, learn the configuration, drop privileges, report.
use std::ffi::OsStr;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix, SocketFlags,
    SocketType, connect, recvmsg, socket_with,
};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::stdio::{dup2_stdin, dup2_stdout};

use super::cgroup::Cgroup;
use super::connection::{Connection, HELLO};
use super::door::Door;
use super::environment::Environment;
use super::event_loop::{Guest, Settings, Ways};
use super::identity::{Rights, become_init};
use super::report::measure;
use super::user::Users;
use crate::protocol::{Configure, FromGuest, KEPT_COMMANDS, KEPT_OUTPUT, MIN_VERSION, ToGuest, VERSION};
use crate::sys;

/// Signals that the loop reads from a descriptor.
const SIGNALS: [i32; 5] = [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGPIPE];

/// How host and guest meet.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Meeting<'a> {
    /// The guest connects out to this socket.
    Socket(&'a OsStr),
    /// The host sends a key on stdin and connects to the inner socket.
    Stdin,
    /// Stdin is one end of the host's socket, and the sandbox ends when stdout does.
    Inherited,
}

/// Meets the host and returns a guest that is ready to serve.
pub(crate) fn boot(meeting: Meeting<'_>) -> io::Result<Guest> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // Nothing that an engine has left open by mistake reaches a command.
    sys::close_from(3);
    let signals = sys::signal_fd(&SIGNALS)?;
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    // So that orphans come here even where we are no init.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let is_init = rustix::process::getpid().as_raw_nonzero().get() == 1;

    let mut kept = None;
    let (socket, door) = match meeting {
        Meeting::Socket(path) => (dial(path)?, None),
        Meeting::Inherited => {
            kept = Some(fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?);
            (inherited()?, None)
        }
        Meeting::Stdin => {
            let (mut door, lease) = Door::open(is_init)?;
            (door.first(&lease)?, Some((door, lease)))
        }
    };
    let mut connection = Connection::new(socket);
    let (configure, mut descriptors) = handshake(&mut connection)?;
    connection.hello_by = None;
    // Elsewhere stdin is the lease, and connections come and go.
    let (door, lease) = door.map_or((None, None), |(door, lease)| (Some(door), Some(lease)));
    connection.lease = configure.lease && lease.is_none();
    let lease = lease.filter(|_| configure.lease).or(kept);
    let listener = if configure.listener {
        let missing = || io::Error::other("the listening socket did not come with the configuration");
        Some(descriptors.pop().ok_or_else(missing)?)
    } else {
        None
    };
    drop(descriptors);
    if let Some(listener) = &listener {
        rustix::io::ioctl_fionbio(listener, true)?;
    }

    let mut environment = Environment::inherited();
    environment.extend(&configure.env);
    let rights = Rights {
        keep: configure.keep_capabilities,
        no_new_privileges: configure.no_new_privileges,
        strict: configure.drop_privileges,
    };
    if configure.drop_privileges {
        become_init(rights).map_err(|error| io::Error::other(format!("dropping privileges: {error}")))?;
    }
    let identity = Users::read()
        .resolve(configure.user.as_deref())
        .map_err(|failure| io::Error::other(failure.message))?;
    let cgroup = Cgroup::find();
    let report = measure(&cgroup, &identity, rights)?;
    let part = |of: u64, most: usize| {
        let limit = report.memory_bytes.unwrap_or(u64::MAX);
        usize::try_from(limit / of).unwrap_or(most).clamp(64 << 10, most)
    };
    let (kept, kept_in_all) = (part(64, KEPT_OUTPUT), part(8, KEPT_COMMANDS * KEPT_OUTPUT));
    connection.send(0, &FromGuest::Report(Box::new(report)));
    let settings = Settings {
        user: configure.user,
        cwd: configure.cwd.unwrap_or_else(|| b"/".to_vec()),
        environment,
        rights,
        log_output: configure.log_output,
        kept,
        kept_in_all,
    };
    let deadline = configure
        .deadline_ms
        .and_then(|deadline| Instant::now().checked_add(Duration::from_millis(deadline)));
    let ways = Ways { listener, door, lease };
    Ok(Guest::new(settings, cgroup, signals, ways, connection, deadline, is_init))
}

fn dial(path: &OsStr) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)
        .map_err(|errno| io::Error::other(format!("connecting to the host: {}", io::Error::from(errno))))?;
    Ok(socket)
}

/// Takes the socket from stdin, and leaves nothing of it there.
fn inherited() -> io::Result<OwnedFd> {
    let socket = fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    Ok(socket)
}

/// Receives `Hello` and `Configure`. Frames that follow them stay in the connection's reader.
fn handshake(connection: &mut Connection) -> io::Result<(Configure, Vec<OwnedFd>)> {
    let (until, mut descriptors, mut greeted) = (Instant::now() + HELLO, Vec::new(), false);
    loop {
        while let Some((header, payload)) = connection.reader.next().map_err(io::Error::other)? {
            let frame = ToGuest::decode(header.kind, payload).map_err(io::Error::other)?;
            match (header.channel, frame, greeted) {
                (0, ToGuest::Hello { version, min_version }, false) => {
                    if version < MIN_VERSION || min_version > VERSION {
                        return Err(io::Error::other(format!(
                            "the host speaks versions {min_version} to {version} of the protocol, this guest {MIN_VERSION} to {VERSION}"
                        )));
                    }
                    greeted = true;
                }
                (0, ToGuest::Configure(configure), true) => return Ok((checked(*configure)?, descriptors)),
                _ => {
                    return Err(io::Error::other(
                        "protocol violation: a frame came before the configuration",
                    ));
                }
            }
        }
        connection.flush();
        if connection.broken {
            return Err(io::Error::other("the host hung up before the configuration"));
        }
        wait(connection, until)?;
        receive(connection, &mut descriptors)?;
    }
}

/// Refuses what would be cut off later.
fn checked(configure: Configure) -> io::Result<Configure> {
    let strings = configure.env.iter().chain(&configure.cwd);
    let path = configure.cwd.as_ref().is_none_or(|cwd| cwd.first() == Some(&b'/'));
    if !path || strings.into_iter().any(|string| string.contains(&0)) {
        return Err(io::Error::other("protocol violation: a string of the configuration"));
    }
    Ok(configure)
}

fn wait(connection: &Connection, until: Instant) -> io::Result<()> {
    let left = until.saturating_duration_since(Instant::now());
    let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
    let mut fds = [PollFd::new(&connection.socket, connection.events() | PollFlags::IN)];
    match poll(&mut fds, Some(&timeout)) {
        Ok(0) => Err(io::Error::other("the host did not send the configuration in time")),
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn receive(connection: &mut Connection, descriptors: &mut Vec<OwnedFd>) -> io::Result<()> {
    let mut buffer = [0u8; 16 << 10];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let message =
        match recvmsg(connection.socket.as_fd(), &mut [IoSliceMut::new(&mut buffer)], &mut control, flags) {
            Ok(message) => message,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
    for ancillary in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = ancillary {
            descriptors.extend(received);
        }
    }
    if message.bytes == 0 {
        return Err(io::Error::other("the host hung up before the configuration"));
    }
    connection.reader.push(buffer.get(..message.bytes).unwrap_or_default());
    Ok(())
}
