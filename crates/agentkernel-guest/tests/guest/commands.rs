//! Commands: arguments, streams, ends, failures.
use std::time::{Duration, Instant};

use agentkernel_guest::protocol::*;

use crate::client::*;

#[test]
fn output_arrives_apart_and_whole_and_with_the_exit_code() {
    let mut guest = start();
    let outcome = guest.client.shell("printf 'a\\0\\377'; printf err >&2; exit 42");
    assert_eq!(
        (outcome.stdout.as_slice(), outcome.stderr.as_slice()),
        (b"a\0\xff".as_slice(), b"err".as_slice())
    );
    assert_eq!((outcome.id, outcome.status()), (1, Status::Code(42)));
}

#[test]
fn a_program_that_cannot_run_is_a_typed_failure() {
    let mut guest = start();
    let path = guest.directory.path().to_owned();
    std::fs::write(path.join("text"), "echo no").unwrap();
    std::fs::write(path.join("garbage"), "echo no").unwrap();
    std::fs::write(path.join("orphan"), "#!/no/such/interpreter\n").unwrap();
    for name in ["garbage", "orphan"] {
        std::fs::set_permissions(path.join(name), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
    }
    let file = |name: &str| path.join(name).to_str().unwrap().to_owned();
    // One byte more than the kernel takes of one argument.
    let long = "x".repeat(128 << 10);
    let spawn = |words: &[&str]| Spawn { argv: argv(words), ..Spawn::default() };
    let cases = [
        (spawn(&["no-such-program"]), FailureCode::CommandNotFound),
        (spawn(&["/no/such"]), FailureCode::CommandNotFound),
        (spawn(&["/"]), FailureCode::CommandNotExecutable),
        (spawn(&[&file("text")]), FailureCode::CommandNotExecutable),
        (spawn(&[&file("garbage")]), FailureCode::CommandNotExecutable),
        (spawn(&[&file("orphan")]), FailureCode::CommandNotFound),
        (Spawn { cwd: Some(b"/no/such".to_vec()), ..sh("true") }, FailureCode::BadDirectory),
        (Spawn { cwd: Some(b"/etc/passwd".to_vec()), ..sh("true") }, FailureCode::BadDirectory),
        (Spawn { user: Some(b"no-such-user".to_vec()), ..sh("true") }, FailureCode::BadUser),
        (Spawn { user: Some(b"65432".to_vec()), ..sh("true") }, FailureCode::BadUser),
        (spawn(&["true", &long]), FailureCode::ArgumentListTooLong),
    ];
    for (spawn, code) in cases {
        assert_eq!(guest.client.spawn(spawn.clone()).failure(), code, "{:?} {:?}", spawn.cwd, spawn.user);
    }
    assert_eq!(guest.client.shell("exit 3").status(), Status::Code(3));
}

#[test]
fn ten_megabytes_in_come_out_again() {
    let mut guest = start();
    let content: Vec<u8> = (0..10u32 << 20).map(|n| (n % 251).try_into().unwrap()).collect();
    let channel =
        guest.client.open(Request::Spawn(Spawn { argv: argv(&["cat"]), stdin: true, ..Spawn::default() }));
    let mut writer = guest.client.stream.try_clone().unwrap();
    let (mut sent, mut credit, mut ended) = (0, WINDOW as usize, false);
    let mut got = Vec::new();
    let status = loop {
        while sent < content.len() && credit > 0 {
            let part = credit.min(MAX_DATA).min(content.len() - sent);
            let mut bytes = Vec::new();
            ToGuest::Data(content[sent..sent + part].to_vec()).encode(channel, &mut bytes);
            std::io::Write::write_all(&mut writer, &bytes).unwrap();
            (sent, credit) = (sent + part, credit - part);
        }
        if sent == content.len() && !ended {
            guest.client.send(channel, &ToGuest::Eof);
            ended = true;
        }
        match guest.client.next(channel) {
            FromGuest::Stdout(bytes) => {
                guest.client.send(channel, &ToGuest::Credit(bytes.len().try_into().unwrap()));
                got.extend(bytes);
            }
            FromGuest::Credit(more) => credit += more as usize,
            FromGuest::Exited(status) => break status,
            _ => {}
        }
    };
    assert_eq!(status, Status::Code(0));
    assert!(got == content);
}

#[test]
fn a_background_child_does_not_hold_up_the_end() {
    let mut guest = start();
    let begin = Instant::now();
    let outcome = guest.client.shell("sleep 30 & echo done");
    assert_eq!((outcome.text().as_str(), outcome.status()), ("done\n", Status::Code(0)));
    assert!(begin.elapsed() < Duration::from_secs(5));
    let listing = guest.client.run(Request::Commands);
    let [FromGuest::Command(entry)] = listing.frames.as_slice() else { panic!("{listing:?}") };
    assert!(entry.running && entry.exit == Some(Status::Code(0)));
}

#[test]
fn a_timeout_keeps_the_output_and_kills_the_tree() {
    let mut guest = start();
    let spawn = Spawn { timeout_ms: Some(200), ..sh("echo early; sleep 100 & sleep 100") };
    let outcome = guest.client.spawn(spawn);
    assert_eq!((outcome.text().as_str(), outcome.status()), ("early\n", Status::TimedOut));
    assert!(guest.client.run(Request::Commands).frames.is_empty());
}

#[test]
fn output_that_somebody_else_takes_from_the_pipe_does_not_hold_up_the_end() {
    let mut guest = start();
    let total = WINDOW as usize + KEPT_OUTPUT + (24 << 10);
    let (directory, marker) = (guest.directory.path().to_owned(), guest.directory.path().join("taken"));
    // What is left in the pipe at the end is taken by a process that keeps the pipe open for ever.
    let script = format!(
        "exec 3</proc/self/fd/1; (sleep 0.5; timeout 1 cat <&3 >/dev/null; echo > {}; sleep 1000) & \
         head -c {total} /dev/zero; exit 3",
        marker.display()
    );
    let channel = guest.client.open(Request::Spawn(sh(&script)));
    wait_until("the rest is taken", || marker.exists().then_some(()));
    let outcome = guest.client.finish(channel);
    assert_eq!(outcome.status(), Status::Code(3));
    assert!(outcome.stdout.len() < total);
    drop(directory);
}
