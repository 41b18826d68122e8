//! What only the stand-in can show: its log of every call, and faults on demand.
#![expect(clippy::unwrap_used, reason = "a test says so by failing")]
#[path = "support/lines.rs"]
mod lines;
#[path = "support/world.rs"]
mod world;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use agentkernel_apple::{AppleBackend, AppleConfig};
use agentkernel_core::{
    Backend, ErrorKind, ExecOptions, ExecSpec, ExitStatus, Lifetime, PullPolicy, SandboxConfig, SandboxExt,
};
use world::World;

async fn backend(world: &World) -> Arc<AppleBackend> {
    let config = AppleConfig::default().with_program(world.program());
    AppleBackend::connect(config.with_request_timeout(Duration::from_secs(5))).await.unwrap()
}

fn config() -> SandboxConfig {
    SandboxConfig::new("busybox")
}

async fn is_gone(backend: &AppleBackend) -> bool {
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        if backend.list(&Default::default()).await.unwrap().is_empty() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_service_down_the_first_call_says_how_to_start_it() {
    for service in ["unregistered", "not-running"] {
        let world = World::new("1.2");
        world.switch(&format!(r#"{{"service":"{service}"}}"#));
        let error = backend(&world).await.list(&Default::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.hint().unwrap().contains("container system start"), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_delete_that_hangs_stop_returns_in_time_and_says_what_is_left() {
    let world = World::new("1.2");
    let backend = backend(&world).await;
    let sandbox = backend.sandbox("demo".parse().unwrap());
    sandbox.start(&config()).await.unwrap();
    world.switch(r#"{"wedged_delete":"hang"}"#);
    let begin = Instant::now();
    let error = sandbox.stop().await.unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(30));
    assert!(error.to_string().contains("agentkernel-demo") && error.hint().is_some(), "{error}");
    world.switch("{}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_hangs_ends_with_its_deadline() {
    let world = World::new("1.2");
    let backend = backend(&world).await;
    backend.health().await.unwrap();
    world.switch(r#"{"hang":["list"]}"#);
    let begin = Instant::now();
    let error = backend.list(&Default::default()).await.unwrap_err();
    assert_eq!((error.kind(), begin.elapsed() < Duration::from_secs(15)), (ErrorKind::Timeout, true));
    world.switch("{}");
}

#[tokio::test(flavor = "multi_thread")]
async fn codes_of_a_command_are_told_from_those_of_a_failed_call() {
    let world = World::new("1.2");
    let backend = backend(&world).await;
    let sandbox = backend.sandbox("demo".parse().unwrap());
    sandbox.start(&config()).await.unwrap();
    for code in ["1", "64"] {
        let forged = format!("echo 'Error: container agentkernel-demo is not running' >&2; exit {code}");
        let result = sandbox.exec(&["sh", "-c", &forged]).await.unwrap();
        assert_eq!(result.exit_code.to_string(), code);
    }
    sandbox.remove().await.unwrap();
    assert_eq!(sandbox.exec(&["true"]).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn noise_of_the_call_is_no_output_of_the_command() {
    let world = World::new("1.2");
    world.switch(r#"{"noise":true}"#);
    let backend = backend(&world).await;
    let sandbox = backend.sandbox("demo".parse().unwrap());
    sandbox.start(&config()).await.unwrap();
    let result = sandbox.exec(&["sh", "-c", "echo out; echo err >&2"]).await.unwrap();
    assert_eq!((result.stdout.as_str(), result.stderr.as_str()), ("out\n", "err\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_goes_takes_its_sandbox_along_and_a_detached_one_stays() {
    let world = World::new("1.2");
    let backend = backend(&world).await;
    let owner = backend.sandbox("owned".parse().unwrap());
    owner.start(&config()).await.unwrap();
    drop(owner);
    assert!(is_gone(&backend).await);
    let mut config = config();
    config.lifetime = Lifetime::Detached;
    let owner = backend.sandbox("kept".parse().unwrap());
    owner.start(&config).await.unwrap();
    drop(owner);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(backend.sandbox("kept".parse().unwrap()).is_running().await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_of_a_whole_life_breaks_the_rules_of_the_command_line() {
    let world = World::new("1.2");
    let backend = backend(&world).await;
    let mut config = config();
    config.env.insert("TOKEN".into(), "-hunter2".into());
    config.cwd = Some("/tmp".into());
    config.pull = PullPolicy::Missing;
    let sandbox = backend.sandbox("demo".parse().unwrap());
    sandbox.start(&config).await.unwrap();
    let options = ExecOptions::default().with_stdin().with_user("user".parse().unwrap());
    let spec = ExecSpec::new(["echo", "---x", "-=y", "--", ""], options).unwrap();
    let output = sandbox.spawn(&spec).await.unwrap().collect().await.unwrap();
    assert_eq!((&*output.stdout, output.status), (&b"---x -=y -- \n"[..], ExitStatus::Code(0)));
    sandbox.stats().await.unwrap();
    sandbox.stop().await.unwrap();
    let calls = lines::of(&world.program());
    assert!(!calls.is_empty());
    for call in calls {
        assert_eq!(lines::broken(&call), None, "{call:?}");
        assert!(!call.iter().any(|word| word.contains("hunter2")), "{call:?}");
    }
}

#[test]
fn the_rules_of_the_command_line_are_told() {
    let is_broken =
        |line: &str| lines::broken(&line.split(' ').map(str::to_owned).collect::<Vec<_>>()).is_some();
    for good in ["--version", "list --all --format=json", "logs -n=1 x", "exec --tty -- x /bin/sh -c ---x --"]
    {
        assert!(!is_broken(good), "{good}");
    }
    for bad in [
        "prune",
        "image prune",
        "system stop",
        "cp a b",
        "machine list",
        "delete --all",
        "delete x --force",
        "stop --time 3 x",
        "exec x /bin/sh",
        "exec -- x ls",
        "exec --tty -- x -- ls",
        "create --label= -- x -c",
        "create --name x -- x -c",
        "list -- x",
    ] {
        assert!(is_broken(bad), "{bad}");
    }
}
