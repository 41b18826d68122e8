//! What happens inside, where the stand-in shows more than the kit asks: sizes, names, slow readers, and owners that go.
#![expect(clippy::unwrap_used, reason = "a test says so by failing")]
#[path = "support/lines.rs"]
mod lines;
#[path = "support/world.rs"]
mod world;

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use agentkernel_apple::{AppleBackend, AppleConfig, AppleSandbox};
use agentkernel_core::{
    Backend, Depth, ErrorKind, ExecOptions, ExecSpec, ExitStatus, Reap, Sandbox, SandboxConfig, SandboxExt,
    SandboxPath, TtySize,
};
use futures_util::TryStreamExt;
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;
use world::World;

async fn backend(world: &World) -> Arc<AppleBackend> {
    AppleBackend::connect(AppleConfig::default().with_program(world.program())).await.unwrap()
}

async fn start(world: &World) -> Arc<dyn Sandbox> {
    let sandbox = backend(world).await.sandbox("demo".parse().unwrap());
    sandbox.start(&SandboxConfig::new("busybox")).await.unwrap();
    sandbox
}

fn script(text: &str, options: ExecOptions) -> ExecSpec {
    ExecSpec::new(["sh", "-c", text], options).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_mebibytes_of_noise_come_back_as_they_were() {
    let world = World::new("1.2");
    let sandbox = start(&world).await;
    let mut noise = vec![0; 20 << 20];
    std::fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    sandbox.write_file("/tmp/noise", &noise).await.unwrap();
    let inside = sandbox.exec(&["sha256sum", "/tmp/noise"]).await.unwrap().stdout;
    let outside = Sha256::digest(&noise).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(inside.split(' ').next().unwrap(), outside);
    let again = sandbox.read_file("/tmp/noise").await.unwrap();
    assert_eq!(Sha256::digest(&again), Sha256::digest(&noise));
}

/// What a shell would make something of.
const STRANGE: &str = "-a 'b' \"c\" $(x) `y` \\ \n * ~ %s \u{e9}";

#[tokio::test(flavor = "multi_thread")]
async fn a_path_is_never_text_of_a_script() {
    let world = World::new("1.2");
    let sandbox = start(&world).await;
    let directory: SandboxPath = format!("/tmp/{STRANGE}").parse().unwrap();
    let file: SandboxPath = format!("/tmp/{STRANGE}/{STRANGE}").parse().unwrap();
    sandbox.create_dir(&directory, Depth::One).await.unwrap();
    sandbox.write(&file, &Default::default(), &mut b"content".as_slice()).await.unwrap();
    assert_eq!(sandbox.read_file(&file.to_string()).await.unwrap(), b"content");
    assert_eq!(sandbox.metadata(&file).await.unwrap().size, 7);
    let names = sandbox.read_dir(&directory).await.unwrap().try_collect::<Vec<_>>().await.unwrap();
    assert_eq!(names.into_iter().map(|entry| entry.name).collect::<Vec<_>>(), [STRANGE.as_bytes()]);
    let mut tar = Vec::new();
    sandbox.pack(&directory).await.unwrap().read_to_end(&mut tar).await.unwrap();
    let again: SandboxPath = format!("/tmp/again {STRANGE}").parse().unwrap();
    sandbox.unpack(&again, &mut tar.as_slice()).await.unwrap();
    let copy = format!("/tmp/again {STRANGE}/{STRANGE}/{STRANGE}");
    assert_eq!(sandbox.read_file(&copy).await.unwrap(), b"content");
    sandbox.remove_path(&directory, Depth::Recursive).await.unwrap();
    assert_eq!(sandbox.metadata(&directory).await.unwrap_err().kind(), ErrorKind::NotFound);
    for call in lines::of(&world.program()) {
        assert_eq!(lines::broken(&call), None, "{call:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_never_text_of_a_script() {
    let world = World::new("1.2");
    let sandbox = start(&world).await;
    let env = [format!("VALUE={STRANGE}"), format!("HOME={STRANGE}")];
    let result = sandbox.exec_with_env(&["sh", "-c", r#"printf %s "$VALUE$HOME""#], &env).await.unwrap();
    assert_eq!(result.stdout, format!("{STRANGE}{STRANGE}"));
}

/// More than all pipes on the way hold, on both streams.
const MUCH: &str = "head -c 1000000 /dev/zero >&2 & head -c 1000000 /dev/zero; wait; exit 3";

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_pauses_for_seconds_loses_nothing() {
    let world = World::new("1.2");
    let sandbox = start(&world).await;
    let session = sandbox.spawn(&script(MUCH, ExecOptions::default())).await.unwrap();
    let mut given = sandbox.spawn(&script(MUCH, ExecOptions::default().with_stdin())).await.unwrap();
    let stdin = given.take_stdin();
    tokio::time::sleep(Duration::from_secs(5)).await;
    for session in [session, given] {
        let output = session.collect().await.unwrap();
        assert_eq!((output.stdout.len(), output.stderr.len()), (1_000_000, 1_000_000));
        assert_eq!(output.status, ExitStatus::Code(3));
    }
    drop(stdin);
}

/// With its stdin at an end, a call ends by itself; what is not read within three seconds is lost then.
#[tokio::test(flavor = "multi_thread")]
async fn lost_output_is_never_a_success() {
    let world = World::new("1.2");
    let sandbox = start(&world).await;
    for much in [MUCH, "head -c 400000 /dev/zero >&2; exit 0", "head -c 400000 /dev/zero; exit 0"] {
        let mut session = sandbox.spawn(&script(much, ExecOptions::default().with_stdin())).await.unwrap();
        drop(session.take_stdin());
        tokio::time::sleep(Duration::from_secs(5)).await;
        match session.collect().await {
            Ok(output) => {
                assert!(output.stdout.len() + output.stderr.len() >= 400_000, "{:?}", output.status);
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Disconnected),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_behind_a_slow_reader_keeps_the_output() {
    let world = World::new("1.2");
    let sandbox = start(&world).await;
    let options = ExecOptions::default().with_timeout(Duration::from_secs(1));
    let text = "head -c 700000 /dev/zero; echo end >&2; sleep 1000";
    let session = sandbox.spawn(&script(text, options)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(8)).await;
    let output = session.collect().await.unwrap();
    assert_eq!(output.status, ExitStatus::TimedOut);
    assert!(output.stdout.len() >= 300_000, "{}", output.stdout.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_is_dropped_ends_its_command() {
    let world = World::new("1.2");
    let sandbox = start(&world).await;
    let options = ExecOptions::default().with_tty(TtySize { rows: 20, columns: 50 });
    let mut session = sandbox.spawn(&script("echo ready; exec sleep 4321", options)).await.unwrap();
    assert!(session.next_event().await.unwrap().is_ok());
    drop(session);
    assert!(ends(&sandbox, "sleep 4321").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_is_dropped_leaves_no_process() {
    let world = World::new("1.2");
    let sandbox = start(&world).await;
    sandbox.exec(&["truncate", "-s", "64G", "/tmp/large"]).await.unwrap();
    let path = "/tmp/large".parse().unwrap();
    let mut begin = vec![0; 1 << 20];
    for transfer in [sandbox.open(&path).await.unwrap(), sandbox.pack(&path).await.unwrap()] {
        let mut transfer = transfer;
        transfer.read_exact(&mut begin).await.unwrap();
    }
    assert!(ends(&sandbox, "cat").await);
}

/// Returns whether no process of this name is left, soon.
async fn ends(sandbox: &Arc<dyn Sandbox>, name: &str) -> bool {
    let end = Instant::now() + Duration::from_secs(15);
    while Instant::now() < end {
        let listed = sandbox.exec(&["ps", "-o", "args"]).await.unwrap().stdout;
        if !listed.lines().any(|line| line.starts_with(name)) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    false
}

/// Starts this test again as another process, which plays a role, and waits until it says that it is ready.
fn play(world: &World, role: &str) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", role, "--ignored", "--nocapture"])
        .env("AGENTKERNEL_CONTAINER", world.program())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.ends_with("ready\n") {
        line.clear();
        assert_ne!(told.read_line(&mut line).unwrap(), 0, "{role} fails");
    }
    // It has more to say.
    child.stdout = Some(told.into_inner());
    child
}

async fn running(sandbox: &AppleSandbox) {
    sandbox.start(&SandboxConfig::new("busybox")).await.unwrap();
}

#[tokio::test]
#[ignore = "a role of another test"]
async fn role_of_an_owner_that_drops() {
    let sandbox = AppleSandbox::new("played").unwrap();
    running(&sandbox).await;
    drop(sandbox);
    tokio::time::sleep(Duration::from_secs(3)).await;
    println!("ready");
}

#[tokio::test]
#[ignore = "a role of another test"]
async fn role_of_an_owner_that_keeps() {
    let sandbox = AppleSandbox::new_persistent("played").unwrap();
    running(&sandbox).await;
    drop(sandbox);
    tokio::time::sleep(Duration::from_secs(3)).await;
    println!("ready");
}

#[tokio::test]
#[ignore = "a role of another test"]
async fn role_of_an_owner_that_is_killed() {
    let sandbox = AppleSandbox::new("played").unwrap();
    running(&sandbox).await;
    println!("ready");
    tokio::time::sleep(Duration::from_secs(600)).await;
}

async fn names(backend: &AppleBackend) -> Vec<String> {
    let all = backend.list(&Default::default()).await.unwrap();
    all.into_iter().map(|info| info.name.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_sandbox_goes_and_a_persistent_one_stays() {
    let world = World::new("1.2");
    let backend = backend(&world).await;
    assert!(play(&world, "role_of_an_owner_that_drops").wait().unwrap().success());
    assert_eq!(names(&backend).await, Vec::<String>::new());
    assert!(play(&world, "role_of_an_owner_that_keeps").wait().unwrap().success());
    assert_eq!(names(&backend).await, ["played"]);
    assert!(backend.sandbox("played".parse().unwrap()).is_running().await.unwrap());
    // Nobody is missed: it was kept on purpose.
    backend.reap(Reap::Remove).await.unwrap();
    assert_eq!(names(&backend).await, ["played"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_is_killed_leaves_nothing_after_the_next_command() {
    let world = World::new("1.2");
    let backend = backend(&world).await;
    let mut owner = play(&world, "role_of_an_owner_that_is_killed");
    assert_eq!(backend.reap(Reap::Remove).await.unwrap().len(), 0);
    assert_eq!(names(&backend).await, ["played"]);
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert_eq!(backend.reap(Reap::Remove).await.unwrap().len(), 1);
    assert_eq!(names(&backend).await, Vec::<String>::new());
}
