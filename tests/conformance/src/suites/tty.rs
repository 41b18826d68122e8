//! Terminals: the command has a real one, of the right size, and keys reach it.
use agentkernel_core::{ExecOptions, ExecSession, ExitStatus, TtySize};
use tokio::io::AsyncWriteExt;

use crate::{
    fixture::{Fixture, command_with, contains, end, output, read_until, script, script_with},
    rule::rules,
    wait::soon,
};

rules![
    all_three_are_a_terminal[ExecTty],
    the_size_is_the_one_asked_for[ExecTty],
    a_resize_reaches_the_command[ExecTty, ExecStdin],
    both_streams_are_one[ExecTty],
    interrupt_is_a_key[ExecTty, ExecStdin],
    end_of_file_is_a_key[ExecTty, ExecStdin],
    keys_are_echoed[ExecTty, ExecStdin],
    the_status_is_the_commands_own[ExecTty],
    the_terminal_is_the_controlling_one[ExecTty],
    without_it_nothing_is_a_terminal,
];

const SIZE: TtySize = TtySize { rows: 41, columns: 102 };

fn options() -> ExecOptions {
    ExecOptions::default().with_tty(SIZE)
}

async fn all_three_are_a_terminal(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let spec = script_with("test -t 0 && test -t 1 && test -t 2", options());
    assert_eq!(output(&sandbox, &spec).await.status, ExitStatus::Code(0));
}

async fn the_size_is_the_one_asked_for(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let printed = output(&sandbox, &command_with(&["stty", "size"], options())).await.stdout;
    assert_eq!(String::from_utf8_lossy(&printed).trim(), "41 102");
}

async fn a_resize_reaches_the_command(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let text = "echo ready; until [ \"$(stty size)\" = '10 20' ]; do sleep 0.05; done; echo resized";
    let mut session = sandbox.spawn(&script_with(text, options().with_stdin())).await.unwrap();
    read_until(&mut session, "ready").await;
    session.control().resize(TtySize { rows: 10, columns: 20 }).await.unwrap();
    soon("the new size is seen", read_until(&mut session, "resized")).await;
}

async fn both_streams_are_one(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let output = output(&sandbox, &script_with("echo out; echo err >&2", options())).await;
    assert_eq!((&*output.stdout, output.stderr.len()), (&b"out\r\nerr\r\n"[..], 0));
}

async fn interrupt_is_a_key(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let text = "trap 'echo caught; exit 7' INT; echo ready; while :; do sleep 0.05; done";
    let mut session = sandbox.spawn(&script_with(text, options().with_stdin())).await.unwrap();
    let mut keys = session.take_stdin().unwrap();
    read_until(&mut session, "ready").await;
    keys.write_all(&[3]).await.unwrap();
    keys.flush().await.unwrap();
    soon("the signal is caught", read_until(&mut session, "caught")).await;
    assert_eq!(rest(session, keys).await, ExitStatus::Code(7));
}

/// Reads to the end with the terminal's input still open.
async fn rest<T>(session: ExecSession, keys: T) -> ExitStatus {
    let status = soon("the command ends", end(session)).await;
    drop(keys);
    status
}

async fn end_of_file_is_a_key(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let spec = script_with("echo ready; cat; echo ended", options().with_stdin());
    let mut session = sandbox.spawn(&spec).await.unwrap();
    let mut keys = session.take_stdin().unwrap();
    read_until(&mut session, "ready").await;
    keys.write_all(&[4]).await.unwrap();
    keys.flush().await.unwrap();
    soon("end-of-file is seen", read_until(&mut session, "ended")).await;
    assert_eq!(rest(session, keys).await, ExitStatus::Code(0));
}

async fn keys_are_echoed(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let spec = script_with("echo ready; read line; exit 0", options().with_stdin());
    let mut session = sandbox.spawn(&spec).await.unwrap();
    let mut keys = session.take_stdin().unwrap();
    read_until(&mut session, "ready").await;
    keys.write_all(b"typed").await.unwrap();
    keys.flush().await.unwrap();
    assert!(contains(&soon("the keys come back", read_until(&mut session, "typed")).await, "typed"));
}

async fn the_status_is_the_commands_own(fixture: Fixture) {
    let sandbox = fixture.start().await;
    assert_eq!(output(&sandbox, &script_with("exit 9", options())).await.status, ExitStatus::Code(9));
}

async fn the_terminal_is_the_controlling_one(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let printed = output(&sandbox, &script_with("echo mine >/dev/tty", options())).await;
    assert_eq!((&*printed.stdout, printed.status), (&b"mine\r\n"[..], ExitStatus::Code(0)));
}

async fn without_it_nothing_is_a_terminal(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let spec = script("test -t 0 || test -t 1 || test -t 2");
    assert_eq!(output(&sandbox, &spec).await.status, ExitStatus::Code(1));
}
