//! Images and ports that only the stand-in and a `docker` of ours can show.
#![expect(clippy::unwrap_used, reason = "a test says so by failing")]
#[path = "support/world.rs"]
mod world;

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use agentkernel_apple::{AppleBackend, AppleConfig};
use agentkernel_core::{
    Backend, ErrorKind, ExecOptions, ExecSpec, Lifetime, Network, PortMapping, Progress, SandboxConfig,
    SandboxExt,
};
use futures_util::TryStreamExt;
use world::World;

/// A `docker` that is this script.
fn docker(world: &World, script: &str) -> PathBuf {
    let program = world.program().with_file_name("docker");
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

async fn backend(world: &World, docker: Option<PathBuf>) -> Arc<AppleBackend> {
    let config = AppleConfig::default().with_program(world.program());
    let docker = docker.unwrap_or_else(|| "/nowhere/docker".into());
    AppleBackend::connect(config.with_docker(docker)).await.unwrap()
}

/// What `image save` of the stand-in writes: an OCI layout.
fn saved(world: &World) -> PathBuf {
    let file = world.program().with_file_name("saved.tar");
    let save = ["image", "save", "--output", file.to_str().unwrap(), "busybox"];
    assert!(Command::new(world.program()).args(save).env_clear().output().unwrap().status.success());
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_tells_how_far_it_is_and_ends_with_the_image() {
    let world = World::new("1.2");
    let backend = backend(&world, None).await;
    let pull = backend.images().unwrap().pull(&"alpine".parse().unwrap()).await.unwrap();
    let events = pull.try_collect::<Vec<_>>().await.unwrap();
    assert!(events.contains(&Progress::Percent(100)), "{events:?}");
    assert!(matches!(events.last(), Some(Progress::Done(image)) if image.name == "alpine" && image.size > 0));
    let all = backend.images().unwrap().list().await.unwrap();
    assert!(all.iter().any(|image| image.name == "alpine:latest" && image.digest.is_some()), "{all:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_fails_says_why() {
    let world = World::new("1.2");
    let backend = backend(&world, None).await;
    let images = backend.images().unwrap();
    let pull = images.pull(&"example/absent:1".parse().unwrap()).await.unwrap();
    assert_eq!(pull.try_collect::<Vec<_>>().await.unwrap_err().kind(), ErrorKind::NotFound);
    world.switch(r#"{"pull_failure":"HTTP request failed with response: 401 Unauthorized"}"#);
    let pull = images.pull(&"ghcr.io/a/b:1".parse().unwrap()).await.unwrap();
    let error = pull.try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert_eq!(error.hint(), Some("log in: container registry login ghcr.io"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_name_is_imported_from_docker_and_runs() {
    for version in ["1.2", "0.12"] {
        let world = World::new(version);
        let archive = saved(&world);
        let asked = world.program().with_file_name("asked");
        let script = format!(r#"echo "$@" >>'{}'; cat '{}'"#, asked.display(), archive.display());
        let backend = backend(&world, Some(docker(&world, &script))).await;
        let sandbox = backend.sandbox("demo".parse().unwrap());
        sandbox.start(&SandboxConfig::new("agentkernel-mine:7")).await.unwrap();
        assert_eq!(sandbox.exec(&["echo", "x"]).await.unwrap().stdout, "x\n");
        sandbox.remove().await.unwrap();
        let asked = fs::read_to_string(asked).unwrap();
        assert!(
            asked.starts_with("save --platform=linux/") && asked.ends_with(" agentkernel-mine:7\n"),
            "{asked}"
        );
        let found = backend.images().unwrap().inspect(&"agentkernel-mine:7".parse().unwrap()).await.unwrap();
        assert!(
            found.is_some_and(|image| image.digest.is_none()),
            "a local image has no digest of a registry"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_docker_that_does_not_know_platforms_is_asked_without() {
    let world = World::new("1.2");
    let script = format!(
        r#"case $2 in --platform=*) echo "unknown flag: --platform" >&2; exit 125;; esac; cat '{}'"#,
        saved(&world).display()
    );
    let backend = backend(&world, Some(docker(&world, &script))).await;
    let sandbox = backend.sandbox("demo".parse().unwrap());
    sandbox.create(&spec(&*sandbox, &SandboxConfig::new("agentkernel-old")).await).await.unwrap();
    sandbox.remove().await.unwrap();
}

async fn spec(
    sandbox: &dyn agentkernel_core::Sandbox,
    config: &SandboxConfig,
) -> agentkernel_core::SandboxSpec {
    config.resolve(sandbox.capabilities().await.unwrap(), sandbox.host()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_name_that_is_nowhere_asks_where_it_was_made() {
    let world = World::new("1.2");
    let absent = docker(&world, r#"echo "Error response from daemon: No such image: $3" >&2; exit 1"#);
    for docker in [None, Some(absent)] {
        let backend = backend(&world, docker).await;
        let sandbox = backend.sandbox("demo".parse().unwrap());
        let error = sandbox.start(&SandboxConfig::new("agentkernel-snap:gone")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.hint().unwrap().contains("was the snapshot made on this machine?"), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_docker_saves_and_is_no_image_is_refused() {
    let world = World::new("1.2");
    let backend = backend(&world, Some(docker(&world, "echo nonsense"))).await;
    let sandbox = backend.sandbox("demo".parse().unwrap());
    let error = sandbox.start(&SandboxConfig::new("agentkernel-bad")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_archive_of_a_root_file_system_becomes_an_image() {
    let world = World::new("1.2");
    let backend = backend(&world, None).await;
    let first = backend.sandbox("first".parse().unwrap());
    first.create(&spec(&*first, &SandboxConfig::new("busybox")).await).await.unwrap();
    let export = ["export", "agentkernel-first"];
    let tar = Command::new(world.program()).args(export).env_clear().output().unwrap().stdout;
    first.remove().await.unwrap();
    let name = "agentkernel-root".parse().unwrap();
    let image = backend.images().unwrap().import(&mut tar.as_slice(), &name).await.unwrap();
    assert_eq!(image.name, "agentkernel-root");
    let second = backend.sandbox("second".parse().unwrap());
    second.start(&SandboxConfig::new("agentkernel-root")).await.unwrap();
    assert_eq!(second.exec(&["echo", "x"]).await.unwrap().stdout, "x\n");
    second.remove().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn below_1_2_1_a_snapshot_is_refused_with_the_version_that_has_it() {
    let world = World::new("1.0");
    let backend = backend(&world, None).await;
    let images = backend.images().unwrap();
    let name = "agentkernel-snap:x".parse().unwrap();
    let error = images.commit(&"demo".parse().unwrap(), &name).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.hint().unwrap().contains("1.2.1"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_network_a_port_outlives_its_owner() {
    let world = World::new("1.2");
    let backend = backend(&world, None).await;
    let sandbox = backend.sandbox("served".parse().unwrap());
    let mut config = SandboxConfig::new("busybox");
    config.lifetime = Lifetime::Detached;
    config.ports = vec![PortMapping { address: None, host: 0, sandbox: 8080 }];
    let refused = sandbox.start(&config).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported, "nobody would carry its connections");
    config.network = Some(Network::Full);
    sandbox.start(&config).await.unwrap();
    let port = sandbox.inspect().await.unwrap().ports[0].host;
    drop(sandbox);
    let sandbox = backend.sandbox("served".parse().unwrap());
    let serve = ["sh", "-c", "while :; do nc -l -p 8080 -e echo hello; done"];
    let _server = sandbox.spawn(&ExecSpec::new(serve, ExecOptions::default()).unwrap()).await.unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    let answer = loop {
        let mut answer = String::new();
        if let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
            let _sent = stream.write_all(b"x");
            let _read = stream.read_to_string(&mut answer);
        }
        if !answer.is_empty() || Instant::now() > end {
            break answer;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    sandbox.remove().await.unwrap();
    assert_eq!(answer, "hello\n");
}
