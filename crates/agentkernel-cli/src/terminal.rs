//! Our own terminal: whether there is one, its size, and raw mode that always ends.
use std::{
    io::{self, IsTerminal},
    sync::{Mutex, PoisonError},
};

use agentkernel_core::{Error, ErrorKind, Result, TtySize};
use rustix::{
    process::getpgrp,
    stdio::stdin,
    termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr},
};

use crate::args::TerminalFlags;

/// The mode to go back to, while the terminal is raw.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// Decides whether the command gets a terminal, and of which size.
pub(crate) fn wanted(flags: &TerminalFlags, is_captured: bool) -> Result<Option<TtySize>> {
    if flags.tty && !io::stdin().is_terminal() {
        return Err(Error::new(
            ErrorKind::InvalidConfig,
            "give the command a terminal",
            "stdin is no terminal",
        )
        .with_hint("leave `--tty` away: without it a command gets a terminal if there is one"));
    }
    let is_there = io::stdin().is_terminal() && io::stdout().is_terminal() && is_foreground();
    let is_wanted = flags.tty || (is_there && !flags.no_tty && !is_captured);
    Ok(is_wanted.then(size))
}

/// Returns whether reading stdin cannot stop us: a background job that reads its terminal is stopped by SIGTTIN.
pub(crate) fn can_read_stdin() -> bool {
    !io::stdin().is_terminal() || is_foreground()
}

fn is_foreground() -> bool {
    tcgetpgrp(stdin()).is_ok_and(|group| group == getpgrp())
}

/// Returns the size of our terminal, or the usual one.
pub(crate) fn size() -> TtySize {
    match tcgetwinsize(stdin()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => TtySize { rows: size.ws_row, columns: size.ws_col },
        _ => TtySize::default(),
    }
}

/// Keeps our terminal raw until it is dropped, or the process panics: see [`panics`](crate::panics).
#[derive(Debug)]
pub(crate) struct RawMode(());

impl RawMode {
    pub(crate) fn enter() -> Result<Self> {
        let failed = |error| {
            Error::unexpected("prepare the terminal", "its mode cannot be changed", io::Error::from(error))
        };
        let before = tcgetattr(stdin()).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        tcsetattr(stdin(), OptionalActions::Now, &raw).map_err(failed)?;
        Ok(Self(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back, if it is raw.
pub(crate) fn restore() {
    if let Some(before) = SAVED.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // A terminal that is gone needs no mode.
        let _gone = tcsetattr(stdin(), OptionalActions::Drain, &before);
    }
}
