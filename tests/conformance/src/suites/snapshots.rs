//! Snapshots: what was in a sandbox and how it was configured comes back.
use std::sync::Arc;

use agentkernel_core::{ErrorKind, ImageRef, ImageStore, Sandbox, SandboxConfig, SandboxExt};

use crate::{
    fixture::{Fixture, kind, script, sh},
    rule::rules,
    wait::soon,
};

rules![
    a_snapshot_keeps_files[Snapshot, Files],
    a_snapshot_brings_the_limits_back[Snapshot, MemoryLimit],
    a_snapshot_brings_the_environment_back[Snapshot],
    a_snapshot_brings_the_user_back[Snapshot, ExecUser],
    a_snapshot_is_listed_until_it_is_removed[Snapshot],
    a_snapshot_of_a_stopped_sandbox_is_taken[Snapshot, Files, Persistence],
    a_snapshot_does_not_end_what_runs[Snapshot],
    a_snapshot_takes_no_name_away[Snapshot],
    a_snapshot_of_no_sandbox_is_not_found[Snapshot],
    pruning_keeps_what_has_a_name[Snapshot],
];

fn images(fixture: &Fixture) -> &dyn ImageStore {
    fixture.backend().images().expect("snapshots are images")
}

fn name_for(sandbox: &Arc<dyn Sandbox>) -> ImageRef {
    format!("agentkernel-snap:{}", &**sandbox.name()).parse().unwrap()
}

/// Takes a snapshot of a sandbox, and starts another from it with the config that it brings.
async fn restore(fixture: &Fixture, sandbox: &Arc<dyn Sandbox>) -> Arc<dyn Sandbox> {
    let image = name_for(sandbox);
    images(fixture).commit(sandbox.name(), &image).await.unwrap();
    let found = images(fixture).inspect(&image).await.unwrap().expect("it was taken");
    let mut config = SandboxConfig::clone(found.config.as_deref().expect("it brings a config"));
    config.image = Some(image.to_string());
    fixture.start_with(&config).await
}

async fn remove(fixture: &Fixture, sandbox: &Arc<dyn Sandbox>, restored: &Arc<dyn Sandbox>) {
    restored.remove().await.unwrap();
    sandbox.remove().await.unwrap();
    images(fixture).remove(&name_for(sandbox)).await.unwrap();
}

async fn a_snapshot_keeps_files(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sandbox.write_file("/kept/file", b"content").await.unwrap();
    let restored = restore(&fixture, &sandbox).await;
    let seen = restored.read_file("/kept/file").await;
    remove(&fixture, &sandbox, &restored).await;
    assert_eq!(seen.unwrap(), b"content");
}

async fn a_snapshot_brings_the_limits_back(fixture: Fixture) {
    let mut config = fixture.config();
    config.memory_mb = Some(fixture.memory_mb(77));
    let sandbox = fixture.start_with(&config).await;
    let restored = restore(&fixture, &sandbox).await;
    let found = restored.inspect().await.unwrap();
    remove(&fixture, &sandbox, &restored).await;
    let asked = format!("{} MiB", fixture.memory_mb(77));
    assert!(found.restrictions.iter().any(|it| it.configured == asked), "{:?}", found.restrictions);
}

async fn a_snapshot_brings_the_environment_back(fixture: Fixture) {
    let mut config = fixture.config();
    config.env.insert("KEPT".into(), "a value".into());
    let sandbox = fixture.start_with(&config).await;
    let restored = restore(&fixture, &sandbox).await;
    let seen = sh(&restored, "echo $KEPT").await;
    remove(&fixture, &sandbox, &restored).await;
    assert_eq!(seen, "a value\n");
}

async fn a_snapshot_brings_the_user_back(fixture: Fixture) {
    let mut config = fixture.config();
    config.user = Some("1234:1234".into());
    let sandbox = fixture.start_with(&config).await;
    let restored = restore(&fixture, &sandbox).await;
    let seen = sh(&restored, "id -u").await;
    remove(&fixture, &sandbox, &restored).await;
    assert_eq!(seen, "1234\n");
}

async fn a_snapshot_is_listed_until_it_is_removed(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let (images, image) = (images(&fixture), name_for(&sandbox));
    images.commit(sandbox.name(), &image).await.unwrap();
    let listed = async || images.list().await.unwrap().iter().any(|it| it.name == image.as_str());
    let before = listed().await;
    sandbox.remove().await.unwrap();
    images.remove(&image).await.unwrap();
    assert_eq!((before, listed().await), (true, false));
}

async fn a_snapshot_of_a_stopped_sandbox_is_taken(fixture: Fixture) {
    let mut config = fixture.config();
    config.lifetime = agentkernel_core::Lifetime::Detached;
    let sandbox = fixture.start_with(&config).await;
    sandbox.write_file("/file", b"content").await.unwrap();
    sandbox.stop().await.unwrap();
    let restored = restore(&fixture, &sandbox).await;
    let seen = restored.read_file("/file").await;
    remove(&fixture, &sandbox, &restored).await;
    assert_eq!(seen.unwrap(), b"content");
}

async fn a_snapshot_does_not_end_what_runs(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let (images, image) = (images(&fixture), name_for(&sandbox));
    let running = sandbox.spawn(&script("sleep 1; echo done")).await.unwrap();
    images.commit(sandbox.name(), &image).await.unwrap();
    let output = soon("the command ends", running.collect()).await.unwrap();
    sandbox.remove().await.unwrap();
    images.remove(&image).await.unwrap();
    assert_eq!(output.stdout, b"done\n".as_slice());
}

async fn a_snapshot_takes_no_name_away(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let (images, image) = (images(&fixture), name_for(&sandbox));
    let first = images.commit(sandbox.name(), &image).await.unwrap();
    let second = kind(images.commit(sandbox.name(), &image).await);
    let found = images.inspect(&image).await.unwrap().map(|it| it.id);
    sandbox.remove().await.unwrap();
    images.remove(&image).await.unwrap();
    assert_eq!((second, found), (Some(ErrorKind::AlreadyExists), Some(first.id)));
}

async fn a_snapshot_of_no_sandbox_is_not_found(fixture: Fixture) {
    let image = "agentkernel-snap:conformance-none".parse().unwrap();
    assert_eq!(kind(images(&fixture).commit(&fixture.name(), &image).await), Some(ErrorKind::NotFound));
}

async fn pruning_keeps_what_has_a_name(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let image = name_for(&sandbox);
    images(&fixture).commit(sandbox.name(), &image).await.unwrap();
    images(&fixture).prune().await.unwrap();
    let kept = images(&fixture).inspect(&image).await.unwrap();
    images(&fixture).remove(&image).await.unwrap();
    assert!(kept.is_some());
}
