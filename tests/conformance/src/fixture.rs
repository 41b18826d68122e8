//! What a trial is given: the backend, names of its own, and shorthands for what most trials do.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a trial fails by a panic")]
use std::{
    process,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use agentkernel_core::{
    Backend, Bytes, Capabilities, Capability, Cpus, Error, ErrorKind, ExecEvent, ExecOptions, ExecOutput,
    ExecSession, ExecSpec, ExitStatus, Network, Sandbox, SandboxConfig, SandboxExt, SandboxName, SandboxPath,
};
use tokio::io::AsyncReadExt;

use crate::kit::Subject;

/// What a trial is given. Every name that it takes from here is removed after it.
#[derive(Debug, Clone)]
pub(crate) struct Fixture {
    subject: Subject,
    names: Arc<Mutex<Vec<SandboxName>>>,
}

impl Fixture {
    pub(crate) fn new(subject: Subject) -> Self {
        Self { subject, names: Arc::default() }
    }

    pub(crate) fn backend(&self) -> &Arc<dyn Backend> {
        &self.subject.backend
    }

    pub(crate) fn claims(&self, capability: Capability) -> bool {
        self.subject.capabilities().has(capability)
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        self.subject.capabilities()
    }

    /// Returns a name that no other trial, process or run has.
    pub(crate) fn name(&self) -> SandboxName {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (run, next) = (process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let now =
            SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() % 0x1_0000_0000;
        self.registered(&format!("conf-{run:x}-{now:x}-{next:x}"))
    }

    /// Returns this name, to be removed after the trial.
    pub(crate) fn registered(&self, name: &str) -> SandboxName {
        let name: SandboxName = name.parse().expect("the kit's names are well formed");
        self.names.lock().unwrap().push(name.clone());
        name
    }

    pub(crate) fn names(&self) -> Vec<SandboxName> {
        self.names.lock().unwrap().clone()
    }

    /// Returns the program of the intruder.
    pub(crate) fn intruder(&self) -> Vec<u8> {
        let program = self.subject.intruder.as_ref().expect("without it, the trial is skipped");
        std::fs::read(program).expect("the intruder can be read")
    }

    /// Returns this much memory in MiB, or what the backend can limit to at least.
    pub(crate) fn memory_mb(&self, wanted: u64) -> u64 {
        wanted.max(self.subject.least.memory_mb)
    }

    /// Returns this share of processors, or what the backend can limit to at least.
    pub(crate) fn vcpus(&self, milli: u32) -> Cpus {
        Cpus::from_milli(milli.max(self.subject.least.vcpus)).expect("a backend can limit to something")
    }

    /// Returns the least config: the image, no network where the backend can.
    pub(crate) fn config(&self) -> SandboxConfig {
        let mut config = self.subject.config.clone();
        if config.network.is_none() && !self.claims(Capability::NetworkNone) {
            config.network = Some(Network::Full);
        }
        config
    }

    /// Starts a sandbox with the least config.
    pub(crate) async fn start(&self) -> Arc<dyn Sandbox> {
        self.start_with(&self.config()).await
    }

    /// Starts a sandbox.
    pub(crate) async fn start_with(&self, config: &SandboxConfig) -> Arc<dyn Sandbox> {
        let sandbox = self.backend().sandbox(self.name());
        sandbox.start(config).await.expect("the sandbox starts");
        sandbox
    }

    /// Returns whether a sandbox of this name is listed.
    pub(crate) async fn is_listed(&self, name: &SandboxName) -> bool {
        let listed = self.backend().list(&Default::default()).await.expect("sandboxes can be listed");
        listed.iter().any(|info| info.name == *name)
    }
}

/// Returns a checked command.
pub(crate) fn command<A: AsRef<[u8]>>(argv: &[A]) -> ExecSpec {
    command_with(argv, ExecOptions::default())
}

/// Returns a checked command with options.
pub(crate) fn command_with<A: AsRef<[u8]>>(argv: &[A], options: ExecOptions) -> ExecSpec {
    ExecSpec::new(argv.iter().map(AsRef::as_ref), options).expect("the kit's commands are well formed")
}

/// Returns a checked `sh -c` command.
pub(crate) fn script(text: &str) -> ExecSpec {
    command(&["sh", "-c", text])
}

/// Returns a checked `sh -c` command with options.
pub(crate) fn script_with(text: &str, options: ExecOptions) -> ExecSpec {
    command_with(&["sh", "-c", text], options)
}

/// Runs a command to its end.
pub(crate) async fn output(sandbox: &Arc<dyn Sandbox>, spec: &ExecSpec) -> ExecOutput {
    let session = sandbox.spawn(spec).await.expect("the command starts");
    session.collect().await.expect("the command's end is known")
}

/// Runs a script to its end and returns its stdout; the script must succeed.
pub(crate) async fn sh(sandbox: &Arc<dyn Sandbox>, text: &str) -> String {
    let output = output(sandbox, &script(text)).await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status, ExitStatus::Code(0), "script {text:?}, stderr {stderr:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Returns the kind of the error that starting the command gives.
pub(crate) async fn refusal(sandbox: &Arc<dyn Sandbox>, spec: &ExecSpec) -> ErrorKind {
    sandbox.spawn(spec).await.expect_err("the command was accepted, not refused").kind()
}

/// Reads events until stdout has `text`, and returns what stdout has by then.
pub(crate) async fn read_until(session: &mut ExecSession, text: &str) -> Vec<u8> {
    let mut seen = Vec::new();
    while !contains(&seen, text) {
        match session.next_event().await.expect("the session goes on").expect("the stream is whole") {
            ExecEvent::Stdout(bytes) => seen.extend_from_slice(&bytes),
            ExecEvent::Stderr(_) => {}
            other => unreachable_end(&seen, text, &other),
        }
    }
    seen
}

#[expect(clippy::panic, reason = "a trial fails by a panic")]
fn unreachable_end(seen: &[u8], text: &str, event: &ExecEvent) -> ! {
    panic!("{event:?} before {text:?}; stdout so far {:?}", String::from_utf8_lossy(seen));
}

/// Returns whether the bytes have the text in them.
pub(crate) fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Reads events to the end and returns how the command ended.
pub(crate) async fn end(mut session: ExecSession) -> ExitStatus {
    drop(session.take_stdin());
    session.collect().await.expect("the command's end is known").status
}

/// Returns a checked path.
pub(crate) fn path(bytes: impl AsRef<[u8]>) -> SandboxPath {
    SandboxPath::new(bytes).expect("the kit's paths are well formed")
}

/// Reads a file to its end.
pub(crate) async fn content(sandbox: &Arc<dyn Sandbox>, at: impl AsRef<[u8]>) -> Result<Vec<u8>, Error> {
    let mut content = Vec::new();
    sandbox.open(&path(at)).await?.read_to_end(&mut content).await?;
    Ok(content)
}

/// Returns bytes that repeat only after 251 of them, so that a lost or doubled block shows.
pub(crate) fn pattern(length: usize) -> Bytes {
    (0..=250u8).cycle().take(length).collect::<Vec<_>>().into()
}

/// Returns the kind of an error, `None` of a success.
pub(crate) fn kind<T>(result: Result<T, Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}
