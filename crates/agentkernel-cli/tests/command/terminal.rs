//! The command on a terminal: ours is raw while it runs, every key goes in, and it is given back as it was.
use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};

use crate::program::{IMAGE, Name, has_engine};

/// A terminal of the test's own, with the command in front of it.
struct Terminal {
    child: Child,
    keys: File,
    /// Held open, so that the terminal is still there after the command.
    ours: OwnedFd,
    shown: Receiver<Vec<u8>>,
}

impl Terminal {
    fn with(args: &[&str]) -> Self {
        let keys = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&keys).unwrap();
        unlockpt(&keys).unwrap();
        let path = ptsname(&keys, Vec::new()).unwrap();
        let open = || OpenOptions::new().read(true).write(true).open(path.to_str().unwrap()).unwrap();
        let ours = OwnedFd::from(open());
        resize(&ours, 33, 101);
        let mut command = Command::new("setsid");
        command.args(["--ctty", env!("CARGO_BIN_EXE_agentkernel")]).args(args).env("TERM", "xterm-test");
        command.stdin(Stdio::from(open())).stdout(Stdio::from(open())).stderr(Stdio::from(open()));
        let child = command.spawn().unwrap();
        let keys = File::from(keys);
        let mut screen = keys.try_clone().unwrap();
        let (sender, shown) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = screen.read(&mut buffer) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { child, keys, ours, shown }
    }

    fn press(&mut self, keys: &[u8]) {
        self.keys.write_all(keys).unwrap();
    }

    fn shows(&self, wanted: &str) {
        let (mut seen, deadline) = (String::new(), Instant::now() + Duration::from_secs(30));
        while !seen.contains(wanted) {
            let left = deadline.saturating_duration_since(Instant::now());
            let bytes = self.shown.recv_timeout(left);
            assert!(bytes.is_ok(), "{wanted:?} is not shown, but {seen:?}");
            seen += &String::from_utf8_lossy(&bytes.unwrap());
        }
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.ours).unwrap().local_modes.contains(LocalModes::ICANON)
    }

    fn ends(&mut self) -> Option<i32> {
        let code = self.child.wait().unwrap().code();
        assert!(!self.is_raw(), "the terminal is left raw");
        code
    }
}

fn resize(terminal: &OwnedFd, rows: u16, columns: u16) {
    tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
}

fn run(script: &str) -> Terminal {
    Terminal::with(&["run", "--image", IMAGE, "--", "sh", "-c", script])
}

#[test]
fn the_terminal_inside_has_our_size_and_kind_and_follows() {
    if !has_engine() {
        return;
    }
    let mut terminal = run(
        "stty size; echo $TERM; while [ \"$(stty size)\" = '33 101' ]; do sleep 0.05; done; stty size; exit 7",
    );
    terminal.shows("33 101\r\nxterm-test\r\n");
    assert!(terminal.is_raw());
    resize(&terminal.ours, 40, 90);
    terminal.shows("40 90\r\n");
    assert_eq!(terminal.ends(), Some(7));
}

#[test]
fn an_interrupt_key_is_the_commands() {
    if !has_engine() {
        return;
    }
    let mut terminal = run("trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.05; done");
    terminal.shows("ready");
    terminal.press(b"\x03");
    terminal.shows("caught");
    assert_eq!(terminal.ends(), Some(9));
}

#[test]
fn a_signal_to_end_gives_the_terminal_back() {
    if !has_engine() {
        return;
    }
    let mut terminal = run("trap 'echo told' TERM; echo ready; while :; do sleep 0.05; done");
    terminal.shows("ready");
    assert!(terminal.is_raw());
    crate::program::signal(&terminal.child, "TERM");
    terminal.shows("told");
    crate::program::signal(&terminal.child, "TERM");
    assert_eq!(terminal.ends(), Some(143));
}

#[test]
fn what_the_detach_keys_leave_is_joined_again_with_its_stdin_open() {
    if !has_engine() {
        return;
    }
    let name = Name::created();
    let script = "echo ready; read word; echo it was $word; exit 3";
    let mut terminal = Terminal::with(&["exec", &name.0, "--", "sh", "-c", script]);
    terminal.shows("ready");
    terminal.press(b"\x10\x11");
    terminal.shows(&format!("agentkernel attach {} ", name.0));
    assert_eq!(terminal.ends(), Some(0));
    let mut terminal = Terminal::with(&["attach", &name.0]);
    terminal.shows("ready");
    terminal.press(b"kept\r");
    terminal.shows("it was kept");
    assert_eq!(terminal.ends(), Some(3));
}

#[test]
fn attaching_where_nothing_is_detached_begins_a_shell_with_our_terminal() {
    if !has_engine() {
        return;
    }
    let name = Name::created();
    let mut terminal = Terminal::with(&["attach", &name.0]);
    // The shell forgets what is typed before it asks for it.
    terminal.shows("# ");
    terminal.press(b"echo $((6*7)); stty size\n");
    terminal.shows("42");
    terminal.shows("33 101");
    terminal.press(b"exit 3\n");
    assert_eq!(terminal.ends(), Some(3));
    assert!(!terminal.is_raw());
}
