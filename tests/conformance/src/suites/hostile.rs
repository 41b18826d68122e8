//! Commands against what reaches into their sandbox for the caller. They need programs that no shell can replace: see
//! [`Kit::with_intruder`](crate::Kit::with_intruder).
use std::{sync::Arc, time::Duration};

use agentkernel_core::{
    Error, ErrorKind, ExecOptions, ExecSession, ExitStatus, Sandbox, TtySize, WriteOptions,
};

use crate::{
    fixture::{Fixture, command, end, output, path, read_until, script, script_with, sh},
    rule::rules,
    wait::{eventually, soon},
};

rules![
    a_leased_file_of_users_holds_up_no_command[Files],
    a_leased_file_of_users_holds_up_no_command_of_a_named_user[Files, ExecUser],
    a_leased_terminal_holds_up_no_command[Files, ExecTty],
    a_traced_command_still_times_out[Files, KillTree],
    a_tracer_of_everything_ends_with_its_session[Files, KillTree],
];

const PROGRAM: &str = "/tmp/intruder";

/// Starts the intruder and returns it once it is at work.
async fn intruder(fixture: &Fixture, sandbox: &Arc<dyn Sandbox>, arguments: &[&str]) -> ExecSession {
    let program = fixture.intruder();
    let options = WriteOptions { mode: Some(0o755), ..WriteOptions::default() };
    sandbox.write(&path(PROGRAM), &options, &mut program.as_slice()).await.unwrap();
    let mut session = sandbox.spawn(&command(&[&[PROGRAM], arguments].concat())).await.unwrap();
    soon("the intruder is at work", read_until(&mut session, "ready\n")).await;
    session
}

/// What a command of a hostile sandbox may come to: its own end, or a refusal with a reason.
fn is_answer(result: &Result<ExitStatus, Error>, own: ExitStatus) -> bool {
    match result {
        Ok(status) => *status == own,
        Err(refused) => !matches!(refused.kind(), ErrorKind::Timeout | ErrorKind::Disconnected),
    }
}

async fn a_leased_file_of_users_holds_up_no_command(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let held = intruder(&fixture, &sandbox, &["lease", "/etc/passwd", "/etc/group"]).await;
    let plain = soon("the command ends", output(&sandbox, &script("exit 4"))).await;
    assert_eq!(plain.status, ExitStatus::Code(4));
    drop(held);
}

async fn a_leased_file_of_users_holds_up_no_command_of_a_named_user(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let held = intruder(&fixture, &sandbox, &["lease", "/etc/passwd", "/etc/group"]).await;
    let spec = script_with("exit 3", ExecOptions::default().with_user("user".parse().unwrap()));
    let ended = async { Ok(end(sandbox.spawn(&spec).await?).await) };
    let ended = soon("the command ends or is refused", ended).await;
    assert!(is_answer(&ended, ExitStatus::Code(3)), "{ended:?}");
    drop(held);
}

async fn a_leased_terminal_holds_up_no_command(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let devices = ["lease", "/dev/ptmx", "/dev/pts/ptmx", "/dev/pts/0", "/dev/tty", "/dev/null"];
    let held = intruder(&fixture, &sandbox, &devices).await;
    let spec = script_with("exit 3", ExecOptions::default().with_tty(TtySize { rows: 24, columns: 80 }));
    let ended = async { Ok(end(sandbox.spawn(&spec).await?).await) };
    let ended = soon("the command on a terminal ends or is refused", ended).await;
    assert!(is_answer(&ended, ExitStatus::Code(3)), "{ended:?}");
    let plain = soon("the command ends", output(&sandbox, &script("exit 4"))).await;
    assert_eq!(plain.status, ExitStatus::Code(4));
    drop(held);
}

/// Succeeds if none of the noted processes runs: of what is traced, the tracer keeps a dead remainder.
const NONE_RUNS: &str = r#"for pid in $(cat /tmp/pids); do
    while read -r key value; do
        case "$key$value" in State:[ZX]*) ;; State:*) exit 1 ;; esac
    done 2>/dev/null </proc/$pid/status
done; exit 0"#;

async fn a_traced_command_still_times_out(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let held = intruder(&fixture, &sandbox, &["seize"]).await;
    let tree = "echo $$ >>/tmp/pids; (setsid sh -c 'echo $$ >>/tmp/pids; exec sleep 1000' &)
until [ \"$(cat /tmp/pids | wc -l)\" -ge 2 ]; do sleep 0.05; done; sleep 1000";
    let spec = script_with(tree, ExecOptions::default().with_timeout(Duration::from_secs(1)));
    let session = sandbox.spawn(&spec).await.unwrap();
    assert_eq!(soon("the timeout ends it", end(session)).await, ExitStatus::TimedOut);
    eventually!("the whole tree is dead", {
        output(&sandbox, &script(NONE_RUNS)).await.status == ExitStatus::Code(0)
    });
    drop(held);
}

async fn a_tracer_of_everything_ends_with_its_session(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let beside = sandbox.spawn(&script("trap '' TERM; sleep 1000")).await.unwrap();
    let held = intruder(&fixture, &sandbox, &["seize"]).await;
    drop(held);
    eventually!("the tracer is gone", {
        sandbox.commands().await.unwrap().iter().filter(|info| info.running).count() == 1
    });
    drop(beside);
    eventually!("what it traced is gone", {
        sandbox.commands().await.unwrap().iter().all(|info| !info.running)
    });
    assert_eq!(sh(&sandbox, "echo alive").await, "alive\n");
}
