//! From `create` to `remove`: which states there are and which calls move between them.
use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use agentkernel_core::{
    Error, ErrorKind, ExecOptions, ExecSession, ExitStatus, Lifetime, Sandbox, SandboxConfig, SandboxExt,
    State,
};

use crate::{
    fixture::{Fixture, command, content, end, kind, output, read_until, script, sh},
    rule::rules,
    wait::{eventually, soon},
};

rules![
    a_probe_succeeds,
    a_started_sandbox_runs,
    a_created_sandbox_does_not_run_yet,
    a_created_sandbox_runs_after_boot,
    booting_a_running_one_succeeds,
    stop_is_idempotent,
    stop_of_an_absent_one_succeeds,
    stop_of_an_owned_one_removes_it,
    stop_of_a_detached_one_keeps_it[Persistence],
    a_stopped_one_boots_again[Persistence],
    files_survive_stop_and_boot[Persistence, Files],
    a_command_cannot_make_the_next_boot_hang[Persistence],
    halt_of_a_stopped_one_succeeds[Persistence],
    halt_ends_commands_and_never_as_a_success,
    halt_lets_commands_end_politely[Persistence, Files],
    halt_ends_by_force_what_ignores_it[Persistence],
    remove_of_an_absent_one_succeeds,
    remove_of_a_running_one_removes_it,
    remove_is_idempotent,
    a_removed_name_can_be_used_again,
    a_main_command_gives_its_own_status,
    the_sandbox_ends_with_its_main_command,
    a_main_command_ends_what_runs_beside_it,
    a_main_command_that_is_missing_leaves_no_sandbox[TypedExit],
    the_exit_code_of_the_main_command_is_kept[Persistence],
    inspect_tells_what_was_made,
    inspect_of_an_absent_one_is_not_found,
    is_running_of_an_absent_one_is_false,
    a_name_of_full_length_works,
];

/// Returns the config of a sandbox that stays.
pub(super) fn detached(fixture: &Fixture) -> SandboxConfig {
    let mut config = fixture.config();
    config.lifetime = Lifetime::Detached;
    config
}

/// Makes a sandbox without booting it.
async fn create(fixture: &Fixture) -> Arc<dyn Sandbox> {
    let sandbox = fixture.backend().sandbox(fixture.name());
    let spec = fixture.config().resolve(fixture.capabilities(), sandbox.host()).unwrap();
    sandbox.create(&spec).await.unwrap();
    sandbox
}

async fn a_probe_succeeds(fixture: Fixture) {
    fixture.backend().probe().await.unwrap();
}

async fn a_started_sandbox_runs(fixture: Fixture) {
    let sandbox = fixture.start().await;
    assert_eq!(sandbox.inspect().await.unwrap().state, State::Running);
}

async fn a_created_sandbox_does_not_run_yet(fixture: Fixture) {
    let sandbox = create(&fixture).await;
    assert_eq!(sandbox.inspect().await.unwrap().state, State::Created);
}

async fn a_created_sandbox_runs_after_boot(fixture: Fixture) {
    let sandbox = create(&fixture).await;
    sandbox.boot().await.unwrap();
    assert_eq!(output(&sandbox, &command(&["true"])).await.status, ExitStatus::Code(0));
}

async fn booting_a_running_one_succeeds(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sandbox.boot().await.unwrap();
    assert!(sandbox.is_running().await.unwrap());
}

async fn stop_is_idempotent(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sandbox.stop().await.unwrap();
    assert_eq!(kind(sandbox.stop().await), None);
}

async fn stop_of_an_absent_one_succeeds(fixture: Fixture) {
    assert_eq!(kind(fixture.backend().sandbox(fixture.name()).stop().await), None);
}

async fn stop_of_an_owned_one_removes_it(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sandbox.stop().await.unwrap();
    assert!(!fixture.is_listed(sandbox.name()).await);
}

async fn stop_of_a_detached_one_keeps_it(fixture: Fixture) {
    let sandbox = fixture.start_with(&detached(&fixture)).await;
    sandbox.stop().await.unwrap();
    assert_eq!(sandbox.inspect().await.unwrap().state, State::Stopped);
}

async fn a_stopped_one_boots_again(fixture: Fixture) {
    let sandbox = fixture.start_with(&detached(&fixture)).await;
    sandbox.stop().await.unwrap();
    sandbox.boot().await.unwrap();
    assert_eq!(output(&sandbox, &command(&["true"])).await.status, ExitStatus::Code(0));
}

async fn files_survive_stop_and_boot(fixture: Fixture) {
    let sandbox = fixture.start_with(&detached(&fixture)).await;
    sandbox.write_file("/kept/file", b"content").await.unwrap();
    sandbox.stop().await.unwrap();
    sandbox.boot().await.unwrap();
    assert_eq!(sandbox.read_file("/kept/file").await.unwrap(), b"content");
}

/// Whoever boots a sandbox may look up users in these files, and must not wait for somebody to write to them.
async fn a_command_cannot_make_the_next_boot_hang(fixture: Fixture) {
    let sandbox = fixture.start_with(&detached(&fixture)).await;
    sh(&sandbox, "rm -f /etc/passwd /etc/group; mkfifo /etc/passwd /etc/group").await;
    sandbox.stop().await.unwrap();
    match soon("the boot succeeds or is refused", sandbox.boot()).await {
        Ok(()) => assert_eq!(output(&sandbox, &command(&["true"])).await.status, ExitStatus::Code(0)),
        Err(refused) => assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused:?}"),
    }
    soon("it can be looked at", sandbox.inspect()).await.unwrap();
    soon("it can be removed", sandbox.remove()).await.unwrap();
    assert!(!fixture.is_listed(sandbox.name()).await);
}

async fn halt_of_a_stopped_one_succeeds(fixture: Fixture) {
    let sandbox = fixture.start_with(&detached(&fixture)).await;
    sandbox.stop().await.unwrap();
    assert_eq!(kind(sandbox.halt(Duration::from_secs(1)).await), None);
}

async fn halt_ends_commands_and_never_as_a_success(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let mut session = sandbox.spawn(&script("echo ready; sleep 1000")).await.unwrap();
    read_until(&mut session, "ready").await;
    sandbox.halt(Duration::from_secs(1)).await.unwrap();
    let ended = soon("the session ends", session.collect()).await;
    match ended {
        Ok(output) => assert_ne!(output.status, ExitStatus::Code(0)),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Disconnected),
    }
}

async fn halt_lets_commands_end_politely(fixture: Fixture) {
    let sandbox = fixture.start_with(&detached(&fixture)).await;
    let polite = "trap 'echo bye >/bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done";
    let mut session = sandbox.spawn(&script(polite)).await.unwrap();
    read_until(&mut session, "ready").await;
    sandbox.halt(Duration::from_secs(20)).await.unwrap();
    sandbox.boot().await.unwrap();
    assert_eq!(content(&sandbox, "/bye").await.unwrap(), b"bye\n");
}

async fn halt_ends_by_force_what_ignores_it(fixture: Fixture) {
    let sandbox = fixture.start_with(&detached(&fixture)).await;
    let stubborn = "trap '' TERM INT HUP; echo ready; while :; do sleep 0.05; done";
    let mut session = sandbox.spawn(&script(stubborn)).await.unwrap();
    read_until(&mut session, "ready").await;
    soon("halt returns", sandbox.halt(Duration::from_millis(200))).await.unwrap();
    assert_eq!(sandbox.inspect().await.unwrap().state, State::Stopped);
}

async fn remove_of_an_absent_one_succeeds(fixture: Fixture) {
    assert_eq!(kind(fixture.backend().sandbox(fixture.name()).remove().await), None);
}

async fn remove_of_a_running_one_removes_it(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sandbox.remove().await.unwrap();
    assert!(!fixture.is_listed(sandbox.name()).await);
}

async fn remove_is_idempotent(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sandbox.remove().await.unwrap();
    assert_eq!(kind(sandbox.remove().await), None);
}

async fn a_removed_name_can_be_used_again(fixture: Fixture) {
    let first = fixture.start().await;
    first.remove().await.unwrap();
    let second = fixture.backend().sandbox(first.name().clone());
    second.start(&fixture.config()).await.unwrap();
    assert!(second.is_running().await.unwrap());
}

/// Starts a sandbox with a main command.
async fn run(
    fixture: &Fixture,
    config: &SandboxConfig,
    text: &str,
) -> Result<(Arc<dyn Sandbox>, ExecSession), Error> {
    let sandbox = fixture.backend().sandbox(fixture.name());
    let session = sandbox.run(config, script(text)).await?;
    Ok((sandbox, session))
}

async fn a_main_command_gives_its_own_status(fixture: Fixture) {
    let (_sandbox, session) = run(&fixture, &fixture.config(), "exit 3").await.unwrap();
    assert_eq!(end(session).await, ExitStatus::Code(3));
}

async fn the_sandbox_ends_with_its_main_command(fixture: Fixture) {
    let (sandbox, session) = run(&fixture, &fixture.config(), "exit 0").await.unwrap();
    end(session).await;
    eventually!("the sandbox ends", !sandbox.is_running().await.unwrap());
}

async fn a_main_command_ends_what_runs_beside_it(fixture: Fixture) {
    let wait = "until test -e /tmp/go; do sleep 0.05; done";
    let (sandbox, session) = run(&fixture, &fixture.config(), wait).await.unwrap();
    let mut beside =
        sandbox.spawn(&script("echo ready; touch /tmp/go; while :; do sleep 0.05; done")).await.unwrap();
    read_until(&mut beside, "ready").await;
    end(session).await;
    let ended = soon("the other command ends", beside.collect()).await;
    assert!(!ended.is_ok_and(|output| output.status == ExitStatus::Code(0)));
}

async fn a_main_command_that_is_missing_leaves_no_sandbox(fixture: Fixture) {
    let sandbox = fixture.backend().sandbox(fixture.name());
    let missing = crate::fixture::command_with(&["nosuch-program"], ExecOptions::default());
    let refused = sandbox.run(&fixture.config(), missing).await.map(drop);
    assert_eq!(kind(refused), Some(ErrorKind::CommandNotFound));
    assert!(!fixture.is_listed(sandbox.name()).await);
}

async fn the_exit_code_of_the_main_command_is_kept(fixture: Fixture) {
    let (sandbox, session) = run(&fixture, &detached(&fixture), "exit 3").await.unwrap();
    end(session).await;
    eventually!("the sandbox ends", !sandbox.is_running().await.unwrap());
    assert_eq!(sandbox.inspect().await.unwrap().exit_code, Some(3));
}

async fn inspect_tells_what_was_made(fixture: Fixture) {
    let mut config = fixture.config();
    config.labels.insert("task".into(), "a=b, c\n\u{e9}".into());
    let sandbox = fixture.start_with(&config).await;
    let info = sandbox.inspect().await.unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(
        (&info.name, info.backend, info.isolation, info.lifetime, &info.labels, info.deadline),
        (
            sandbox.name(),
            fixture.backend().backend_type(),
            fixture.capabilities().isolation(),
            Lifetime::Owned,
            &config.labels,
            None
        )
    );
    assert_eq!(Some(info.image), config.image);
    assert!(info.created.abs_diff(now) < 3600, "created {} and now is {now}", info.created);
}

async fn inspect_of_an_absent_one_is_not_found(fixture: Fixture) {
    let inspected = fixture.backend().sandbox(fixture.name()).inspect().await;
    assert_eq!(kind(inspected), Some(ErrorKind::NotFound));
}

async fn is_running_of_an_absent_one_is_false(fixture: Fixture) {
    assert!(!fixture.backend().sandbox(fixture.name()).is_running().await.unwrap());
}

async fn a_name_of_full_length_works(fixture: Fixture) {
    let short = fixture.name();
    let long = fixture.registered(&format!("{}{}", &*short, "x".repeat(48 - short.len())));
    let sandbox = fixture.backend().sandbox(long);
    sandbox.start(&fixture.config()).await.unwrap();
    assert!(sandbox.is_running().await.unwrap());
}
