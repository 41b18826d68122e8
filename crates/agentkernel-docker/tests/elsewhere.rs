//! An engine behind tcp: what only holds, or only can go wrong, where it shares no kernel with us.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test says so by failing"
)]
#[path = "support/front.rs"]
mod front;
#[path = "support/guest.rs"]
mod guest;

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use agentkernel_core::{
    Backend, Capability, ErrorKind, ExecEvent, ExecOptions, ExecSpec, Lifetime, Mount, Sandbox,
    SandboxConfig, SandboxExt, SandboxName, State, WriteOptions,
};
use agentkernel_docker::{DockerBackend, EngineKind};

/// What another process of this test program is to do, with its sandbox and the engine's address.
const ROLE: &str = "AGENTKERNEL_TEST_ROLE";
const NAME: &str = "AGENTKERNEL_TEST_NAME";
const ADDRESS: &str = "AGENTKERNEL_TEST_ADDRESS";

/// Each rule, on Docker and on Podman.
macro_rules! on_both {
    ($($rule:ident)*) => {
        mod docker {
            $(#[tokio::test]
            async fn $rule() {
                super::$rule(super::EngineKind::Docker).await;
            })*
        }
        mod podman {
            $(#[tokio::test]
            async fn $rule() {
                super::$rule(super::EngineKind::Podman).await;
            })*
        }
    };
}

on_both! {
    a_client_that_is_killed_takes_its_commands_along_and_disturbs_no_other
    an_owned_sandbox_is_gone_when_its_owner_is_killed_and_its_clients_with_it
    the_owners_connection_is_no_lease_and_the_drop_of_the_owner_ends_it
    a_detached_sandbox_outlives_its_maker_and_can_be_started_again
    a_path_of_this_machine_is_refused_by_its_field
    the_volume_of_the_guest_is_read_only_inside_and_no_volume_of_the_callers
    without_the_key_nobody_gets_in_and_it_is_in_nothing_that_is_shown
    a_command_that_knocks_gets_nothing_and_holds_up_nobody
    a_command_that_would_hang_the_engine_at_the_next_client_is_told
}

async fn connect(address: &str) -> Arc<DockerBackend> {
    DockerBackend::connect(guest::config().with_endpoint(address)).await.unwrap()
}

/// The engine, behind tcp; `None` with a printed reason if there is none and none is required.
async fn elsewhere(kind: EngineKind) -> Option<(Arc<DockerBackend>, String)> {
    let required = std::env::var("AGENTKERNEL_REQUIRE_BACKENDS")
        .is_ok_and(|names| names.split(',').any(|name| name.trim() == command(kind)));
    let reached = async { DockerBackend::connect(guest::config().with_kind(kind)).await?.health().await };
    if let Err(error) = reached.await {
        assert!(!required, "{kind:?} is required: {error:?}");
        eprintln!("skipped: {error}");
        return None;
    }
    let address = front::front(kind);
    Some((connect(&address).await, address))
}

fn command(kind: EngineKind) -> &'static str {
    match kind {
        EngineKind::Podman => "podman",
        _ => "docker",
    }
}

fn name(prefix: &str) -> SandboxName {
    format!("{prefix}-{}", std::process::id()).parse().unwrap()
}

fn sandbox() -> SandboxConfig {
    SandboxConfig::new("agentkernel-test")
}

fn detached() -> SandboxConfig {
    let mut config = sandbox();
    config.lifetime = Lifetime::Detached;
    config
}

/// Starts this test again in a process of its own, and waits until it says `ready`.
fn another(role: &str, one: &SandboxName, address: &str) -> std::process::Child {
    let thread = std::thread::current();
    let test = thread.name().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ROLE, role)
        .env(NAME, &**one)
        .env(ADDRESS, address)
        .env("AGENTKERNEL_GUEST", guest::guest())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.ends_with("ready")), "{role} does not get ready");
    child
}

/// What this process is to do, if it is another one.
async fn role() -> Option<(String, Arc<dyn Sandbox>)> {
    let role = std::env::var(ROLE).ok()?;
    let backend = connect(&std::env::var(ADDRESS).unwrap()).await;
    Some((role, backend.sandbox(std::env::var(NAME).unwrap().parse().unwrap())))
}

#[expect(clippy::print_stdout, reason = "that is how it tells the other process")]
async fn ready() -> ! {
    println!("ready");
    std::future::pending::<()>().await;
    unreachable!()
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn script(text: &str) -> ExecSpec {
    ExecSpec::new(["sh", "-c", text], ExecOptions::default()).unwrap()
}

async fn a_client_that_is_killed_takes_its_commands_along_and_disturbs_no_other(kind: EngineKind) {
    if let Some((_, one)) = role().await {
        let _session = one.spawn(&script("echo $$ >/tmp/other; exec sleep 1000")).await.unwrap();
        ready().await;
    }
    let Some((backend, address)) = elsewhere(kind).await else { return };
    let one = backend.sandbox(name("two-clients"));
    one.start(&detached()).await.unwrap();
    let mut other = another("client", one.name(), &address);
    // Writes and is read all the while.
    let count = "i=0; while [ $i -lt 40 ]; do echo $i; i=$((i+1)); sleep 0.05; done; exit 7";
    let mut session = one.spawn(&script(count)).await.unwrap();
    let first = session.next_event().await.unwrap().unwrap();
    assert!(matches!(first, ExecEvent::Stdout(_)), "{first:?}");
    other.kill().unwrap();
    other.wait().unwrap();
    let output = session.collect().await.unwrap();
    assert_eq!(output.status.code(), 7);
    assert!(output.stdout.ends_with(b"38\n39\n"), "{output:?}");
    let gone = "! kill -0 $(cat /tmp/other) 2>/dev/null";
    until("its command is gone", async || one.exec(&["sh", "-c", gone]).await.unwrap().exit_code == 0).await;
    one.remove().await.unwrap();
}

async fn an_owned_sandbox_is_gone_when_its_owner_is_killed_and_its_clients_with_it(kind: EngineKind) {
    if let Some((_, one)) = role().await {
        one.start(&sandbox()).await.unwrap();
        ready().await;
    }
    let Some((backend, address)) = elsewhere(kind).await else { return };
    let one = backend.sandbox(name("owned"));
    let mut owner = another("owner", one.name(), &address);
    assert_eq!(one.exec(&["echo", "here"]).await.unwrap().stdout, "here\n");
    owner.kill().unwrap();
    owner.wait().unwrap();
    until(
        "the sandbox is gone",
        async || matches!(one.inspect().await, Err(error) if error.kind() == ErrorKind::NotFound),
    )
    .await;
    assert_eq!(one.exec(&["true"]).await.unwrap_err().kind(), ErrorKind::NotFound);
}

async fn the_owners_connection_is_no_lease_and_the_drop_of_the_owner_ends_it(kind: EngineKind) {
    let Some((backend, _)) = elsewhere(kind).await else { return };
    let one = backend.sandbox(name("dropped"));
    one.start(&sandbox()).await.unwrap();
    let reference = backend.sandbox(one.name().clone());
    assert_eq!(reference.exec(&["true"]).await.unwrap().exit_code, 0);
    drop(one);
    until(
        "the sandbox is gone",
        async || matches!(reference.inspect().await, Err(error) if error.kind() == ErrorKind::NotFound),
    )
    .await;
}

async fn a_detached_sandbox_outlives_its_maker_and_can_be_started_again(kind: EngineKind) {
    let Some((backend, address)) = elsewhere(kind).await else { return };
    let one = backend.sandbox(name("again"));
    one.start(&detached()).await.unwrap();
    one.write_file("/tmp/kept", b"kept").await.unwrap();
    let name = one.name().clone();
    drop((one, backend));
    let one = connect(&address).await.sandbox(name);
    assert_eq!(one.read_file("/tmp/kept").await.unwrap(), b"kept");
    one.halt(Duration::from_secs(1)).await.unwrap();
    assert_eq!(one.inspect().await.unwrap().state, State::Stopped);
    one.boot().await.unwrap();
    assert_eq!(one.read_file("/tmp/kept").await.unwrap(), b"kept");
    one.remove().await.unwrap();
}

async fn a_path_of_this_machine_is_refused_by_its_field(kind: EngineKind) {
    let Some((backend, _)) = elsewhere(kind).await else { return };
    assert!(!backend.health().await.unwrap().capabilities.has(Capability::BindMount));
    let one = backend.sandbox(name("mounts"));
    let mut config = sandbox();
    config.mounts = vec![Mount { source: "/usr".into(), target: "/mnt".into(), read_only: true }];
    let refused = one.start(&config).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    assert!(format!("{refused} {:?}", refused.context()).contains("mounts"), "{refused:?}");
}

async fn the_volume_of_the_guest_is_read_only_inside_and_no_volume_of_the_callers(kind: EngineKind) {
    let Some((backend, _)) = elsewhere(kind).await else { return };
    let one = backend.sandbox(name("volume"));
    one.start(&sandbox()).await.unwrap();
    let touched = one.exec(&["touch", "/.agentkernel/bin/x"]).await.unwrap();
    assert!(touched.exit_code != 0 && touched.stderr.contains("Read-only"), "{touched:?}");
    let listed = backend.volumes().unwrap().list().await.unwrap();
    assert!(listed.iter().all(|volume| !volume.name.as_str().contains("guest")), "{listed:?}");
    one.stop().await.unwrap();
}

/// The key's file, where this machine keeps it.
fn key_file(one: &SandboxName) -> PathBuf {
    let engines = std::fs::read_dir("/run/agentkernel").unwrap().flatten();
    let mut links = engines.map(|engine| engine.path().join("names").join(&**one));
    links.find(|link| link.exists()).expect("run this as root").join("key")
}

async fn without_the_key_nobody_gets_in_and_it_is_in_nothing_that_is_shown(kind: EngineKind) {
    let Some((backend, address)) = elsewhere(kind).await else { return };
    let one = backend.sandbox(name("key"));
    one.start(&detached()).await.unwrap();
    let file = key_file(one.name());
    let key = std::fs::read(&file).unwrap();
    let hex = key.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let shown =
        Command::new(command(kind)).args(["inspect", &format!("agentkernel-{}", one.name())]).output();
    let shown = String::from_utf8(shown.unwrap().stdout).unwrap();
    assert!(shown.contains(&**one.name()), "{shown}");
    assert!(!shown.contains(&hex[..16]), "{shown}");

    std::fs::write(&file, [0; 32]).unwrap();
    let other = connect(&address).await.sandbox(one.name().clone());
    let refused = other.exec(&["true"]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Disconnected, "{refused:?}");
    assert_eq!(one.exec(&["true"]).await.unwrap().exit_code, 0);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(other.exec(&["true"]).await.unwrap_err().kind(), ErrorKind::NotRunning);
    std::fs::write(&file, key).unwrap();
    assert_eq!(other.exec(&["true"]).await.unwrap().exit_code, 0);
    one.remove().await.unwrap();
}

async fn a_command_that_knocks_gets_nothing_and_holds_up_nobody(kind: EngineKind) {
    let Some((backend, address)) = elsewhere(kind).await else { return };
    let one = backend.sandbox(name("knock"));
    let mut config = detached();
    config.user = Some("0:0".into());
    one.start(&config).await.unwrap();
    let intruder = std::fs::read(guest::built().join("agentkernel-intruder")).unwrap();
    let options = WriteOptions { mode: Some(0o755), ..WriteOptions::default() };
    one.write(&"/intruder".parse().unwrap(), &options, &mut intruder.as_slice()).await.unwrap();
    let knocked = one.exec(&["/intruder", "knock", "once"]).await.unwrap();
    assert_eq!(knocked.stdout, "0 bytes\n", "{knocked:?}");

    let knock = ExecSpec::new(["/intruder", "knock"], ExecOptions::default()).unwrap();
    let mut session = one.spawn(&knock).await.unwrap();
    let told = session.next_event().await.unwrap().unwrap();
    assert!(matches!(&told, ExecEvent::Stdout(text) if &text[..] == b"ready\n"), "{told:?}");
    for _ in 0..3 {
        let other = connect(&address).await.sandbox(one.name().clone());
        assert_eq!(other.exec(&["echo", "in"]).await.unwrap().stdout, "in\n");
    }
    one.remove().await.unwrap();
}

/// To start a relay the engine looks up its user: on a FIFO it would wait for ever.
async fn a_command_that_would_hang_the_engine_at_the_next_client_is_told(kind: EngineKind) {
    let Some((backend, address)) = elsewhere(kind).await else { return };
    let one = backend.sandbox(name("fifo"));
    let mut config = detached();
    config.user = Some("0:0".into());
    one.start(&config).await.unwrap();
    let made = one.exec(&["sh", "-c", "rm -f /etc/passwd; mkfifo /etc/passwd"]).await.unwrap();
    assert_eq!(made.exit_code, 0, "{made:?}");
    let other = connect(&address).await.sandbox(one.name().clone());
    assert_eq!(other.exec(&["true"]).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(one.exec(&["true"]).await.unwrap().exit_code, 0);
    one.remove().await.unwrap();
}
