//! The service behind `container`: down, started, and without a kernel.
#![expect(clippy::unwrap_used, reason = "a test says so by failing")]
#[path = "support/world.rs"]
mod world;

use std::sync::Arc;

use agentkernel_apple::{AppleBackend, AppleConfig, start_apple_system};
use agentkernel_core::{Backend, ErrorKind};
use world::World;

async fn backend(world: &World) -> Arc<AppleBackend> {
    AppleBackend::connect(AppleConfig::default().with_program(world.program())).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_finds_out_that_there_is_no_kernel() {
    let world = World::new("1.2");
    world.switch(r#"{"kernel":false}"#);
    let error = backend(&world).await.probe().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(error.hint(), Some("get one: container system kernel set --recommended"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_leaves_nothing() {
    let world = World::new("1.2");
    let backend = backend(&world).await;
    let images = backend.images().unwrap();
    let before = images.list().await.unwrap();
    backend.probe().await.unwrap();
    assert_eq!(images.list().await.unwrap(), before);
    assert!(backend.list(&Default::default()).await.unwrap().is_empty());
}

/// One test, since the start is remembered for the whole process.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_down_is_started_with_a_kernel_only_by_consent() {
    let world = World::new("1.2");
    world.switch(r#"{"service":"unregistered","kernel":false,"start_fails":true}"#);
    let config = AppleConfig::default().with_program(world.program());
    assert_eq!(start_apple_system(&config).await.unwrap_err().kind(), ErrorKind::Unavailable);
    world.switch(r#"{"service":"unregistered","kernel":false}"#);
    start_apple_system(&config.clone().with_kernel_download(true)).await.unwrap();
    backend(&world).await.probe().await.unwrap();
    let calls =
        std::fs::read_to_string(world.program().with_file_name("stand-in").join("calls.jsonl")).unwrap();
    let starts = calls.lines().filter(|call| call.contains(r#""start","--"#)).collect::<Vec<_>>();
    assert!(starts[0].contains("--disable-kernel-install"), "{starts:?}");
    assert!(starts[1].contains("--enable-kernel-install"), "{starts:?}");
    // Remembered: nothing is asked again.
    let asked = calls.lines().count();
    start_apple_system(&config).await.unwrap();
    let calls =
        std::fs::read_to_string(world.program().with_file_name("stand-in").join("calls.jsonl")).unwrap();
    assert_eq!(calls.lines().count(), asked);
}
