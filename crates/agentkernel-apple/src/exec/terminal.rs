//! The terminal that a call has as its stdin: without one, `container` gives none inside. Its size is the one inside.
use std::{
    fs::File,
    os::fd::OwnedFd,
    sync::atomic::{AtomicI32, Ordering},
};

use agentkernel_core::{Error, Result, TtySize, Writer};
use rustix::{
    fs::{Mode, OFlags},
    io::{FdFlags, fcntl_setfd},
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize},
};

/// Our end of it. Dropping all of them hangs up.
#[derive(Debug)]
pub(super) struct Terminal {
    own: OwnedFd,
    /// Who is told of a new size: 0 for nobody.
    pid: AtomicI32,
}

impl Terminal {
    /// Opens one, and returns the end of the call too. It passes on every byte: the terminal inside is the one that echoes.
    pub(super) fn open(size: TtySize) -> Result<(Self, OwnedFd)> {
        let failed =
            |error| Error::unexpected("start command", "there is no terminal on this machine", error);
        let open = || {
            let own = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
            fcntl_setfd(&own, FdFlags::CLOEXEC)?;
            grantpt(&own)?;
            unlockpt(&own)?;
            let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
            let theirs = rustix::fs::open(ptsname(&own, Vec::new())?, flags, Mode::empty())?;
            let mut attributes = tcgetattr(&theirs)?;
            attributes.make_raw();
            tcsetattr(&theirs, OptionalActions::Now, &attributes)?;
            tcsetwinsize(&theirs, window(size))?;
            Ok((Self { own, pid: AtomicI32::new(0) }, theirs))
        };
        open().map_err(|errno: rustix::io::Errno| failed(std::io::Error::from(errno)))
    }

    /// Names the call that looks at the size.
    pub(super) fn belongs_to(&self, pid: Option<u32>) {
        let pid = pid.and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
        self.pid.store(pid, Ordering::SeqCst);
    }

    pub(super) fn resize(&self, size: TtySize) -> Result<()> {
        let failed = |errno| {
            let source = std::io::Error::from(errno);
            Error::unexpected("resize the terminal", "the terminal takes no size", source)
        };
        tcsetwinsize(&self.own, window(size)).map_err(failed)?;
        match Pid::from_raw(self.pid.load(Ordering::SeqCst)) {
            // One that has ended meanwhile has no size.
            Some(pid) => match kill_process(pid, Signal::WINCH) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
                Err(errno) => Err(failed(errno)),
            },
            None => Ok(()),
        }
    }

    /// Returns what takes keys. Dropping it changes nothing: the end of input is a key too.
    pub(super) fn keys(&self) -> Result<Writer> {
        let own = self
            .own
            .try_clone()
            .map_err(|source| Error::unexpected("start command", "the terminal cannot be shared", source))?;
        Ok(Box::pin(tokio::fs::File::from_std(File::from(own))))
    }
}

fn window(size: TtySize) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 }
}
