//! Output: two streams, every byte, in order, as it comes, at any size.
use std::{sync::Arc, time::Duration};

use agentkernel_core::{ExecEvent, ExecSession, ExitStatus, Sandbox};

use crate::{
    fixture::{Fixture, content, output, read_until, script},
    rule::rules,
    wait::soon,
};

rules![
    stdout_and_stderr_are_separate,
    bytes_are_exact,
    nothing_is_added_to_the_output,
    no_output_is_no_output,
    one_byte_writes_to_both_streams_are_kept,
    order_is_kept,
    sixty_four_mib_arrive_whole,
    stderr_is_as_large_as_stdout,
    output_comes_before_the_end,
    output_just_before_the_end_is_delivered,
    the_exit_comes_last_and_once,
    output_beyond_the_limit_is_cut_and_said,
    a_slow_reader_holds_the_writer_back_and_loses_nothing[Files],
    a_command_that_closes_its_output_still_ends_with_its_status,
    a_background_child_with_stdout_open_does_not_hold_up_the_end,
    a_closed_pipe_inside_ends_its_writer,
];

async fn stdout_and_stderr_are_separate(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let output = output(&sandbox, &script("echo out; echo err >&2")).await;
    assert_eq!((&*output.stdout, &*output.stderr), (&b"out\n"[..], &b"err\n"[..]));
}

async fn bytes_are_exact(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let printed = output(&sandbox, &script(r"printf '\000\377\r\n\200\001'")).await.stdout;
    assert_eq!(&*printed, b"\x00\xff\r\n\x80\x01");
}

async fn nothing_is_added_to_the_output(fixture: Fixture) {
    let sandbox = fixture.start().await;
    assert_eq!(output(&sandbox, &script("printf x")).await.stdout, "x");
}

async fn no_output_is_no_output(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let output = output(&sandbox, &script("true")).await;
    assert_eq!((output.stdout.len(), output.stderr.len()), (0, 0));
}

async fn one_byte_writes_to_both_streams_are_kept(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let alternating = "i=0; while [ $i -lt 500 ]; do printf o; printf e >&2; i=$((i+1)); done";
    let output = output(&sandbox, &script(alternating)).await;
    assert_eq!((output.stdout, output.stderr), (vec![b'o'; 500].into(), vec![b'e'; 500].into()));
}

async fn order_is_kept(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let expected = (1..=100_000).map(|number| format!("{number}\n")).collect::<String>();
    assert!(output(&sandbox, &script("seq 1 100000")).await.stdout == expected);
}

/// Reads a session to its end and returns how many bytes came on each stream, all of them the expected `y\n`.
async fn count(mut session: ExecSession) -> (usize, usize, Option<ExitStatus>) {
    let expected = b"y\n".repeat(1 << 20);
    let (mut stdout, mut stderr, mut status) = (0, 0, None);
    while let Some(event) = session.next_event().await {
        match event.unwrap() {
            ExecEvent::Stdout(bytes) => {
                assert!(expected[stdout % 2..].starts_with(&bytes), "wrong bytes after {stdout}");
                stdout += bytes.len();
            }
            ExecEvent::Stderr(bytes) => {
                assert!(expected[stderr % 2..].starts_with(&bytes), "wrong bytes after {stderr}");
                stderr += bytes.len();
            }
            ExecEvent::Exited(exited) => status = Some(exited),
            other => panic!("an unknown event {other:?}"),
        }
    }
    (stdout, stderr, status)
}

async fn sixty_four_mib_arrive_whole(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let session = sandbox.spawn(&script("yes | head -c 67108864; exit 3")).await.unwrap();
    assert_eq!(count(session).await, (64 << 20, 0, Some(ExitStatus::Code(3))));
}

async fn stderr_is_as_large_as_stdout(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let both = "yes | head -c 4194304 >&2 & yes | head -c 4194304; wait";
    let session = sandbox.spawn(&script(both)).await.unwrap();
    assert_eq!(count(session).await, (4 << 20, 4 << 20, Some(ExitStatus::Code(0))));
}

async fn output_comes_before_the_end(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let mut session = sandbox.spawn(&script("echo first; sleep 1000")).await.unwrap();
    let seen = soon("the first line comes", read_until(&mut session, "first\n")).await;
    assert_eq!(seen, b"first\n");
}

async fn output_just_before_the_end_is_delivered(fixture: Fixture) {
    let sandbox = fixture.start().await;
    for _ in 0..5 {
        let output = output(&sandbox, &script("head -c 300000 /dev/zero; exit 3")).await;
        assert_eq!((output.stdout.len(), output.status), (300_000, ExitStatus::Code(3)));
    }
}

async fn the_exit_comes_last_and_once(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let mut session = sandbox.spawn(&script("echo a; echo b >&2")).await.unwrap();
    let mut events = Vec::new();
    while let Some(event) = session.next_event().await {
        events.push(matches!(event.unwrap(), ExecEvent::Exited(ExitStatus::Code(0))));
    }
    let exits = events.iter().filter(|exited| **exited).count();
    assert_eq!((exits, events.last()), (1, Some(&true)));
}

async fn output_beyond_the_limit_is_cut_and_said(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let session = sandbox.spawn(&script("yes | head -c 1000000; exit 4")).await.unwrap();
    let output = session.with_output_limit(1000).collect().await.unwrap();
    assert_eq!((output.stdout.len(), output.truncated, output.status), (1000, true, ExitStatus::Code(4)));
}

async fn far(sandbox: &Arc<dyn Sandbox>) -> u32 {
    let text = content(sandbox, "/tmp/far").await.unwrap_or_default();
    String::from_utf8_lossy(&text).trim().parse().unwrap_or(0)
}

/// The writer notes how far it got. Once it stands still, far from its end, it is held back.
async fn a_slow_reader_holds_the_writer_back_and_loses_nothing(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let writer = "i=0; while [ $i -lt 512 ]; do yes | head -c 131072; i=$((i+1)); echo $i >/tmp/far; done";
    let session = sandbox.spawn(&script(writer)).await.unwrap();
    let (mut last, mut still) = (far(&sandbox).await, 0);
    while still < 10 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = far(&sandbox).await;
        still = if now == last { still + 1 } else { 0 };
        last = now;
    }
    assert!(last < 512, "64 MiB were taken although nobody reads");
    assert_eq!(count(session).await, (64 << 20, 0, Some(ExitStatus::Code(0))));
}

async fn a_command_that_closes_its_output_still_ends_with_its_status(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let closing = "exec >&- 2>&-; sleep 0.3; exit 5";
    assert_eq!(output(&sandbox, &script(closing)).await.status, ExitStatus::Code(5));
}

async fn a_background_child_with_stdout_open_does_not_hold_up_the_end(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let output = soon("the command ends", output(&sandbox, &script("sleep 1000 & echo done"))).await;
    assert_eq!((output.status, &*output.stdout), (ExitStatus::Code(0), &b"done\n"[..]));
}

async fn a_closed_pipe_inside_ends_its_writer(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let output = soon("the pipe ends", output(&sandbox, &script("yes | head -n 1"))).await;
    assert_eq!((output.status, &*output.stdout), (ExitStatus::Code(0), &b"y\n"[..]));
}
