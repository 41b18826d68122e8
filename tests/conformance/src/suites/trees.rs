//! Processes of a command: all of them end when it is ended, what it left behind lives on, and both can be seen.
use std::{sync::Arc, time::Duration};

use agentkernel_core::{
    CommandInfo, ErrorKind, ExecEvent, ExecId, ExecOptions, ExitStatus, Replay, Sandbox, SandboxExt, Signal,
};

use crate::{
    fixture::{Fixture, command, end, kind, output, read_until, script, script_with, sh},
    rule::rules,
    wait::{eventually, soon},
};

rules![
    a_dropped_session_kills_the_command,
    a_dropped_session_kills_the_whole_tree[KillTree],
    a_dropped_future_of_exec_kills_the_command,
    a_timeout_kills_the_whole_tree[KillTree],
    what_a_command_left_behind_lives_on[KillTree],
    what_was_left_behind_ends_with_the_sandbox[Persistence],
    a_running_command_is_listed,
    an_ended_command_is_not_listed_as_running,
    a_command_that_left_something_behind_is_listed[KillTree],
    a_signal_reaches_the_command[ExecSignal],
    a_signal_that_is_not_caught_ends_the_command[ExecSignal],
    a_signal_reaches_the_children[ExecSignal],
    a_signal_after_the_end_has_no_effect[ExecSignal],
    the_control_outlives_the_session[ExecSignal],
    a_detached_command_outlives_its_session[ExecDetached],
    a_command_can_be_detached_while_it_runs[ExecDetached],
    a_detached_command_is_listed_as_such[ExecDetached],
    attaching_replays_what_was_kept[ExecDetached],
    attaching_goes_on_with_what_comes[ExecDetached],
    the_end_of_a_detached_command_is_kept[ExecDetached],
    attaching_to_nothing_is_not_found[ExecDetached],
    dropping_an_attached_session_kills_no_detached_command[ExecDetached],
    whoever_comes_later_finds_what_a_detached_command_left[ExecDetached],
    whoever_comes_later_can_kill_a_detached_command[ExecDetached, ExecSignal],
    the_deadline_of_a_detached_command_needs_nobody[ExecDetached],
    of_much_output_the_last_is_kept[ExecDetached],
];

/// Starts four processes that note their ids: itself, a child, a child that ignores signals, and a daemon in a session
/// of its own whose parent is gone.
const TREE: &str = r#"trap '' TERM HUP INT
one='echo $$ >>/tmp/pids; exec sleep 1000'
sh -c "$one" &
(setsid sh -c "$one" &)
sh -c "trap '' TERM HUP INT; $one" &
echo $$ >>/tmp/pids
until [ "$(cat /tmp/pids | wc -l)" -ge 4 ]; do sleep 0.05; done
echo ready
sleep 1000
"#;

/// Ends with success if none of the noted processes lives.
const NONE_LIVES: &str = "for pid in $(cat /tmp/pids); do kill -0 $pid 2>/dev/null && exit 1; done; exit 0";

/// Waits until none of the noted processes lives.
async fn none_lives(sandbox: &Arc<dyn Sandbox>) {
    eventually!("the whole tree is gone", {
        output(sandbox, &script(NONE_LIVES)).await.status == ExitStatus::Code(0)
    });
}

/// Returns whether the process whose id is in the file lives.
async fn lives(sandbox: &Arc<dyn Sandbox>) -> bool {
    output(sandbox, &script("kill -0 $(cat /tmp/pid) 2>/dev/null")).await.status == ExitStatus::Code(0)
}

async fn listed(sandbox: &Arc<dyn Sandbox>, id: &ExecId) -> Option<CommandInfo> {
    sandbox.commands().await.unwrap().into_iter().find(|info| info.id == *id)
}

async fn a_dropped_session_kills_the_command(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let mut session = sandbox.spawn(&script("echo $$ >/tmp/pid; echo ready; exec sleep 1000")).await.unwrap();
    read_until(&mut session, "ready").await;
    drop(session);
    eventually!("the command is gone", !lives(&sandbox).await);
}

async fn a_dropped_session_kills_the_whole_tree(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let mut session = sandbox.spawn(&script(TREE)).await.unwrap();
    read_until(&mut session, "ready").await;
    drop(session);
    none_lives(&sandbox).await;
}

async fn a_dropped_future_of_exec_kills_the_command(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let running = Arc::clone(&sandbox);
    let text = "echo $$ >/tmp/pid.new; mv /tmp/pid.new /tmp/pid; exec sleep 1000";
    let task = tokio::spawn(async move { running.exec(&["sh", "-c", text]).await });
    eventually!("the command runs", lives(&sandbox).await);
    task.abort();
    eventually!("the command is gone", !lives(&sandbox).await);
}

async fn a_timeout_kills_the_whole_tree(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let options = ExecOptions::default().with_timeout(Duration::from_secs(4));
    let session = sandbox.spawn(&script_with(TREE, options)).await.unwrap();
    assert_eq!(soon("the timeout ends it", end(session)).await, ExitStatus::TimedOut);
    none_lives(&sandbox).await;
}

async fn what_a_command_left_behind_lives_on(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sh(&sandbox, "sleep 1000 & echo $! >/tmp/pid").await;
    assert!(lives(&sandbox).await);
}

async fn what_was_left_behind_ends_with_the_sandbox(fixture: Fixture) {
    let sandbox = fixture.start_with(&super::lifecycle::detached(&fixture)).await;
    let beat = "(while :; do echo x; sleep 0.05; done) >>/beat 2>/dev/null & true";
    sh(&sandbox, beat).await;
    soon("halt returns", sandbox.halt(Duration::from_millis(500))).await.unwrap();
    sandbox.boot().await.unwrap();
    let running = sandbox.commands().await.unwrap().into_iter().filter(|info| info.running).count();
    assert_eq!(running, 0);
}

async fn a_running_command_is_listed(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let session = sandbox.spawn(&command(&["sleep", "1000"])).await.unwrap();
    let info = listed(&sandbox, session.id()).await.unwrap();
    assert_eq!(
        (info.argv, info.exit, info.running, info.detached, info.main),
        (vec!["sleep".into(), "1000".into()], None, true, false, false)
    );
}

async fn an_ended_command_is_not_listed_as_running(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let session = sandbox.spawn(&command(&["true"])).await.unwrap();
    let id = session.id().clone();
    end(session).await;
    eventually!("the command is not running", {
        listed(&sandbox, &id).await.is_none_or(|info| !info.running)
    });
}

async fn a_command_that_left_something_behind_is_listed(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let session = sandbox.spawn(&script("sleep 1000 & exit 3")).await.unwrap();
    let id = session.id().clone();
    end(session).await;
    let info = listed(&sandbox, &id).await.unwrap();
    assert_eq!((info.exit, info.running), (Some(ExitStatus::Code(3)), true));
}

const CATCH: &str = "trap 'echo caught; exit 7' INT; echo ready; while :; do sleep 0.05; done";

async fn a_signal_reaches_the_command(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let mut session = sandbox.spawn(&script(CATCH)).await.unwrap();
    read_until(&mut session, "ready").await;
    session.control().signal(Signal::INT).await.unwrap();
    soon("the trap runs", read_until(&mut session, "caught")).await;
    assert_eq!(end(session).await, ExitStatus::Code(7));
}

async fn a_signal_that_is_not_caught_ends_the_command(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let session = sandbox.spawn(&command(&["sleep", "1000"])).await.unwrap();
    session.control().signal(Signal::TERM).await.unwrap();
    assert_eq!(soon("the command ends", end(session)).await, ExitStatus::Signal(Signal::TERM));
}

async fn a_signal_reaches_the_children(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let parent = "sh -c 'echo $$ >/tmp/pid; echo ready; exec sleep 1000'; exit 3";
    let mut session = sandbox.spawn(&script(parent)).await.unwrap();
    read_until(&mut session, "ready").await;
    session.control().signal(Signal::TERM).await.unwrap();
    eventually!("the child is gone", !lives(&sandbox).await);
}

async fn a_signal_after_the_end_has_no_effect(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let session = sandbox.spawn(&command(&["true"])).await.unwrap();
    let control = session.control();
    end(session).await;
    assert_eq!(kind(control.signal(Signal::TERM).await), None);
}

async fn the_control_outlives_the_session(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let mut session = sandbox.spawn(&script(CATCH)).await.unwrap();
    read_until(&mut session, "ready").await;
    let control = session.control();
    drop(session);
    assert_eq!(kind(control.signal(Signal::INT).await), None);
}

async fn a_detached_command_outlives_its_session(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let spec = script("echo $$ >/tmp/pid; echo ready; exec sleep 1000").detached();
    let mut session = sandbox.spawn(&spec).await.unwrap();
    read_until(&mut session, "ready").await;
    let id = session.id().clone();
    drop(session);
    assert!(lives(&sandbox).await);
    assert!(listed(&sandbox, &id).await.unwrap().running);
}

async fn a_command_can_be_detached_while_it_runs(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let spec = script("echo $$ >/tmp/pid; echo ready; exec sleep 1000");
    let mut session = sandbox.spawn(&spec).await.unwrap();
    read_until(&mut session, "ready").await;
    let id = session.detach().await.unwrap();
    assert!(lives(&sandbox).await);
    assert!(listed(&sandbox, &id).await.unwrap().running);
}

async fn a_detached_command_is_listed_as_such(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let session = sandbox.spawn(&command(&["sleep", "1000"]).detached()).await.unwrap();
    let info = listed(&sandbox, session.id()).await.unwrap();
    assert!(info.detached);
}

async fn attaching_replays_what_was_kept(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let mut session = sandbox.spawn(&script("echo ready; exec sleep 1000").detached()).await.unwrap();
    read_until(&mut session, "ready").await;
    let id = session.id().clone();
    drop(session);
    let mut again = sandbox.attach(&id, Replay::Kept).await.unwrap();
    assert_eq!(soon("the output comes again", read_until(&mut again, "\n")).await, b"ready\n");
}

async fn attaching_goes_on_with_what_comes(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let text = "echo ready; until test -e /tmp/go; do sleep 0.05; done; echo more; exit 4";
    let mut session = sandbox.spawn(&script(text).detached()).await.unwrap();
    read_until(&mut session, "ready").await;
    let id = session.detach().await.unwrap();
    let again = sandbox.attach(&id, Replay::None).await.unwrap();
    sh(&sandbox, "touch /tmp/go").await;
    let output = soon("the command ends", again.collect()).await.unwrap();
    assert_eq!((&*output.stdout, output.status), (&b"more\n"[..], ExitStatus::Code(4)));
}

async fn the_end_of_a_detached_command_is_kept(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let session = sandbox.spawn(&script("echo out; exit 5").detached()).await.unwrap();
    let id = session.detach().await.unwrap();
    eventually!("the command ends", {
        listed(&sandbox, &id).await.is_some_and(|info| info.exit == Some(ExitStatus::Code(5)))
    });
    let output = sandbox.attach(&id, Replay::Kept).await.unwrap().collect().await.unwrap();
    assert_eq!((&*output.stdout, output.status), (&b"out\n"[..], ExitStatus::Code(5)));
}

async fn attaching_to_nothing_is_not_found(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let attached = sandbox.attach(&987_654.into(), Replay::None).await.map(drop);
    assert_eq!(kind(attached), Some(ErrorKind::NotFound));
}

async fn dropping_an_attached_session_kills_no_detached_command(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let spec = script("echo $$ >/tmp/pid; echo ready; exec sleep 1000").detached();
    let id = sandbox.spawn(&spec).await.unwrap().detach().await.unwrap();
    let mut again = sandbox.attach(&id, Replay::Kept).await.unwrap();
    while let Some(Ok(event)) = again.next_event().await {
        if matches!(event, ExecEvent::Stdout(_)) {
            break;
        }
    }
    drop(again);
    assert!(lives(&sandbox).await);
}

async fn whoever_comes_later_finds_what_a_detached_command_left(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let spec = script("echo out; echo err >&2; exit 6").detached();
    let id = sandbox.spawn(&spec).await.unwrap().detach().await.unwrap();
    let later = fixture.backend().sandbox(sandbox.name().clone());
    for _ in 0..2 {
        let attached = later.attach(&id, Replay::Kept).await.unwrap();
        let output = soon("the command ends", attached.collect()).await.unwrap();
        assert_eq!((&*output.stdout, &*output.stderr), (&b"out\n"[..], &b"err\n"[..]));
        assert_eq!(output.status, ExitStatus::Code(6));
    }
    let info = listed(&later, &id).await.unwrap();
    assert_eq!((info.exit, info.running, info.detached), (Some(ExitStatus::Code(6)), false, true));
}

async fn whoever_comes_later_can_kill_a_detached_command(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let spec = script("echo $$ >/tmp/pid; echo ready; exec sleep 1000").detached();
    let mut session = sandbox.spawn(&spec).await.unwrap();
    read_until(&mut session, "ready").await;
    let id = session.detach().await.unwrap();
    let later = fixture.backend().sandbox(sandbox.name().clone());
    let attached = later.attach(&id, Replay::None).await.unwrap();
    attached.control().signal(Signal::KILL).await.unwrap();
    assert_eq!(soon("the command ends", end(attached)).await, ExitStatus::Signal(Signal::KILL));
    assert!(!lives(&sandbox).await);
    let info = listed(&sandbox, &id).await.unwrap();
    assert_eq!(info.exit, Some(ExitStatus::Signal(Signal::KILL)));
}

async fn the_deadline_of_a_detached_command_needs_nobody(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let options = ExecOptions::default().with_timeout(Duration::from_secs(1));
    let spec = script_with("echo $$ >/tmp/pid; echo ready; exec sleep 1000", options).detached();
    let id = sandbox.spawn(&spec).await.unwrap().detach().await.unwrap();
    let later = fixture.backend().sandbox(sandbox.name().clone());
    eventually!("the command is ended", {
        listed(&later, &id).await.is_some_and(|info| info.exit == Some(ExitStatus::TimedOut))
    });
    assert!(!lives(&later).await);
    let output = later.attach(&id, Replay::Kept).await.unwrap().collect().await.unwrap();
    assert_eq!((&*output.stdout, output.status), (&b"ready\n"[..], ExitStatus::TimedOut));
}

async fn of_much_output_the_last_is_kept(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let id = sandbox.spawn(&script("seq 1 300000").detached()).await.unwrap().detach().await.unwrap();
    eventually!("the command ends", listed(&sandbox, &id).await.is_some_and(|info| info.exit.is_some()));
    let output = sandbox.attach(&id, Replay::Kept).await.unwrap().collect().await.unwrap();
    let whole = (1..=300_000).map(|number| format!("{number}\n")).collect::<String>();
    assert!(!output.stdout.is_empty() && output.stdout.len() <= 1 << 20, "{}", output.stdout.len());
    assert!(whole.as_bytes().ends_with(&output.stdout));
    assert_eq!(output.status, ExitStatus::Code(0));
}
