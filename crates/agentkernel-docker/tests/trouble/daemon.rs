//! An engine of the test's own, to be frozen, killed and filled. It and all that it starts live in namespaces that end
//! with the test, however that ends; the engine of this machine is never touched.
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use agentkernel_core::{Backend, ImageRef, Reap};
use agentkernel_docker::DockerBackend;
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest, Sha256};

use crate::{guest, image};

/// How long a question may take in these tests.
pub(crate) const ASK: Duration = Duration::from_secs(2);
/// How long an order may take in these tests.
pub(crate) const ORDER: Duration = Duration::from_secs(4);
/// How much later than its deadline an answer may come on a busy machine.
pub(crate) const SLACK: Duration = Duration::from_secs(3);

/// The first process of the namespaces: mounts what the engine writes to, and waits. `/run/containerd` is covered, so
/// that the engine starts a containerd of its own.
const HOLDER: &str = "if [ $3 = true ]; then truncate -s $2 \"$1/disk\" && mkfs.btrfs -q \"$1/disk\" >/dev/null && \
    mount -o loop \"$1/disk\" \"$1/data\"; else mount -t tmpfs -o size=$2 none \"$1/data\"; fi && mkdir -p /run/containerd && \
    mount -t tmpfs none /run/containerd && busybox ip link set lo up && echo ready || exit 1; sleep infinity & wait";

/// How the engine is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub live_restore: bool,
    /// The size of its disk, in MiB.
    pub disk: u32,
    /// Whether that is btrfs, which can limit what a container takes of it; it has to be larger than 114 MiB then.
    pub quota: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { live_restore: false, disk: 256, quota: false }
    }
}

/// A private engine.
pub(crate) struct Daemon {
    dir: tempfile::TempDir,
    options: Options,
    /// The files of TLS on its port, if it has one.
    tls: Option<PathBuf>,
    /// What its containers' cgroups are below of.
    cgroup: String,
    /// Ends the namespaces with itself.
    holder: Child,
    /// The first process of the namespaces, as we see it.
    first: u32,
    engine: Option<Child>,
}

impl Daemon {
    /// Starts one with the image [`image::NAME`]; `None` with a printed reason if it cannot be had and is not required.
    pub(crate) async fn start(options: Options) -> Option<Self> {
        let required = std::env::var("AGENTKERNEL_REQUIRE_BACKENDS")
            .is_ok_and(|names| names.split([',', ' ']).any(|name| name == "docker"));
        if let Some(reason) = missing() {
            assert!(!required, "docker is required: {reason}");
            eprintln!("skipped: {reason}");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("ak-trouble-").tempdir().unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        fs::write(dir.path().join("daemon.json"), "{}").unwrap();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let cgroup = format!("agentkernel-trouble-{}-{number}", std::process::id());
        let mut holder = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"])
            .args(["--mount-proc", "--propagation", "private", "sh", "-c", HOLDER, "holder"])
            .arg(dir.path())
            .arg(format!("{}M", options.disk))
            .arg(options.quota.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let first = child_of(holder.id());
        let mut daemon = Self { dir, options, tls: None, cgroup, holder, first, engine: None };
        assert_eq!(line, "ready\n", "the namespaces cannot be made");
        daemon.run();
        let backend = daemon.backend().await;
        let name: ImageRef = image::NAME.parse().unwrap();
        backend.images().unwrap().import(&mut image::root().as_slice(), &name).await.unwrap();
        Some(daemon)
    }

    /// Starts the engine's program, and waits until it answers.
    pub(crate) fn run(&mut self) {
        assert!(self.engine.is_none(), "it runs already");
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let log = fs::File::options().create(true).append(true).open(path("log")).unwrap();
        let mut command = self.inside("dockerd");
        command
            .args(["--host", &self.endpoint(), "--config-file", &path("daemon.json")])
            .args(["--data-root", &path("data"), "--exec-root", &path("exec"), "--pidfile", &path("pid")])
            .args(["--bridge=none", "--iptables=false", "--ip-forward=false", "--storage-driver"])
            .arg(if self.options.quota { "btrfs" } else { "overlay2" })
            .args(["--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent"])
            .arg(format!("/{}", self.cgroup))
            .arg(format!("--live-restore={}", self.options.live_restore));
        if let Some(files) = &self.tls {
            let file = |name: &str| files.join(name).display().to_string();
            command.args(["--host", "tcp://127.0.0.1:2376", "--tlsverify", "--tlscacert", &file("ca.pem")]);
            command.args(["--tlscert", &file("cert.pem"), "--tlskey", &file("key.pem")]);
        }
        self.engine = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.answers() {
            let ended = self.engine.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "no engine: {ended:?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Lets the next engine listen on port 2376 of its network too, over TLS with the files that are put down.
    #[cfg(feature = "tls")]
    pub(crate) fn speak_tls(&mut self, put: impl FnOnce(&Path)) {
        let files = self.dir.path().join("tls");
        fs::create_dir(&files).unwrap();
        put(&files);
        self.tls = Some(files);
    }

    /// Returns the network that the engine is in.
    #[cfg(feature = "tls")]
    pub(crate) fn network(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.first))
    }

    /// Returns a command that runs in the engine's namespaces.
    pub(crate) fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--mount", "--pid", "--target", &self.first.to_string(), "--", program]);
        command.stdin(Stdio::null());
        command
    }

    /// Connects anew, as another process would.
    pub(crate) async fn backend(&self) -> Arc<DockerBackend> {
        let config = guest::config()
            .with_endpoint(self.endpoint())
            .with_request_timeout(ASK)
            .with_boot_timeout(ORDER)
            .with_transfer_timeout(ORDER);
        DockerBackend::connect(config).await.unwrap()
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("unix://{}", self.dir.path().join("engine.sock").display())
    }

    /// Runs the docker command on this engine, as an independent witness.
    pub(crate) fn docker(&self, args: &[&str]) -> Result<String, String> {
        let output = Command::new("docker").args(["--host", &self.endpoint()]).args(args).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Returns the ids of all containers. Engines that were killed may list what they cannot find when asked for it.
    pub(crate) fn containers(&self) -> Vec<String> {
        let listed = self.docker(&["ps", "--all", "--quiet", "--no-trunc"]).unwrap();
        let is_there = |id: &&str| self.docker(&["container", "inspect", id]).is_ok();
        listed.lines().filter(is_there).map(ToOwned::to_owned).collect()
    }

    /// Stops the engine's process where it stands: it accepts connections, and never answers.
    pub(crate) fn freeze(&self) {
        kill_process(self.pid(), Signal::STOP).unwrap();
    }

    pub(crate) fn thaw(&self) {
        kill_process(self.pid(), Signal::CONT).unwrap();
    }

    /// Kills the engine with SIGKILL; what it started is left alone.
    pub(crate) fn kill(&mut self) {
        kill_process(self.pid(), Signal::KILL).unwrap();
        // Its zombie is gone with this, and the next engine does not take it for alive.
        self.engine.take().unwrap().wait().unwrap();
    }

    /// Fills the engine's disk to the last byte.
    pub(crate) fn fill(&self) {
        let mut file = fs::File::create(self.data("filler")).unwrap();
        let full = (0..).find_map(|_| file.write_all(&[1; 4096]).err()).unwrap();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }

    /// Makes room again.
    pub(crate) fn empty(&self) {
        fs::remove_file(self.data("filler")).unwrap();
    }

    /// Takes what it knows of its containers from an engine that does not run.
    pub(crate) fn forget_containers(&self) {
        fs::remove_dir_all(self.data("containers")).unwrap();
    }

    /// Returns the engine's key, as it names the directory of its sandboxes' sockets.
    pub(crate) fn key(&self) -> String {
        let digest = Sha256::digest(self.endpoint().as_bytes());
        digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Asserts that nothing of ours is left on this engine, and nothing on this machine that leads there.
    pub(crate) async fn assert_nothing_is_left(&self) {
        self.backend().await.reap(Reap::Remove).await.unwrap();
        until("nothing is left", async || self.containers().is_empty()).await;
        self.backend().await.reap(Reap::Remove).await.unwrap();
        let left = self.run_dir().join("names");
        let names = fs::read_dir(left).into_iter().flatten().flatten().map(|entry| entry.file_name());
        assert_eq!(names.collect::<Vec<_>>(), [""; 0]);
    }

    fn run_dir(&self) -> PathBuf {
        Path::new("/run/agentkernel").join(self.key())
    }

    /// The data directory is a mount in the engine's namespace only.
    fn data(&self, name: &str) -> PathBuf {
        let data = self.dir.path().join("data").join(name);
        Path::new("/proc").join(self.first.to_string()).join("root").join(data.strip_prefix("/").unwrap())
    }

    fn pid(&self) -> Pid {
        let engine = self.engine.as_ref().expect("the engine runs");
        Pid::from_raw(i32::try_from(child_of(engine.id())).unwrap()).unwrap()
    }

    fn answers(&self) -> bool {
        let ask = || {
            let mut stream = UnixStream::connect(self.dir.path().join("engine.sock"))?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(b"GET /_ping HTTP/1.0\r\n\r\n")?;
            let mut answer = [0; 12];
            stream.read_exact(&mut answer)?;
            Ok::<_, std::io::Error>(answer.ends_with(b" 200"))
        };
        ask().unwrap_or(false)
    }

    fn log(&self) -> String {
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        log.lines().rev().take(20).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the engine's log ends with:\n{}", self.log());
        }
        // Its child is the first process of the pid namespace, and everything there ends with that.
        let _dead = self.holder.kill();
        let _reaped = self.holder.wait();
        self.engine.take().into_iter().for_each(end);
        // What is paused dies only when it goes on (cgroup v1).
        let freezer = Path::new("/sys/fs/cgroup/freezer").join(&self.cgroup);
        for paused in fs::read_dir(freezer).into_iter().flatten().flatten() {
            let _goes_on = fs::write(paused.path().join("freezer.state"), "THAWED");
        }
        let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        for hierarchy in hierarchies.map(|entry| entry.path()).chain([PathBuf::from("/sys/fs/cgroup")]) {
            remove_cgroups(&hierarchy.join(&self.cgroup));
        }
        let _gone = fs::remove_dir_all(self.run_dir());
    }
}

/// Ends a program that was started inside: `nsenter` stops itself with it, and would not wake for its end.
pub(crate) fn end(mut nsenter: Child) {
    let _dead = nsenter.kill();
    let _reaped = nsenter.wait();
}

/// Removes cgroups once they are empty.
fn remove_cgroups(path: &Path) {
    let deadline = Instant::now() + Duration::from_secs(3);
    while path.is_dir() {
        for child in fs::read_dir(path).into_iter().flatten().flatten() {
            let _gone = fs::remove_dir(child.path());
        }
        if fs::remove_dir(path).is_ok() || Instant::now() >= deadline {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Says what is missing for a private engine.
fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("a private engine needs root".to_owned());
    }
    let needed = [
        ("dockerd", "docker.io"),
        ("docker", "docker.io"),
        ("nsenter", "util-linux"),
        ("setpriv", "util-linux"),
        ("busybox", "busybox-static"),
        ("mkfs.btrfs", "btrfs-progs"),
    ];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let absent =
        |program: &str| !std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    let (program, package) = needed.into_iter().find(|(program, _)| absent(program))?;
    Some(format!("{program} is not installed (apt-get install {package})"))
}

/// Returns the only child of a process that waits for it.
fn child_of(parent: u32) -> u32 {
    let children = format!("/proc/{parent}/task/{parent}/children");
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let child = fs::read_to_string(&children).ok().and_then(|children| children.trim().parse().ok());
        if let Some(child) = child {
            return child;
        }
        assert!(Instant::now() < deadline, "{parent} has no child");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until a condition holds, at most 20 s.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
