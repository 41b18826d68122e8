//! Each fault of the fake as a test of something built on the contract meets it.
#![expect(clippy::unwrap_used, reason = "a test says so by failing")]
use std::{io, sync::Arc, time::Duration};

use agentkernel_conformance::fake::{Call, FakeBackend, Fault};
use agentkernel_core::{
    Backend, ErrorKind, ExecEvent, ExecOptions, ExecSpec, ExitStatus, Lifetime, Replay, Sandbox,
    SandboxConfig, SandboxExt,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout},
};

const SHORT: Duration = Duration::from_millis(200);

fn config() -> SandboxConfig {
    SandboxConfig::new("agentkernel-test")
}

async fn started(backend: &FakeBackend) -> Arc<dyn Sandbox> {
    let sandbox = backend.sandbox("work".parse().unwrap());
    sandbox.start(&config()).await.unwrap();
    sandbox
}

fn script(text: &str, options: ExecOptions) -> ExecSpec {
    ExecSpec::new(["sh", "-c", text], options).unwrap()
}

#[tokio::test]
async fn a_hanging_start_can_be_given_up_and_leaves_no_command() {
    let backend = FakeBackend::new().with_fault(Fault::Hang);
    let sandbox = started(&backend).await;
    assert!(timeout(SHORT, sandbox.exec(&["true"])).await.is_err());
    backend.heal();
    assert!(sandbox.commands().await.unwrap().is_empty());
    assert!(sandbox.exec(&["true"]).await.unwrap().is_success());
}

#[tokio::test]
async fn a_whole_backend_can_hang() {
    let backend = FakeBackend::new();
    let sandbox = started(&backend).await;
    backend.inject(Fault::Hang.everywhere());
    assert!(timeout(SHORT, sandbox.inspect()).await.is_err());
    assert!(timeout(SHORT, sandbox.read_file("/etc/passwd")).await.is_err());
    assert!(timeout(SHORT, backend.health()).await.is_err());
}

#[tokio::test]
async fn a_silent_command_runs_and_tells_nothing() {
    let sandbox = started(&FakeBackend::new().with_fault(Fault::Silent)).await;
    let mut session =
        sandbox.spawn(&script("echo said >/tmp/file; sleep 1000", ExecOptions::default())).await.unwrap();
    assert!(timeout(SHORT, session.next_event()).await.is_err());
    assert_eq!(sandbox.read_file("/tmp/file").await.unwrap(), b"said\n");
}

#[tokio::test]
async fn a_silent_command_ends_with_its_session() {
    let sandbox = started(&FakeBackend::new().with_fault(Fault::Silent)).await;
    let session = sandbox.spawn(&script("sleep 1000", ExecOptions::default())).await.unwrap();
    drop(session);
    let gone = async {
        while sandbox.commands().await.unwrap().iter().any(|command| command.running) {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), gone).await.unwrap();
}

#[tokio::test]
async fn a_lost_exit_comes_after_the_output_and_is_no_success() {
    let sandbox = started(&FakeBackend::new().with_fault(Fault::LostExit)).await;
    let mut session = sandbox.spawn(&script("echo out", ExecOptions::default())).await.unwrap();
    let first = session.next_event().await.unwrap().unwrap();
    let second = session.next_event().await.unwrap().unwrap_err();
    assert_eq!((first, second.kind()), (ExecEvent::Stdout("out\n".into()), ErrorKind::Disconnected));
    assert!(session.next_event().await.is_none());
}

#[tokio::test]
async fn a_detached_command_whose_exit_was_lost_can_be_attached_again() {
    let backend = FakeBackend::new().with_fault(Fault::LostExit.at(Call::Spawn));
    let sandbox = backend.sandbox("work".parse().unwrap());
    let mut config = config();
    config.lifetime = Lifetime::Detached;
    sandbox.start(&config).await.unwrap();
    let session =
        sandbox.spawn(&script("echo out; exit 3", ExecOptions::default()).detached()).await.unwrap();
    let id = session.id().clone();
    assert_eq!(session.collect().await.unwrap_err().kind(), ErrorKind::Disconnected);
    let output = sandbox.attach(&id, Replay::Kept).await.unwrap().collect().await.unwrap();
    assert_eq!((output.status, &*output.stdout), (ExitStatus::Code(3), b"out\n".as_slice()));
}

#[tokio::test]
async fn a_half_closed_command_reads_end_of_file_and_still_answers() {
    let sandbox = started(&FakeBackend::new().with_fault(Fault::HalfClosed)).await;
    let options = ExecOptions::default().with_stdin();
    let mut session = sandbox.spawn(&script("cat; echo done", options)).await.unwrap();
    let error = session.take_stdin().unwrap().write_all(b"lost").await.unwrap_err();
    let output = session.collect().await.unwrap();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    assert_eq!((output.status, &*output.stdout), (ExitStatus::Code(0), b"done\n".as_slice()));
}

#[tokio::test]
async fn a_half_closed_connection_still_brings_what_comes() {
    let backend = FakeBackend::new().with_fault(Fault::HalfClosed.at(Call::Connect));
    let sandbox = started(&backend).await;
    let mut listened = sandbox.listen(([127, 0, 0, 1], 80).into()).await.unwrap();
    let mut outside = sandbox.connect(80).await.unwrap();
    let inside = std::future::poll_fn(|context| listened.as_mut().poll_next(context));
    let mut inside = inside.await.unwrap().unwrap();
    inside.writer.write_all(b"hello").await.unwrap();
    inside.writer.shutdown().await.unwrap();
    let (mut came, mut went) = (Vec::new(), Vec::new());
    outside.reader.read_to_end(&mut came).await.unwrap();
    inside.reader.read_to_end(&mut went).await.unwrap();
    assert_eq!((came.as_slice(), went.as_slice()), (b"hello".as_slice(), b"".as_slice()));
    assert_eq!(outside.writer.write_all(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn out_of_memory_keeps_the_output() {
    let sandbox = started(&FakeBackend::new().with_fault(Fault::OutOfMemory)).await;
    let session = sandbox.spawn(&script("echo out", ExecOptions::default())).await.unwrap();
    let output = session.collect().await.unwrap();
    assert_eq!((output.status, &*output.stdout), (ExitStatus::OutOfMemory, b"out\n".as_slice()));
}

#[tokio::test]
async fn a_full_disk_refuses_files_and_fails_commands() {
    let sandbox = started(&FakeBackend::new().with_fault(Fault::DiskFull)).await;
    let error = sandbox.write_file("/tmp/file", b"content").await.unwrap_err();
    let command = sandbox.exec(&["sh", "-c", "echo text >/tmp/other"]).await.unwrap();
    assert_eq!((error.kind(), command.is_success()), (ErrorKind::ResourceExhausted, false));
}

#[tokio::test]
async fn a_disk_that_fills_up_later_keeps_what_it_has() {
    let backend = FakeBackend::new();
    let sandbox = started(&backend).await;
    sandbox.write_file("/tmp/file", b"old").await.unwrap();
    backend.inject(Fault::DiskFull);
    assert!(sandbox.write_file("/tmp/file", b"new content").await.is_err());
    assert_eq!(sandbox.read_file("/tmp/file").await.unwrap(), b"old");
    backend.heal();
    sandbox.write_file("/tmp/file", b"new content").await.unwrap();
}

#[tokio::test]
async fn a_slow_call_takes_as_long_as_said_and_works() {
    let backend = FakeBackend::new().with_fault(Fault::Slow(SHORT).at(Call::Boot));
    let before = Instant::now();
    let sandbox = started(&backend).await;
    assert!(before.elapsed() >= SHORT);
    assert!(sandbox.exec(&["true"]).await.unwrap().is_success());
}

#[tokio::test(start_paused = true)]
async fn a_paused_clock_makes_waiting_free() {
    let hour = Duration::from_secs(3600);
    let sandbox = started(&FakeBackend::new().with_fault(Fault::Slow(hour))).await;
    let before = std::time::Instant::now();
    assert!(timeout(2 * hour, sandbox.exec(&["sleep", "1000"])).await.unwrap().unwrap().is_success());
    assert!(before.elapsed() < Duration::from_secs(60));
}

#[tokio::test]
async fn an_error_has_the_kind_and_leaves_nothing_behind() {
    let backend = FakeBackend::new().with_fault(Fault::Error(ErrorKind::Conflict).at(Call::Boot));
    let error = backend.sandbox("work".parse().unwrap()).start(&config()).await.unwrap_err();
    assert_eq!(
        (error.kind(), backend.list(&Default::default()).await.unwrap().len()),
        (ErrorKind::Conflict, 0)
    );
}

#[tokio::test]
async fn a_fault_can_spare_calls_and_end() {
    let fault = Fault::Error(ErrorKind::Timeout).at(Call::Inspect).after(1).times(2);
    let sandbox = started(&FakeBackend::new().with_fault(fault)).await;
    let mut kinds = Vec::new();
    for _ in 0..4 {
        kinds.push(sandbox.inspect().await.err().map(|error| error.kind()));
    }
    assert_eq!(kinds, [None, Some(ErrorKind::Timeout), Some(ErrorKind::Timeout), None]);
}

#[tokio::test]
async fn several_faults_all_strike() {
    let backend = FakeBackend::new().with_fault(Fault::Slow(SHORT)).with_fault(Fault::OutOfMemory);
    let sandbox = started(&backend).await;
    let before = Instant::now();
    let result = sandbox.exec(&["true"]).await.unwrap();
    assert!(before.elapsed() >= SHORT && result.exit_code == 137);
}

#[test]
#[should_panic(expected = "LostExit cannot be at Write")]
fn a_fault_at_a_call_that_cannot_have_it_is_a_mistake_of_the_test() {
    let _scripted = Fault::LostExit.at(Call::Write);
}

/// Every call of the contract meets the fault that is scripted for it.
#[tokio::test]
async fn every_call_can_fail() {
    let backend = FakeBackend::new();
    let sandbox = started(&backend).await;
    backend.inject(Fault::Error(ErrorKind::Unavailable).everywhere());
    let (path, command) = ("/tmp".parse().unwrap(), script("true", ExecOptions::default()));
    let spec = config().resolve(agentkernel_conformance::fake::CAPABILITIES, sandbox.host()).unwrap();
    let mut nothing = io::Cursor::new(Vec::new());
    let mut tar = io::Cursor::new(Vec::new());
    let depth = agentkernel_core::Depth::One;
    let kinds = [
        backend.health().await.map(drop),
        backend.probe().await,
        backend.list(&Default::default()).await.map(drop),
        backend.reap(agentkernel_core::Reap::Show).await.map(drop),
        sandbox.inspect().await.map(drop),
        sandbox.create(&spec).await,
        sandbox.boot().await,
        sandbox.spawn(&command).await.map(drop),
        sandbox.commands().await.map(drop),
        sandbox.halt(SHORT).await,
        sandbox.remove().await,
        sandbox.logs(&Default::default()).await.map(drop),
        sandbox.stats().await.map(drop),
        sandbox.connect(80).await.map(drop),
        sandbox.listen(([127, 0, 0, 1], 80).into()).await.map(drop),
        sandbox.open(&path).await.map(drop),
        sandbox.write(&path, &Default::default(), &mut nothing).await,
        sandbox.metadata(&path).await.map(drop),
        sandbox.read_dir(&path).await.map(drop),
        sandbox.create_dir(&path, depth).await,
        sandbox.remove_path(&path, depth).await,
        sandbox.pack(&path).await.map(drop),
        sandbox.unpack(&path, &mut tar).await,
        sandbox.attach(&7.into(), Replay::None).await.map(drop),
    ];
    let kinds = kinds.map(|answer| answer.err().map(|error| error.kind()));
    assert_eq!(kinds, [Some(ErrorKind::Unavailable); 24]);
}
