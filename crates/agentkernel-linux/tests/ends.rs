//! What is left when sandboxes end, by whatever way: nothing.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test says so by failing")]
#[path = "support/program.rs"]
mod program;

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use agentkernel_core::{Backend, Lifetime, Reap, SandboxConfig, SandboxExt};
use agentkernel_linux::{LinuxBackend, LinuxConfig};

/// Where the owner that is to be killed keeps its sandbox.
const OWNER: &str = "AGENTKERNEL_TEST_OWNER";

async fn backend(data: &Path) -> Arc<dyn Backend> {
    let config =
        LinuxConfig::default().with_guest(program::built().join("agentkernel-guest")).with_data(data);
    LinuxBackend::connect(config).await.unwrap()
}

/// Returns a config with every limit that this user can have, so that its control groups are there to be left.
async fn limited(backend: &Arc<dyn Backend>) -> SandboxConfig {
    let mut config = SandboxConfig::default();
    let capabilities = backend.health().await.unwrap().capabilities;
    config.pids = capabilities.has(agentkernel_core::Capability::PidsLimit).then_some(64);
    config.memory_mb = capabilities.has(agentkernel_core::Capability::MemoryLimit).then_some(64);
    config
}

/// Returns what is kept of sandboxes.
fn kept(data: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data.join("sandboxes")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// Returns the ids of the sandboxes, by which their control groups are called.
async fn ids(backend: &Arc<dyn Backend>) -> Vec<String> {
    backend.list(&Default::default()).await.unwrap().into_iter().map(|info| info.id).collect()
}

fn has_cgroup(id: &str) -> bool {
    let all = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    all.into_iter().any(|group| group.path().join("agentkernel").join(id).exists())
}

/// The process of the sandbox that runs, and those that it has started.
fn processes(data: &Path) -> Vec<u32> {
    let lock = kept(data).into_iter().find_map(|path| fs::read_to_string(path.join("lock")).ok());
    let helper = lock.unwrap_or_default().trim().parse::<u32>().unwrap_or(0);
    let children = fs::read_to_string(format!("/proc/{helper}/task/{helper}/children")).unwrap_or_default();
    let mut all = vec![helper];
    all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    all
}

fn is_there(pid: u32) -> bool {
    // One that is dead and not yet waited for has no program.
    fs::read_link(format!("/proc/{pid}/exe")).is_ok()
}

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Starts this test again as an owner, and returns once its sandbox runs or after a pause.
fn owner(data: &Path, pause: Option<Duration>) -> Child {
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_owner_that_is_killed", "--ignored", "--nocapture"])
        .env(OWNER, data)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    match pause {
        Some(pause) => std::thread::sleep(pause),
        None => {
            let output = BufReader::new(owner.stdout.take().unwrap());
            assert!(output.lines().map_while(Result::ok).any(|line| line.contains("it runs")));
        }
    }
    owner
}

#[tokio::test]
#[ignore = "not a test: the other ones start it"]
async fn the_owner_that_is_killed() {
    let Some(data) = std::env::var_os(OWNER) else { return };
    let backend = backend(Path::new(&data)).await;
    let sandbox = backend.sandbox(format!("owned-{}", std::process::id()).parse().unwrap());
    sandbox.start(&limited(&backend).await).await.unwrap();
    let _session = sandbox.exec(&["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 &"]).await.unwrap();
    println!("it runs");
    tokio::time::sleep(Duration::from_secs(100)).await;
}

#[tokio::test]
async fn a_sandbox_ends_with_its_killed_owner_and_leaves_nothing() {
    let data = tempfile::tempdir().unwrap();
    let backend = backend(data.path()).await;
    let mut owner = owner(data.path(), None);
    let (ids, processes) = (ids(&backend).await, processes(data.path()));
    assert_eq!((ids.len(), processes.len()), (1, 2));
    owner.kill().unwrap();
    let killed = Instant::now();
    eventually("its processes are gone", || !processes.iter().any(|pid| is_there(*pid))).await;
    let took = killed.elapsed();
    owner.wait().unwrap();
    eventually("its directory is gone", || kept(data.path()).is_empty()).await;
    assert!(!has_cgroup(&ids[0]), "its control groups are left");
    assert!(took < Duration::from_millis(500), "it took {took:?}");
}

#[tokio::test]
async fn owners_killed_at_any_moment_leave_nothing_after_a_reap() {
    let data = tempfile::tempdir().unwrap();
    let backend = backend(data.path()).await;
    let mut seed = 0x2545_f491u64;
    for _ in 0..20 {
        // Xorshift: the same moments in every run.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let mut owner = owner(data.path(), Some(Duration::from_micros(seed % 80_000)));
        let ids = ids(&backend).await;
        owner.kill().unwrap();
        owner.wait().unwrap();
        // What was under way ends by itself; what never was booted, by the next reap.
        let deadline = Instant::now() + Duration::from_secs(10);
        while !kept(data.path()).is_empty() {
            backend.reap(Reap::Remove).await.unwrap();
            assert!(Instant::now() < deadline, "this is left: {:?}", kept(data.path()));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(!ids.iter().any(|id| has_cgroup(id)), "control groups are left");
    }
}

#[tokio::test]
async fn a_sandbox_ends_with_its_helper() {
    let data = tempfile::tempdir().unwrap();
    let backend = backend(data.path()).await;
    let sandbox = backend.sandbox("headless".parse().unwrap());
    let mut config = limited(&backend).await;
    config.lifetime = Lifetime::Detached;
    sandbox.start(&config).await.unwrap();
    let (ids, processes) = (ids(&backend).await, processes(data.path()));
    let killed = Command::new("kill").args(["-9", &processes[0].to_string()]).status().unwrap();
    assert!(killed.success());
    eventually("its processes are gone", || !processes.iter().any(|pid| is_there(*pid))).await;
    assert!(!sandbox.is_running().await.unwrap());
    sandbox.remove().await.unwrap();
    assert!(kept(data.path()).is_empty() && !has_cgroup(&ids[0]));
}

#[tokio::test]
async fn many_sandboxes_leave_the_mounts_as_they_were() {
    let data = tempfile::tempdir().unwrap();
    let backend = backend(data.path()).await;
    let mounts = || {
        fs::read_to_string("/proc/self/mountinfo")
            .unwrap()
            .lines()
            .filter(|line| line.contains("agentkernel"))
            .count()
    };
    let (before, config) = (mounts(), limited(&backend).await);
    for round in 0..20 {
        let sandbox = backend.sandbox(format!("cycle-{round}").parse().unwrap());
        sandbox.start(&config).await.unwrap();
        assert!(sandbox.exec(&["true"]).await.unwrap().is_success());
        sandbox.stop().await.unwrap();
    }
    eventually("every directory is gone", || kept(data.path()).is_empty()).await;
    assert_eq!(mounts(), before);
}
