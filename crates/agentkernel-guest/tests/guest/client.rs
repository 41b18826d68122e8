//! A small blocking host.
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use agentkernel_guest::protocol::*;

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// One connection to a guest.
pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    reader: FrameReader,
    next: u32,
    /// Frames that came while others were waited for.
    waiting: Vec<(u32, FromGuest)>,
}

/// What a channel brought until its end.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) id: u64,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) frames: Vec<FromGuest>,
    pub(crate) end: Option<FromGuest>,
}

impl Outcome {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub(crate) fn failure(&self) -> FailureCode {
        match &self.end {
            Some(FromGuest::Failed(failure)) => failure.code,
            other => panic!("no failure: {other:?}"),
        }
    }

    pub(crate) fn status(&self) -> Status {
        match &self.end {
            Some(FromGuest::Exited(status)) => *status,
            other => panic!("not exited: {other:?}, stderr {}", String::from_utf8_lossy(&self.stderr)),
        }
    }
}

impl Client {
    pub(crate) fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client =
            Self { stream, reader: FrameReader::new(MAX_FROM_GUEST), next: 0, waiting: Vec::new() };
        client.send(0, &ToGuest::Hello { version: VERSION, min_version: MIN_VERSION });
        client
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(crate) fn send(&mut self, channel: u32, frame: &ToGuest) {
        let mut bytes = Vec::new();
        frame.encode(channel, &mut bytes);
        // What is said to a guest that has just ended is lost; what it said before is still to be read.
        self.stream.write_all(&bytes).ok();
    }

    /// Opens a channel.
    pub(crate) fn open(&mut self, request: Request) -> u32 {
        self.next += 1;
        self.send(self.next, &ToGuest::Request(request));
        self.next
    }

    /// Receives a frame of any channel, `None` at the end.
    pub(crate) fn receive(&mut self) -> Option<(u32, FromGuest)> {
        loop {
            if let Some((header, payload)) = self.reader.next().unwrap() {
                return Some((header.channel, FromGuest::decode(header.kind, payload).unwrap()));
            }
            let mut buffer = [0; 65536];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                result => self.reader.push(&buffer[..result.expect("the guest answers in time")]),
            }
        }
    }

    /// Receives a frame of one channel; others wait.
    pub(crate) fn next(&mut self, channel: u32) -> FromGuest {
        if let Some(at) = self.waiting.iter().position(|(it, _)| *it == channel) {
            return self.waiting.remove(at).1;
        }
        loop {
            let (it, frame) = self.receive().expect("the connection ended");
            if it == channel {
                return frame;
            }
            self.waiting.push((it, frame));
        }
    }

    /// Receives until the channel ends, granting credit for what comes.
    pub(crate) fn finish(&mut self, channel: u32) -> Outcome {
        let mut outcome = Outcome::default();
        loop {
            match self.next(channel) {
                FromGuest::Started { id } => outcome.id = id,
                FromGuest::Stdout(bytes) => {
                    self.send(channel, &ToGuest::Credit(u32::try_from(bytes.len()).unwrap()));
                    outcome.stdout.extend(bytes);
                }
                FromGuest::Stderr(bytes) => {
                    self.send(channel, &ToGuest::Credit(u32::try_from(bytes.len()).unwrap()));
                    outcome.stderr.extend(bytes);
                }
                frame if frame.is_terminal() => {
                    outcome.end = Some(frame);
                    return outcome;
                }
                frame @ FromGuest::Entry(_) => {
                    self.send(channel, &ToGuest::Credit(300));
                    outcome.frames.push(frame);
                }
                frame => outcome.frames.push(frame),
            }
        }
    }

    pub(crate) fn run(&mut self, request: Request) -> Outcome {
        let channel = self.open(request);
        self.finish(channel)
    }

    pub(crate) fn spawn(&mut self, spawn: Spawn) -> Outcome {
        self.run(Request::Spawn(spawn))
    }

    pub(crate) fn shell(&mut self, script: &str) -> Outcome {
        self.spawn(sh(script))
    }

    /// Sends data, then the end.
    pub(crate) fn feed(&mut self, channel: u32, bytes: &[u8]) {
        if self.pour(channel, bytes) {
            self.send(channel, &ToGuest::Eof);
        }
    }

    /// Sends data, the first of its channel, and returns false if the guest wants no more. What was taken in the end is
    /// all but the last window.
    pub(crate) fn pour(&mut self, channel: u32, bytes: &[u8]) -> bool {
        let mut credit = WINDOW as usize;
        for part in bytes.chunks(MAX_DATA) {
            while credit < part.len() {
                match self.next(channel) {
                    FromGuest::Credit(more) => credit += more as usize,
                    frame if frame.is_terminal() => {
                        self.waiting.push((channel, frame));
                        return false;
                    }
                    _ => {}
                }
            }
            self.send(channel, &ToGuest::Data(part.to_vec()));
            credit -= part.len();
        }
        true
    }

    pub(crate) fn ping_after_hello(&mut self) {
        assert!(matches!(self.next(0), FromGuest::Hello { .. }));
        self.ping();
    }

    pub(crate) fn ping(&mut self) {
        self.send(0, &ToGuest::Ping(7));
        assert_eq!(self.next(0), FromGuest::Pong(7));
    }
}

pub(crate) fn sh(script: &str) -> Spawn {
    Spawn { argv: argv(&["sh", "-c", script]), ..Spawn::default() }
}

pub(crate) fn argv(words: &[&str]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

/// A guest that runs, and its boot connection.
pub(crate) struct Guest {
    pub(crate) child: Child,
    pub(crate) client: Client,
    pub(crate) report: Report,
    pub(crate) directory: tempfile::TempDir,
}

/// How a guest is started.
pub(crate) struct Start {
    pub(crate) configure: Configure,
    /// As init of a process namespace of its own.
    pub(crate) init: bool,
    /// With nothing to see but itself, `/tmp` in memory and `/proc`, as root, and as init.
    pub(crate) jailed: bool,
    /// With so many descriptors.
    pub(crate) open_files: Option<u32>,
    pub(crate) stdout: Stdio,
}

impl Default for Start {
    fn default() -> Self {
        let id = |flag| {
            let output = Command::new("id").arg(flag).output().unwrap().stdout;
            String::from_utf8(output).unwrap().trim().to_owned()
        };
        let user = format!("{}:{}", id("-u"), id("-g")).into_bytes();
        Self {
            configure: Configure {
                user: Some(user),
                lease: true,
                no_new_privileges: true,
                ..Configure::default()
            },
            init: false,
            jailed: false,
            open_files: None,
            stdout: Stdio::inherit(),
        }
    }
}

/// Whether tests may make process namespaces; says so if not.
pub(crate) fn can_be_init() -> bool {
    let can = Command::new("unshare").args(["--pid", "--fork", "--mount-proc", "true"]).status();
    let can = can.is_ok_and(|status| status.success());
    if !can {
        eprintln!("skipped: process namespaces need root and unshare(1)");
    }
    can
}

/// Whether tests may make an empty sandbox for the guest; says so if not.
pub(crate) fn can_be_jailed() -> bool {
    let can = Command::new("unshare").args(["--mount", "--pid", "--net", "--fork", "true"]).status();
    let can = can.is_ok_and(|status| status.success()) && cfg!(target_feature = "crt-static");
    if !can {
        eprintln!("skipped: an empty sandbox needs root, unshare(1) and a static guest");
    }
    can
}

/// Makes an empty root in the directory of the socket and starts the guest in it. Nothing of it is seen outside.
const JAIL: &str = r#"set -e
cd "$(dirname "$2")"; mkdir root
mount -t tmpfs -o size=16m jail root
mkdir root/tmp root/proc; mount -t proc -o ro proc root/proc
cp "$1" root/guest; : >root/boot; mount --bind "$2" root/boot
exec chroot root /guest __guest boot /boot"#;

impl Start {
    pub(crate) fn command(&self, socket: &std::path::Path) -> Command {
        let guest = env!("CARGO_BIN_EXE_agentkernel-guest");
        if self.jailed {
            let mut command = Command::new("unshare");
            command.args([
                "--mount",
                "--pid",
                "--net",
                "--fork",
                "--kill-child",
                "sh",
                "-c",
                JAIL,
                "sh",
                guest,
            ]);
            command.arg(socket);
            return command;
        }
        let mut command = Command::new("sh");
        let limit = self.open_files.map(|most| format!("ulimit -n {most}; ")).unwrap_or_default();
        command.args(["-c", &format!("{limit}exec \"$@\""), "sh"]);
        if self.init {
            command.args(["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        }
        command.arg(guest).args(["__guest", "boot"]).arg(socket);
        command
    }

    pub(crate) fn start(self) -> Guest {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("boot");
        let listener = UnixListener::bind(&path).unwrap();
        let mut command = self.command(&path);
        let child = command.stdin(Stdio::null()).stdout(self.stdout).spawn().unwrap();
        let mut client = Client::new(listener.accept().unwrap().0);
        client.send(0, &ToGuest::Configure(Box::new(self.configure)));
        assert!(matches!(client.next(0), FromGuest::Hello { version: VERSION, .. }));
        let FromGuest::Report(report) = client.next(0) else { panic!("no report") };
        Guest { child, client, report: *report, directory }
    }
}

pub(crate) fn start() -> Guest {
    Start::default().start()
}

impl Guest {
    /// Waits for the guest's own end.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        wait_until("the guest ends", || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.client.stream.shutdown(std::net::Shutdown::Both).ok();
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(2));
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Waits for a condition.
pub(crate) fn wait_until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < until, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
