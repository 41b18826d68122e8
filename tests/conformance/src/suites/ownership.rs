//! Owners: a sandbox ends with its owner, unless it was detached on purpose, and nobody else's is touched.
use std::time::Duration;

use agentkernel_core::{ErrorKind, Liveness, Reap, SandboxExt, State};

use super::lifecycle::detached;
use crate::{
    fixture::{Fixture, command, kind, output},
    rule::rules,
    wait::eventually,
};

rules![
    dropping_the_owner_ends_the_sandbox[Lease],
    dropping_the_owner_ends_a_created_one[Lease],
    dropping_a_reference_ends_nothing,
    dropping_the_owner_of_a_detached_one_ends_nothing[Persistence],
    a_create_that_lost_owns_nothing,
    the_owner_is_told,
    an_owned_one_is_alive,
    a_detached_one_has_no_owner_to_die_with[Persistence],
    reaping_leaves_the_living,
    showing_what_could_be_reaped_removes_nothing[Persistence],
    a_deadline_is_told,
    a_deadline_ends_an_owned_one,
    a_deadline_ends_a_detached_one[Persistence],
    what_is_past_its_deadline_is_reaped[Persistence],
    a_handle_does_not_touch_a_namesake,
    a_reference_does_not_touch_a_namesake_of_what_it_saw,
    the_owner_of_a_removed_one_does_not_end_a_namesake[Lease],
    a_reference_finds_what_another_handle_made,
];

async fn dropping_the_owner_ends_the_sandbox(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let name = sandbox.name().clone();
    drop(sandbox);
    eventually!("the sandbox is gone", !fixture.is_listed(&name).await);
}

async fn dropping_the_owner_ends_a_created_one(fixture: Fixture) {
    let sandbox = fixture.backend().sandbox(fixture.name());
    let spec = fixture.config().resolve(fixture.capabilities(), sandbox.host()).unwrap();
    sandbox.create(&spec).await.unwrap();
    let name = sandbox.name().clone();
    drop(sandbox);
    eventually!("the sandbox is gone", !fixture.is_listed(&name).await);
}

async fn dropping_a_reference_ends_nothing(fixture: Fixture) {
    let owner = fixture.start().await;
    let reference = fixture.backend().sandbox(owner.name().clone());
    reference.exec(&["true"]).await.unwrap();
    drop(reference);
    assert!(owner.exec(&["true"]).await.unwrap().is_success());
}

async fn dropping_the_owner_of_a_detached_one_ends_nothing(fixture: Fixture) {
    let owner = fixture.start_with(&detached(&fixture)).await;
    let name = owner.name().clone();
    drop(owner);
    let reference = fixture.backend().sandbox(name);
    assert!(reference.exec(&["true"]).await.unwrap().is_success());
}

async fn a_create_that_lost_owns_nothing(fixture: Fixture) {
    let owner = fixture.start().await;
    let loser = fixture.backend().sandbox(owner.name().clone());
    assert_eq!(kind(loser.start(&fixture.config()).await), Some(ErrorKind::AlreadyExists));
    drop(loser);
    assert!(owner.exec(&["true"]).await.unwrap().is_success());
}

async fn the_owner_is_told(fixture: Fixture) {
    let sandbox = fixture.start().await;
    assert_eq!(sandbox.inspect().await.unwrap().owner.as_ref(), Some(&sandbox.host().owner));
}

async fn an_owned_one_is_alive(fixture: Fixture) {
    let sandbox = fixture.start().await;
    assert_eq!(sandbox.inspect().await.unwrap().liveness, Liveness::Alive);
}

async fn a_detached_one_has_no_owner_to_die_with(fixture: Fixture) {
    let sandbox = fixture.start_with(&detached(&fixture)).await;
    assert_eq!(sandbox.inspect().await.unwrap().liveness, Liveness::Detached);
}

async fn reaping_leaves_the_living(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let reaped = fixture.backend().reap(Reap::Remove).await.unwrap();
    assert!(!reaped.iter().any(|reaped| reaped.name == *sandbox.name()));
    assert!(sandbox.exec(&["true"]).await.unwrap().is_success());
}

async fn showing_what_could_be_reaped_removes_nothing(fixture: Fixture) {
    let sandbox = fixture.start_with(&detached(&fixture)).await;
    fixture.backend().reap(Reap::Show).await.unwrap();
    assert!(sandbox.exec(&["true"]).await.unwrap().is_success());
}

const TIME_TO_LIVE: Option<Duration> = Some(Duration::from_secs(3));

async fn a_deadline_is_told(fixture: Fixture) {
    let mut config = fixture.config();
    config.time_to_live = Some(Duration::from_secs(1000));
    let info = fixture.start_with(&config).await.inspect().await.unwrap();
    assert!(info.deadline.unwrap().abs_diff(info.created + 1000) <= 2);
}

async fn a_deadline_ends_an_owned_one(fixture: Fixture) {
    let mut config = fixture.config();
    config.time_to_live = TIME_TO_LIVE;
    let sandbox = fixture.start_with(&config).await;
    eventually!("the deadline ends it", !sandbox.is_running().await.unwrap());
}

async fn a_deadline_ends_a_detached_one(fixture: Fixture) {
    let mut config = detached(&fixture);
    config.time_to_live = TIME_TO_LIVE;
    let owner = fixture.start_with(&config).await;
    let sandbox = fixture.backend().sandbox(owner.name().clone());
    drop(owner);
    eventually!("the deadline ends it", !sandbox.is_running().await.unwrap());
}

async fn what_is_past_its_deadline_is_reaped(fixture: Fixture) {
    let mut config = detached(&fixture);
    config.time_to_live = TIME_TO_LIVE;
    let sandbox = fixture.start_with(&config).await;
    eventually!("it is reaped", {
        fixture.backend().reap(Reap::Remove).await.unwrap();
        !fixture.is_listed(sandbox.name()).await
    });
}

async fn a_handle_does_not_touch_a_namesake(fixture: Fixture) {
    let first = fixture.start().await;
    fixture.backend().sandbox(first.name().clone()).remove().await.unwrap();
    let namesake = fixture.backend().sandbox(first.name().clone());
    namesake.start(&fixture.config()).await.unwrap();
    let spawned = first.spawn(&command(&["true"])).await.map(drop);
    first.remove().await.unwrap();
    assert_eq!(
        (kind(spawned), namesake.inspect().await.unwrap().state),
        (Some(ErrorKind::NotFound), State::Running)
    );
}

async fn a_reference_does_not_touch_a_namesake_of_what_it_saw(fixture: Fixture) {
    let first = fixture.start().await;
    let reference = fixture.backend().sandbox(first.name().clone());
    reference.inspect().await.unwrap();
    first.remove().await.unwrap();
    let namesake = fixture.backend().sandbox(first.name().clone());
    namesake.start(&fixture.config()).await.unwrap();
    reference.stop().await.unwrap();
    reference.remove().await.unwrap();
    assert_eq!(namesake.inspect().await.unwrap().state, State::Running);
}

async fn the_owner_of_a_removed_one_does_not_end_a_namesake(fixture: Fixture) {
    let first = fixture.start().await;
    fixture.backend().sandbox(first.name().clone()).remove().await.unwrap();
    let namesake = fixture.backend().sandbox(first.name().clone());
    namesake.start(&fixture.config()).await.unwrap();
    drop(first);
    for _ in 0..5 {
        assert!(namesake.exec(&["true"]).await.unwrap().is_success());
    }
}

async fn a_reference_finds_what_another_handle_made(fixture: Fixture) {
    let owner = fixture.start().await;
    let reference = fixture.backend().sandbox(owner.name().clone());
    assert_eq!(output(&reference, &command(&["echo", "found"])).await.stdout, "found\n");
}
