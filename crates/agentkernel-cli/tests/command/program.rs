//! Running the binary, and whether there is an engine to run it on.
use std::{
    ffi::OsStr,
    io::Write,
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// The fixture image, made by `cargo xtask provision`.
pub(crate) const IMAGE: &str = "agentkernel-test";

/// What a run of the binary came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn text(&self) -> (Option<i32>, &str, &str) {
        (self.code, std::str::from_utf8(&self.stdout).expect("text"), &self.stderr)
    }
}

pub(crate) fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_agentkernel"));
    command.stdin(Stdio::null()).env_remove("AGENTKERNEL_BACKEND");
    command
}

/// The binary with the usual answer to signals: a suite that runs in the background may have been started without it,
/// and the command keeps what it was given.
pub(crate) fn heeding_signals() -> Command {
    let mut command = Command::new("env");
    command.args(["--default-signal=HUP,INT,TERM", env!("CARGO_BIN_EXE_agentkernel")]);
    command.stdin(Stdio::null()).env_remove("AGENTKERNEL_BACKEND");
    command
}

pub(crate) fn agentkernel<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Ended {
    with_input(args, b"")
}

pub(crate) fn with_input<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>, input: &[u8]) -> Ended {
    let mut command = binary();
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A command that ends without reading closes the pipe: that is no failure of the test.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Ended {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs `agentkernel run --image IMAGE` with more arguments.
pub(crate) fn run<'a>(args: impl IntoIterator<Item = &'a str>) -> Ended {
    agentkernel(["run", "--image", IMAGE].into_iter().chain(args))
}

/// Returns false, with the reason printed, where there is no engine and none is required.
pub(crate) fn has_engine() -> bool {
    static DOCKER: OnceLock<bool> = OnceLock::new();
    *DOCKER.get_or_init(|| is_there("docker", &["image", "inspect", IMAGE]))
}

/// The same for Docker and Podman both; the podman command itself needs no service.
pub(crate) fn has_both_engines() -> bool {
    static PODMAN: OnceLock<bool> = OnceLock::new();
    let socket = "unix:///run/podman/podman.sock";
    has_engine() && *PODMAN.get_or_init(|| is_there("podman", &["--url", socket, "image", "inspect", IMAGE]))
}

#[expect(clippy::print_stderr, reason = "a test that skips itself says so")]
fn is_there(engine: &str, args: &[&str]) -> bool {
    let there = Command::new(engine).args(args).output().is_ok_and(|output| output.status.success());
    let required = std::env::var("AGENTKERNEL_REQUIRE_BACKENDS").unwrap_or_default();
    let required = required.split(',').any(|name| name.trim() == engine);
    assert!(there || !required, "{engine} is required, with the image {IMAGE}");
    if !there {
        eprintln!("skipped: {engine} does not answer with the image {IMAGE}: run `cargo xtask provision`");
    }
    there
}

/// A name of its own for every sandbox of the tests; the sandbox is removed at the end, whatever happens.
pub(crate) struct Name(pub(crate) String);

impl Name {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        Self(format!("cli-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)))
    }

    /// Makes a sandbox of this name that stays.
    pub(crate) fn created() -> Self {
        let name = Self::new();
        let ended = agentkernel(["create", &name.0, "--image", IMAGE]);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        name
    }

    pub(crate) fn exec<'a>(&'a self, args: impl IntoIterator<Item = &'a str>) -> Ended {
        agentkernel(["exec", &self.0, "--"].into_iter().chain(args))
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _gone = agentkernel(["remove", "--force", &self.0]);
    }
}

/// Waits for a condition; the time only bounds the wait.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Returns the names of the engine's containers, as the engine's own command tells them.
pub(crate) fn containers() -> String {
    let output = Command::new("docker").args(["ps", "--all", "--format", "{{.Names}}"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Sends a signal to a process that we started.
pub(crate) fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}
