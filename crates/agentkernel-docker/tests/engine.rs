//! What only the real engine shows: identity, ownership, and extremes.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test says so by failing"
)]
#[path = "support/docker_command.rs"]
mod docker_command;
#[path = "support/guest.rs"]
mod guest;
#[path = "support/real.rs"]
mod real;

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use agentkernel_core::{
    Backend, ErrorKind, ExecEvent, ExecOptions, ExecSpec, Filter, Lifetime, LogOptions, Mount, Network, Reap,
    SandboxConfig, SandboxExt, State, Tmpfs, Volume,
};
use agentkernel_docker::DockerBackend;
use docker_command::docker;
use futures_util::StreamExt;
use real::{engine, name, sandbox};

/// Waits until a condition holds, at most 10 s.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn containers(name: &str) -> String {
    docker(&["ps", "-aq", "--no-trunc", "--filter", &format!("name=^/agentkernel-{name}$")]).unwrap()
}

#[tokio::test]
async fn a_sandbox_runs_commands_and_leaves_nothing() {
    let Some(backend) = engine().await else { return };
    let sandbox_name = name("first");
    let one = backend.sandbox(sandbox_name.clone());
    one.start(&sandbox()).await.unwrap();
    let result =
        one.exec(&["sh", "-c", "hostname; cat /etc/hosts; ls /sys/class/net; exit 42"]).await.unwrap();
    assert_eq!(result.exit_code, 42);
    assert!(result.stdout.starts_with(&*sandbox_name) && result.stdout.ends_with("\nlo\n"), "{result:?}");
    assert!(one.is_running().await.unwrap());
    one.stop().await.unwrap();
    assert_eq!(containers(&sandbox_name), "");
    assert!(!one.is_running().await.unwrap());
}

#[tokio::test]
async fn of_concurrent_creates_of_one_name_one_wins() {
    let Some(backend) = engine().await else { return };
    let sandbox_name = name("race");
    let all = (0..4).map(|_| backend.sandbox(sandbox_name.clone())).collect::<Vec<_>>();
    let config = sandbox();
    let results = futures_util::future::join_all(all.iter().map(|one| one.start(&config))).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
    for lost in results.iter().filter_map(|result| result.as_ref().err()) {
        assert_eq!(lost.kind(), ErrorKind::AlreadyExists, "{lost:?}");
    }
    assert_eq!(containers(&sandbox_name).lines().count(), 1);
    // The losers are references: they reach the winner's sandbox, and dropping them ends nothing.
    let winner = results.iter().position(Result::is_ok).unwrap();
    for (index, one) in all.into_iter().enumerate() {
        if index == winner {
            one.stop().await.unwrap();
        } else {
            drop(one);
        }
    }
    assert_eq!(containers(&sandbox_name), "");
}

#[tokio::test]
async fn a_foreign_container_of_our_name_is_never_touched() {
    let Some(backend) = engine().await else { return };
    let sandbox_name = name("foreign");
    let full = format!("agentkernel-{sandbox_name}");
    let id = docker(&["run", "-d", "--name", &full, "--network=none", real::IMAGE, "sleep", "1000"]).unwrap();
    let one = backend.sandbox(sandbox_name.clone());
    let error = one.start(&sandbox()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    assert!(
        error.context().iter().any(|(key, value)| *key == "container" && id.starts_with(value)),
        "{error:?}"
    );
    assert_eq!(one.inspect().await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(one.exec(&["true"]).await.unwrap_err().kind(), ErrorKind::NotFound);
    one.remove().await.unwrap();
    let listed = backend.list(&Filter::default()).await.unwrap();
    assert!(listed.iter().all(|info| info.id != id));
    backend.reap(Reap::Remove).await.unwrap();
    assert_eq!(containers(&sandbox_name), id);
    docker(&["rm", "-f", &id]).unwrap();
}

#[tokio::test]
async fn list_is_exact() {
    let Some(backend) = engine().await else { return };
    let short = name("list");
    let long = format!("{short}2").parse().unwrap();
    let mut config = sandbox();
    config.lifetime = Lifetime::Detached;
    config.labels.insert("test".into(), short.to_string());
    let (stopped, running) = (backend.sandbox(short.clone()), backend.sandbox(long));
    stopped.start(&config).await.unwrap();
    running.start(&config).await.unwrap();
    stopped.halt(Duration::ZERO).await.unwrap();
    let filter = Filter { labels: config.labels.clone(), running: false };
    let all = backend.list(&filter).await.unwrap();
    let states = all.iter().map(|info| (info.name.to_string(), info.state)).collect::<Vec<_>>();
    assert_eq!(states, [(short.to_string(), State::Stopped), (format!("{short}2"), State::Running)]);
    let only_running = backend.list(&Filter { running: true, ..filter.clone() }).await.unwrap();
    assert_eq!(only_running.len(), 1);
    assert!(!stopped.is_running().await.unwrap() && running.is_running().await.unwrap());
    for one in [stopped, running] {
        one.remove().await.unwrap();
    }
    assert!(backend.list(&filter).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_detached_sandbox_is_reached_again_and_starts_again() {
    let Some(backend) = engine().await else { return };
    let sandbox_name = name("again");
    let mut config = sandbox();
    config.lifetime = Lifetime::Detached;
    config.env.insert("A".into(), "1".into());
    config.user = Some("1000:1000".into());
    backend.sandbox(sandbox_name.clone()).start(&config).await.unwrap();
    let other = DockerBackend::connect(guest::config()).await.unwrap();
    let one = other.sandbox(sandbox_name.clone());
    one.write_file("/home/user/kept", b"kept").await.unwrap();
    one.halt(Duration::from_secs(1)).await.unwrap();
    one.halt(Duration::from_secs(1)).await.unwrap();
    assert_eq!(one.exec(&["true"]).await.unwrap_err().kind(), ErrorKind::NotRunning);
    one.boot().await.unwrap();
    one.boot().await.unwrap();
    let result = one.exec(&["sh", "-c", "cat /home/user/kept; echo $A; id -u"]).await.unwrap();
    assert_eq!(result.stdout, "kept1\n1000\n");
    one.remove().await.unwrap();
    one.remove().await.unwrap();
    assert_eq!(one.exec(&["true"]).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_handle_never_touches_a_namesake_made_later() {
    let Some(backend) = engine().await else { return };
    let sandbox_name = name("namesake");
    let mut config = sandbox();
    config.lifetime = Lifetime::Detached;
    let first = backend.sandbox(sandbox_name.clone());
    first.start(&config).await.unwrap();
    let old = backend.sandbox(sandbox_name.clone());
    old.exec(&["true"]).await.unwrap();
    backend.sandbox(sandbox_name.clone()).remove().await.unwrap();
    let second = backend.sandbox(sandbox_name.clone());
    second.start(&config).await.unwrap();
    for stale in [&first, &old] {
        assert_eq!(stale.exec(&["true"]).await.unwrap_err().kind(), ErrorKind::NotFound);
        stale.remove().await.unwrap();
    }
    assert_eq!(second.exec(&["true"]).await.unwrap().exit_code, 0);
    second.remove().await.unwrap();
}

#[tokio::test]
async fn dropping_the_owner_ends_the_sandbox() {
    let Some(backend) = engine().await else { return };
    let (booted, created) = (name("drop"), name("drop"));
    let one = backend.sandbox(booted.clone());
    one.start(&sandbox()).await.unwrap();
    let never_booted = backend.sandbox(created.clone());
    let spec = sandbox().resolve(never_booted.capabilities().await.unwrap(), never_booted.host()).unwrap();
    never_booted.create(&spec).await.unwrap();
    assert!(!containers(&booted).is_empty() && !containers(&created).is_empty());
    let begin = Instant::now();
    drop(one);
    drop(never_booted);
    assert!(begin.elapsed() < Duration::from_millis(20), "{:?}", begin.elapsed());
    until("both are gone", async || containers(&booted).is_empty() && containers(&created).is_empty()).await;
}

#[tokio::test]
async fn a_create_that_nobody_waits_for_leaves_nothing() {
    let Some(backend) = engine().await else { return };
    let sandbox_name = name("abandon");
    let config = sandbox();
    for patience in [1, 5, 15, 30] {
        let one = backend.sandbox(sandbox_name.clone());
        let _abandoned = tokio::time::timeout(Duration::from_millis(patience), one.start(&config)).await;
        drop(one);
    }
    // Nothing of it keeps the name, sooner or later.
    let last = backend.sandbox(sandbox_name.clone());
    until("the name is free", async || last.start(&config).await.is_ok()).await;
    last.stop().await.unwrap();
    assert_eq!(containers(&sandbox_name), "");
}

/// The owner is this test program in another process: it makes a sandbox, says so, and waits to be killed.
#[tokio::test]
async fn killing_the_owner_ends_its_sandbox() {
    const ROLE: &str = "AGENTKERNEL_TEST_OWNER";
    if let Some(owned) = std::env::var_os(ROLE) {
        let backend = DockerBackend::connect(guest::config()).await.unwrap();
        let one = backend.sandbox(owned.to_str().unwrap().parse().unwrap());
        one.start(&sandbox()).await.unwrap();
        println!("ready");
        std::future::pending::<()>().await;
    }
    let Some(backend) = engine().await else { return };
    let sandbox_name = name("owned");
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killing_the_owner_ends_its_sandbox", "--nocapture"])
        .env(ROLE, &*sandbox_name)
        .env("AGENTKERNEL_GUEST", guest::guest())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let other = backend.sandbox(sandbox_name.clone());
    until("it runs", async || other.is_running().await.unwrap_or(false)).await;
    until("it answers", async || other.exec(&["true"]).await.is_ok()).await;
    let pid = docker(&["inspect", "-f", "{{.State.Pid}}", &containers(&sandbox_name)]).unwrap();
    owner.kill().unwrap();
    let begin = Instant::now();
    let process = format!("/proc/{pid}");
    until("its process is gone", async || !std::path::Path::new(&process).exists()).await;
    let dead = begin.elapsed();
    until("its container is gone", async || containers(&sandbox_name).is_empty()).await;
    println!("process gone after {dead:?}, container after {:?}", begin.elapsed());
    owner.wait().unwrap();
    assert!(dead < Duration::from_secs(1), "{dead:?}");
    // What is left on this machine goes with the next reaping.
    backend.reap(Reap::Remove).await.unwrap();
}

#[tokio::test]
async fn an_image_without_any_file_works_at_the_smallest_size_as_any_user() {
    let Some(backend) = engine().await else { return };
    let mut config = SandboxConfig::new("agentkernel-empty");
    config.memory_mb = Some(8);
    config.pids = Some(16);
    config.read_only = Some(true);
    config.user = Some("12345:54321".into());
    let one = backend.sandbox(name("empty"));
    one.start(&config).await.unwrap();
    let error = one.exec(&["sh"]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CommandNotFound, "{error:?}");
    one.write_file("/tmp/x", b"\x00\xff").await.unwrap();
    assert_eq!(one.read_file("/tmp/x").await.unwrap(), b"\x00\xff");
    let metadata = one.metadata(&"/tmp/x".parse().unwrap()).await.unwrap();
    assert_eq!((metadata.uid, metadata.gid), (12345, 54321));
    assert!(one.write_file("/x", b"").await.is_err());
    one.stop().await.unwrap();
}

#[tokio::test]
async fn restrictions_hold_inside_and_are_told() {
    let Some(backend) = engine().await else { return };
    let mut config = sandbox();
    config.memory_mb = Some(64);
    config.pids = Some(32);
    config.open_files = Some(100);
    config.read_only = Some(true);
    config.vcpus = Some("0.5".parse().unwrap());
    config.tmpfs = vec![Tmpfs { target: "/scratch".into(), size_mb: 1 }];
    let one = backend.sandbox(name("limits"));
    one.start(&config).await.unwrap();
    let script = "ulimit -n; ulimit -c; grep -E '^(CapEff|CapPrm|NoNewPrivs|Seccomp):' /proc/self/status; touch /x; \
        dd if=/dev/zero of=/scratch/x bs=1M count=2 2>/dev/null; stat -c %s /scratch/x; touch /tmp/a /run/b && echo ok";
    let result = one.exec(&["sh", "-c", script]).await.unwrap();
    let words = result.stdout.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    let none = "0000000000000000";
    let expected = format!("100 0 CapPrm: {none} CapEff: {none} NoNewPrivs: 1 Seccomp: 2 1048576 ok");
    assert_eq!(words, expected, "{result:?}");
    let info = one.inspect().await.unwrap();
    assert!(
        info.restrictions.iter().all(|one| one.asked.is_empty() || !one.configured.is_empty()),
        "{info:?}"
    );
    one.stop().await.unwrap();
}

#[tokio::test]
async fn mounts_and_volumes_are_shown_inside() {
    let Some(backend) = engine().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let odd = dir.path().join("a:b,c");
    std::fs::create_dir(&odd).unwrap();
    std::fs::write(odd.join("f"), "host").unwrap();
    let volume: agentkernel_core::VolumeName = format!("test-{}", std::process::id()).parse().unwrap();
    let mut config = sandbox();
    config.mounts = vec![Mount { source: odd.clone(), target: "/in".into(), read_only: true }];
    config.volumes = vec![Volume { name: volume.clone(), target: "/vol".into(), read_only: false }];
    let one = backend.sandbox(name("mounts"));
    one.start(&config).await.unwrap();
    let result =
        one.exec(&["sh", "-c", "cat /in/f; touch /in/x || echo refused; echo kept > /vol/k"]).await.unwrap();
    assert_eq!(result.stdout, "hostrefused\n", "{result:?}");
    one.stop().await.unwrap();
    let volumes = backend.volumes().unwrap();
    assert!(volumes.list().await.unwrap().iter().any(|info| info.name == volume));
    config.mounts.clear();
    let two = backend.sandbox(name("mounts"));
    two.start(&config).await.unwrap();
    assert_eq!(two.exec(&["cat", "/vol/k"]).await.unwrap().stdout, "kept\n");
    assert_eq!(volumes.remove(&volume).await.unwrap_err().kind(), ErrorKind::Conflict);
    two.stop().await.unwrap();
    volumes.remove(&volume).await.unwrap();
    assert_eq!(volumes.remove(&volume).await.unwrap_err().kind(), ErrorKind::NotFound);
    let missing = dir.path().join("missing");
    config.mounts = vec![Mount { source: missing.clone(), target: "/in".into(), read_only: true }];
    config.volumes.clear();
    let error = backend.sandbox(name("mounts")).start(&config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    assert!(!missing.exists());
}

#[tokio::test]
async fn a_network_is_there_when_asked_for() {
    let Some(backend) = engine().await else { return };
    let mut config = sandbox();
    config.network = Some(Network::Full);
    let one = backend.sandbox(name("net"));
    one.start(&config).await.unwrap();
    let result = one.exec(&["ls", "/sys/class/net"]).await.unwrap();
    assert_eq!(result.stdout, "eth0\nlo\n");
    assert!(one.inspect().await.unwrap().address.is_some());
    one.stop().await.unwrap();
}

#[tokio::test]
async fn a_paused_sandbox_says_so() {
    let Some(backend) = engine().await else { return };
    let sandbox_name = name("paused");
    let one = backend.sandbox(sandbox_name.clone());
    one.start(&sandbox()).await.unwrap();
    let id = containers(&sandbox_name);
    docker(&["pause", &id]).unwrap();
    let error = backend.sandbox(sandbox_name.clone()).exec(&["true"]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    assert!(error.hint().unwrap().contains("docker unpause"), "{error:?}");
    assert_eq!(one.inspect().await.unwrap().state, State::Paused);
    one.stop().await.unwrap();
    assert_eq!(containers(&sandbox_name), "");
}

#[tokio::test]
async fn the_output_of_a_detached_main_command_is_kept() {
    let Some(backend) = engine().await else { return };
    let mut config = sandbox();
    config.lifetime = Lifetime::Detached;
    let one = backend.sandbox(name("logs"));
    one.start(&config).await.unwrap();
    let script = "echo out; echo err >&2; exit 3";
    let spec = ExecSpec::new(["sh", "-c", script], ExecOptions::default()).unwrap().main().detached();
    drop(one.spawn(&spec).await.unwrap());
    until("it ends", async || !one.is_running().await.unwrap()).await;
    let events = one.logs(&LogOptions::default()).await.unwrap().collect::<Vec<_>>().await;
    let mut events = events.into_iter().map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!(events.pop(), Some(ExecEvent::Exited(agentkernel_core::ExitStatus::Code(3))));
    assert!(
        events.contains(&ExecEvent::Stdout("out\n".into()))
            && events.contains(&ExecEvent::Stderr("err\n".into()))
    );
    assert_eq!(one.inspect().await.unwrap().exit_code, Some(3));
    one.remove().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_sandboxes_at_once_are_all_correct_and_leave_nothing() {
    let Some(backend) = engine().await else { return };
    let prefix = format!("many-{}", std::process::id());
    let run = async |number: usize| {
        let one = backend.sandbox(format!("{prefix}-{number}").parse().unwrap());
        let script = format!("echo {number}; hostname; exit {number}");
        let command = ExecSpec::new(["sh", "-c", &script], ExecOptions::default()).unwrap();
        let output = one.run(&sandbox(), command).await?.collect().await?;
        assert_eq!(output.stdout, format!("{number}\n{prefix}-{number}\n"));
        assert_eq!(output.status.code(), i32::try_from(number).unwrap());
        one.remove().await
    };
    let results = futures_util::future::join_all((0..50).map(run)).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let left = docker(&["ps", "-aq", "--filter", &format!("name={prefix}")]).unwrap();
    assert_eq!(left, "");
}
