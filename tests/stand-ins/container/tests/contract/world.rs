//! A stand-in with state of its own, and rows of the contract that are played on it.
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use serde_json::{Value, json};

/// Whether this machine lets the stand-in run anything; says so if not.
pub(crate) fn can_run() -> bool {
    let can = fs::read_to_string("/proc/self/status").is_ok_and(|status| status.contains("Uid:\t0\t"))
        && Path::new("/bin/busybox").exists()
        && Command::new("unshare")
            .args(["--pid", "--mount", "--net", "--fork", "true"])
            .status()
            .is_ok_and(|s| s.success());
    if !can {
        eprintln!("skipped: containers of the stand-in need root, namespaces and /bin/busybox");
    }
    can
}

/// Its output; a call that hangs is killed, so that it fails and does not hold up the others.
fn within_a_minute(child: Child) -> Output {
    let pid = rustix::process::Pid::from_child(&child);
    let (done, ended) = std::sync::mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        if ended.recv_timeout(std::time::Duration::from_secs(60))
            == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    });
    let output = child.wait_with_output().unwrap();
    drop(done);
    watch.join().unwrap();
    output
}

/// The state of one stand-in; its containers end with it.
pub(crate) struct World {
    directory: tempfile::TempDir,
    version: &'static str,
}

impl World {
    pub(crate) fn new(version: &'static str) -> Self {
        let world = Self { directory: tempfile::tempdir().unwrap(), version };
        fs::create_dir(world.root()).unwrap();
        world.switch(&json!({}));
        world
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Sets the switches, beside the version.
    pub(crate) fn switch(&self, switches: &Value) {
        let mut all = switches.clone();
        all["version"] = json!(self.version);
        fs::write(self.root().join("control.json"), all.to_string()).unwrap();
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let tmp = self.directory.path().to_str().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_container"));
        command
            .args(arguments.iter().map(|argument| argument.replace("{tmp}", tmp)))
            .env_clear()
            .env("AGENTKERNEL_STANDIN_ROOT", self.root())
            .env("CALLERS", "own")
            .current_dir(tmp)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        within_a_minute(self.command(arguments).spawn().unwrap())
    }

    pub(crate) fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdin(Stdio::piped()).spawn().unwrap()
    }

    /// Runs it with this stdin.
    pub(crate) fn fed(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = self.spawn(arguments);
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || {
            // The program may end before it has read everything.
            let _ = stdin.write_all(&input);
        });
        let output = within_a_minute(child);
        writer.join().unwrap();
        output
    }

    /// Runs what must succeed; its stdout.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(arguments)).unwrap()
    }

    /// A container that runs, with nothing to do.
    pub(crate) fn up(&self, name: &str) {
        self.ok(&["run", "-d", "--name", name, "busybox", "tail", "-f", "/dev/null"]);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.switch(&json!({}));
        let _ = self.run(&["system", "start", "--disable-kernel-install"]);
        let _ = self.run(&["delete", "--all", "--force"]);
    }
}

/// What a stream must be.
#[derive(Debug)]
pub(crate) enum Is {
    Any,
    Empty,
    Exactly(&'static str),
    Has(&'static str),
    /// One line: `Error: ` and this.
    Error(&'static str),
    /// Exit 64's shape: the error, usage, and where to find more.
    Usage(&'static str),
}

impl Is {
    fn fits(&self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Empty => text.is_empty(),
            Self::Exactly(whole) => text == *whole,
            Self::Has(part) => text.contains(part),
            Self::Error(message) => text == format!("Error: {message}\n"),
            Self::Usage(message) => {
                text.starts_with(&format!("Error: {message}"))
                    && text.contains("\nUsage: container ")
                    && text.ends_with("--help' for more information.\n")
            }
        }
    }
}

/// One line of the contract: what the reference says, in which section, and what it means for one call.
pub(crate) struct Row(
    pub(crate) &'static str,
    pub(crate) &'static [&'static str],
    pub(crate) i32,
    pub(crate) Is,
    pub(crate) Is,
);

/// Plays the rows in their order; all that are wrong are shown.
pub(crate) fn play(world: &World, rows: &[Row]) {
    let mut wrong = Vec::new();
    for Row(says, arguments, code, stdout, stderr) in rows {
        assert!(says.starts_with(|c: char| c.is_ascii_digit() || c == 'C'), "no section: {says}");
        let output = world.run(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.code() != Some(*code) || !stdout.fits(&out) || !stderr.fits(&err) {
            wrong.push(format!(
                "{says}\n  {arguments:?}\n  wanted {code}, {stdout:?}, {stderr:?}\n  got {:?}\n  {out:?}\n  {err:?}",
                output.status.code()
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}
