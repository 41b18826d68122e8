//! A command's standard streams: pipes or a terminal.
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::ioctl_tiocsctty;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::termios::{Winsize, tcsetwinsize};

use super::launch::errno;

/// A command's ends of its standard streams.
pub(crate) struct Stdio {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
    tty: bool,
}

/// The command's ends, and ours.
type Ends = (Stdio, [Option<Rc<OwnedFd>>; 3]);

/// Makes pipes; without a stdin the command reads the end of one.
pub(crate) fn pipes(with_stdin: bool) -> rustix::io::Result<Ends> {
    let (stdin, stdin_writer) = pipe_with(PipeFlags::CLOEXEC)?;
    let (stdout_reader, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
    let (stderr_reader, stderr) = pipe_with(PipeFlags::CLOEXEC)?;
    let mut ours = [None, Some(Rc::new(stdout_reader)), Some(Rc::new(stderr_reader))];
    let stdin = if with_stdin {
        ours = [Some(Rc::new(stdin_writer)), ours[1].take(), ours[2].take()];
        stdin
    } else {
        // A pipe whose other end is closed reads as ended, too, where there is no /dev/null.
        null().unwrap_or(stdin)
    };
    Ok((Stdio { stdin, stdout, stderr, tty: false }, ours))
}

/// Opens `/dev/null` if it is that.
fn null() -> Option<OwnedFd> {
    device("/dev/null", OFlags::RDONLY, (1, 3)).ok()
}

/// Opens a device. An image may have anything at its path, and a command may hold a lease on that: it is never
/// waited for.
fn device(path: &str, flags: OFlags, number: (u32, u32)) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = open(path, flags, Mode::empty())?;
    let stat = fstat(&fd)?;
    let found = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    if FileType::from_raw_mode(stat.st_mode).is_char_device() && found == number {
        Ok(fd)
    } else {
        Err(Errno::NODEV)
    }
}

/// Makes a terminal of so many rows and columns.
pub(crate) fn terminal((rows, columns): (u16, u16)) -> rustix::io::Result<Ends> {
    let master = device("/dev/ptmx", OFlags::RDWR, (5, 2))?;
    unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = ioctl_tiocgptpeer(&master, flags)?;
    tcsetwinsize(&master, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?;
    let stdio = Stdio {
        stdin: slave.try_clone().map_err(|error| errno(&error))?,
        stdout: slave.try_clone().map_err(|error| errno(&error))?,
        stderr: slave,
        tty: true,
    };
    let master = Rc::new(master);
    Ok((stdio, [Some(master.clone()), Some(master), None]))
}

/// Makes them the standard streams of the calling process.
pub(crate) fn standard_io(stdio: &Stdio) -> rustix::io::Result<()> {
    if stdio.tty {
        ioctl_tiocsctty(stdio.stdin.as_fd())?;
    }
    dup2_stdin(&stdio.stdin)?;
    dup2_stdout(&stdio.stdout)?;
    dup2_stderr(&stdio.stderr)
}
