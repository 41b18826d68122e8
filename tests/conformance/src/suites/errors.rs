//! Refusals: before anything is made, of the right kind, and leaving nothing.
use std::time::Duration;

use agentkernel_core::{
    Depth, ErrorKind, FileInjection, Isolation, PullPolicy, Replay, SandboxConfig, SandboxExt, WriteOptions,
};

use super::lifecycle::detached;
use crate::{
    fixture::{Fixture, command, contains, kind, path},
    rule::rules,
};

rules![
    a_stronger_isolation_than_there_is_is_refused,
    a_wrong_config_is_refused_and_leaves_nothing,
    a_missing_image_is_not_found_and_leaves_nothing,
    a_start_that_fails_halfway_leaves_nothing[Files],
    an_error_shows_no_value_of_a_variable,
    the_name_of_a_running_one_is_taken,
    the_name_of_a_stopped_one_is_taken[Persistence],
    commands_in_an_absent_one_are_not_found,
    files_of_an_absent_one_are_not_found[Files],
    booting_an_absent_one_is_not_found,
    halting_an_absent_one_is_not_found,
    commands_in_a_stopped_one_are_refused[Persistence],
    files_of_a_stopped_one_are_refused[Persistence, Files],
    commands_in_a_removed_one_are_not_found,
    an_error_after_a_broken_call_leaves_the_sandbox_usable,
];

async fn refused(fixture: &Fixture, config: &SandboxConfig) -> Option<ErrorKind> {
    let sandbox = fixture.backend().sandbox(fixture.name());
    let refused = kind(sandbox.start(config).await);
    assert!(!fixture.is_listed(sandbox.name()).await, "a refused start left a sandbox");
    refused
}

async fn a_stronger_isolation_than_there_is_is_refused(fixture: Fixture) {
    let mut config = fixture.config();
    let has = fixture.capabilities().isolation();
    config.isolation = Isolation::ALL.iter().copied().find(|class| *class > has);
    if config.isolation.is_some() {
        assert_eq!(refused(&fixture, &config).await, Some(ErrorKind::Unsupported));
    }
}

async fn a_wrong_config_is_refused_and_leaves_nothing(fixture: Fixture) {
    let wrong: [fn(&mut SandboxConfig); 5] = [
        |config| config.cwd = Some("relative".into()),
        |config| config.image = Some("-v/:/host".into()),
        |config| config.env = [("A B".to_owned(), "1".to_owned())].into(),
        |config| config.labels = [("agentkernel.owner".to_owned(), "evil".to_owned())].into(),
        |config| config.time_to_live = Some(Duration::ZERO),
    ];
    for make_wrong in wrong {
        let mut config = fixture.config();
        make_wrong(&mut config);
        assert_eq!(refused(&fixture, &config).await, Some(ErrorKind::InvalidConfig), "{config:?}");
    }
}

async fn a_missing_image_is_not_found_and_leaves_nothing(fixture: Fixture) {
    let mut config = fixture.config();
    config.image = Some("agentkernel-nosuch".into());
    config.pull = PullPolicy::Never;
    assert_eq!(refused(&fixture, &config).await, Some(ErrorKind::NotFound));
}

async fn a_start_that_fails_halfway_leaves_nothing(fixture: Fixture) {
    let mut config = fixture.config();
    config.files.push(FileInjection::new(&path("/etc/passwd/file"), *b"x"));
    assert!(refused(&fixture, &config).await.is_some());
}

async fn an_error_shows_no_value_of_a_variable(fixture: Fixture) {
    let mut config = fixture.config();
    config.env.insert("TOKEN".into(), "the-secret".into());
    config.image = Some("agentkernel-nosuch".into());
    config.pull = PullPolicy::Never;
    let error = fixture.backend().sandbox(fixture.name()).start(&config).await.unwrap_err();
    assert!(!contains(format!("{error:?} {error}").as_bytes(), "the-secret"));
}

async fn the_name_of_a_running_one_is_taken(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let second = fixture.backend().sandbox(sandbox.name().clone());
    assert_eq!(kind(second.start(&fixture.config()).await), Some(ErrorKind::AlreadyExists));
}

async fn the_name_of_a_stopped_one_is_taken(fixture: Fixture) {
    let sandbox = fixture.start_with(&detached(&fixture)).await;
    sandbox.stop().await.unwrap();
    let second = fixture.backend().sandbox(sandbox.name().clone());
    assert_eq!(kind(second.start(&fixture.config()).await), Some(ErrorKind::AlreadyExists));
}

async fn commands_in_an_absent_one_are_not_found(fixture: Fixture) {
    let sandbox = fixture.backend().sandbox(fixture.name());
    let kinds = [
        kind(sandbox.spawn(&command(&["true"])).await.map(drop)),
        kind(sandbox.commands().await.map(drop)),
        kind(sandbox.exec(&["true"]).await.map(drop)),
    ];
    assert_eq!(kinds, [Some(ErrorKind::NotFound); 3]);
}

async fn files_of_an_absent_one_are_not_found(fixture: Fixture) {
    let sandbox = fixture.backend().sandbox(fixture.name());
    let at = path("/tmp/file");
    let kinds = [
        kind(sandbox.open(&at).await.map(drop)),
        kind(sandbox.write(&at, &WriteOptions::default(), &mut b"x".as_slice()).await),
        kind(sandbox.metadata(&at).await.map(drop)),
        kind(sandbox.create_dir(&at, Depth::One).await),
        kind(sandbox.remove_path(&at, Depth::One).await),
        kind(sandbox.pack(&at).await.map(drop)),
    ];
    assert_eq!(kinds, [Some(ErrorKind::NotFound); 6]);
}

async fn booting_an_absent_one_is_not_found(fixture: Fixture) {
    let booted = fixture.backend().sandbox(fixture.name()).boot().await;
    assert_eq!(kind(booted), Some(ErrorKind::NotFound));
}

async fn halting_an_absent_one_is_not_found(fixture: Fixture) {
    let halted = fixture.backend().sandbox(fixture.name()).halt(Duration::ZERO).await;
    assert_eq!(kind(halted), Some(ErrorKind::NotFound));
}

async fn commands_in_a_stopped_one_are_refused(fixture: Fixture) {
    let sandbox = fixture.start_with(&detached(&fixture)).await;
    sandbox.stop().await.unwrap();
    let kinds = [
        kind(sandbox.spawn(&command(&["true"])).await.map(drop)),
        kind(sandbox.attach(&1.into(), Replay::None).await.map(drop)),
    ];
    assert_eq!(kinds, [Some(ErrorKind::NotRunning); 2]);
}

async fn files_of_a_stopped_one_are_refused(fixture: Fixture) {
    let sandbox = fixture.start_with(&detached(&fixture)).await;
    sandbox.stop().await.unwrap();
    let kinds = [
        kind(sandbox.open(&path("/etc/passwd")).await.map(drop)),
        kind(sandbox.metadata(&path("/etc/passwd")).await.map(drop)),
    ];
    assert_eq!(kinds, [Some(ErrorKind::NotRunning); 2]);
}

async fn commands_in_a_removed_one_are_not_found(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sandbox.remove().await.unwrap();
    let spawned = sandbox.spawn(&command(&["true"])).await.map(drop);
    assert_eq!(kind(spawned), Some(ErrorKind::NotFound));
}

async fn an_error_after_a_broken_call_leaves_the_sandbox_usable(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let _refused = sandbox.exec(&["nosuch-program"]).await;
    let _missing = sandbox.read_file("/no/file").await;
    assert!(sandbox.exec(&["true"]).await.unwrap().is_success());
}
