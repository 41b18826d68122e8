//! Input: every byte, its end, and no deadlock with the output.
use agentkernel_core::{ExecEvent, ExecOptions, ExitStatus};
use tokio::io::AsyncWriteExt;

use crate::{
    fixture::{Fixture, command, command_with, end, output, pattern, read_until, script_with},
    rule::rules,
    wait::soon,
};

rules![
    input_reaches_the_command[ExecStdin],
    bytes_are_exact[ExecStdin],
    input_comes_as_it_is_written[ExecStdin],
    dropping_it_is_end_of_file[ExecStdin],
    shutting_it_down_is_end_of_file[ExecStdin],
    collecting_closes_it[ExecStdin],
    sixteen_mib_flow_through_while_output_flows_back[ExecStdin],
    a_command_that_does_not_read_it_ends[ExecStdin],
    a_command_that_reads_a_part_ends_with_its_status[ExecStdin],
    two_commands_have_two_inputs[ExecStdin],
    without_it_a_command_reads_end_of_file,
    without_it_there_is_no_writer,
];

fn options() -> ExecOptions {
    ExecOptions::default().with_stdin()
}

async fn input_reaches_the_command(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let mut session = sandbox.spawn(&command_with(&["cat"], options())).await.unwrap();
    let mut stdin = session.take_stdin().unwrap();
    stdin.write_all(b"hello\n").await.unwrap();
    stdin.flush().await.unwrap();
    drop(stdin);
    assert_eq!(session.collect().await.unwrap().stdout, "hello\n");
}

async fn bytes_are_exact(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let content = pattern(200_000);
    let mut session = sandbox.spawn(&command_with(&["cat"], options())).await.unwrap();
    let mut stdin = session.take_stdin().unwrap();
    let writing = async {
        stdin.write_all(&content).await.unwrap();
        stdin.shutdown().await.unwrap();
    };
    let ((), output) = tokio::join!(writing, session.collect());
    assert!(output.unwrap().stdout == content);
}

async fn input_comes_as_it_is_written(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let answering = "while read line; do echo \"got $line\"; done";
    let mut session = sandbox.spawn(&script_with(answering, options())).await.unwrap();
    let mut stdin = session.take_stdin().unwrap();
    for line in ["one", "two"] {
        stdin.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        stdin.flush().await.unwrap();
        soon("the answer comes", read_until(&mut session, &format!("got {line}\n"))).await;
    }
    drop(stdin);
    assert_eq!(end(session).await, ExitStatus::Code(0));
}

async fn dropping_it_is_end_of_file(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let mut session = sandbox.spawn(&script_with("cat >/dev/null; echo ended", options())).await.unwrap();
    drop(session.take_stdin());
    soon("end-of-file is seen", read_until(&mut session, "ended")).await;
}

async fn shutting_it_down_is_end_of_file(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let mut session = sandbox.spawn(&script_with("cat >/dev/null; echo ended", options())).await.unwrap();
    let mut stdin = session.take_stdin().unwrap();
    stdin.shutdown().await.unwrap();
    soon("end-of-file is seen", read_until(&mut session, "ended")).await;
}

async fn collecting_closes_it(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let session = sandbox.spawn(&command_with(&["cat"], options())).await.unwrap();
    let output = soon("the command ends", session.collect()).await.unwrap();
    assert_eq!(output.status, ExitStatus::Code(0));
}

async fn sixteen_mib_flow_through_while_output_flows_back(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let mut session = sandbox.spawn(&command_with(&["cat"], options())).await.unwrap();
    let mut stdin = session.take_stdin().unwrap();
    let content = pattern(16 << 20);
    let writing = async {
        stdin.write_all(&content).await.unwrap();
        drop(stdin);
    };
    let reading = async {
        let mut seen = 0;
        while let Some(event) = session.next_event().await {
            if let ExecEvent::Stdout(bytes) = event.unwrap() {
                assert!(content[seen..].starts_with(&bytes), "wrong bytes after {seen}");
                seen += bytes.len();
            }
        }
        seen
    };
    let ((), seen) = tokio::join!(writing, reading);
    assert_eq!(seen, content.len());
}

/// The writer may see an error or not, but nobody waits for a reader that is gone.
async fn a_command_that_does_not_read_it_ends(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let mut session = sandbox.spawn(&command_with(&["true"], options())).await.unwrap();
    let mut stdin = session.take_stdin().unwrap();
    let content = pattern(4 << 20);
    let both = async { tokio::join!(stdin.write_all(&content), session.collect()) };
    let (_written, output) = soon("both sides end", both).await;
    assert_eq!(output.unwrap().status, ExitStatus::Code(0));
}

async fn a_command_that_reads_a_part_ends_with_its_status(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let spec = script_with("head -c 3; exit 6", options());
    let mut session = sandbox.spawn(&spec).await.unwrap();
    let mut stdin = session.take_stdin().unwrap();
    let content = pattern(4 << 20);
    let both = async { tokio::join!(stdin.write_all(&content), session.collect()) };
    let (_written, output) = soon("both sides end", both).await;
    let output = output.unwrap();
    assert_eq!((&*output.stdout, output.status), (&[0u8, 1, 2][..], ExitStatus::Code(6)));
}

async fn two_commands_have_two_inputs(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let mut one = sandbox.spawn(&command_with(&["cat"], options())).await.unwrap();
    let mut other = sandbox.spawn(&command_with(&["cat"], options())).await.unwrap();
    let (mut to_one, mut to_other) = (one.take_stdin().unwrap(), other.take_stdin().unwrap());
    to_one.write_all(b"one").await.unwrap();
    to_other.write_all(b"other").await.unwrap();
    drop((to_one, to_other));
    let (one, other) = tokio::join!(one.collect(), other.collect());
    assert_eq!((&*one.unwrap().stdout, &*other.unwrap().stdout), (&b"one"[..], &b"other"[..]));
}

async fn without_it_a_command_reads_end_of_file(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let output = soon("the command ends", output(&sandbox, &command(&["cat"]))).await;
    assert_eq!((output.status, output.stdout.len()), (ExitStatus::Code(0), 0));
}

async fn without_it_there_is_no_writer(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let mut session = sandbox.spawn(&command(&["true"])).await.unwrap();
    assert!(session.take_stdin().is_none());
}
