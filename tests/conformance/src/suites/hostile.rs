//! Commands against what reaches into their sandbox for the caller. They need programs that no shell can replace: see
//! [`Kit::with_intruder`](crate::Kit::with_intruder).
use std::{fs, sync::Arc, time::Duration};

use agentkernel_core::{
    Depth, Error, ErrorKind, ExecOptions, ExecSession, ExitStatus, FileType, Sandbox, SandboxExt, TtySize,
    WriteOptions,
};
use tokio::io::AsyncReadExt;

use super::{
    archives::{archive, entries, file, pack, unpack},
    directories::names,
    limits::HostDirectory,
};
use crate::{
    fixture::{Fixture, command, content, end, output, path, read_until, script, script_with, sh},
    rule::rules,
    wait::{eventually, soon},
};

rules![
    // Where the engine starts commands, it is the engine that reads these files: only an init of ours can do better, and
    // what tells the two apart is this claim.
    a_leased_file_of_users_holds_up_no_command[Files, TypedExit],
    a_leased_file_of_users_holds_up_no_command_of_a_named_user[Files, ExecUser, TypedExit],
    a_leased_terminal_holds_up_no_command[Files, ExecTty, TypedExit],
    a_traced_command_still_times_out[Files, KillTree],
    a_tracer_of_everything_ends_with_its_session[Files, KillTree],
    files_are_answered_for_beside_a_fork_bomb[Files, PidsLimit],
    a_tree_that_fits_nowhere_is_packed_as_it_is_read[Files],
    a_directory_that_becomes_a_link_leads_no_tree_away[Files],
    a_directory_that_becomes_a_link_leads_no_file_to_the_host[Files],
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

/// Returns whether an error says what is wrong inside, and not that nobody answers.
fn is_typed(error: &Error) -> bool {
    !matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Disconnected | ErrorKind::Unexpected)
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

async fn files_are_answered_for_beside_a_fork_bomb(fixture: Fixture) {
    let mut config = fixture.config();
    config.pids = Some(48);
    let sandbox = fixture.start_with(&config).await;
    sandbox.write_file("/tmp/file", b"old").await.unwrap();
    let held = intruder(&fixture, &sandbox, &["fork"]).await;
    for _ in 0..20 {
        let wrote = soon("writing answers", sandbox.write_file("/tmp/file", b"new")).await;
        assert!(wrote.as_ref().err().is_none_or(is_typed), "{wrote:?}");
        match soon("reading answers", sandbox.read_file("/tmp/file")).await {
            Ok(content) => assert!(content == b"new" || content == b"old" && wrote.is_err(), "{content:?}"),
            Err(error) => assert!(is_typed(&error), "{error:?}"),
        }
    }
    drop(held);
    // The bomb takes a while to die, and may take the room for the second call.
    eventually!("files work again", {
        sandbox.write_file("/tmp/file", b"after").await.is_ok()
            && sandbox.read_file("/tmp/file").await.is_ok_and(|content| content == b"after")
    });
}

async fn a_tree_that_fits_nowhere_is_packed_as_it_is_read(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sh(&sandbox, "mkdir /tmp/tree; truncate -s 1024G /tmp/tree/file").await;
    let mut tar = soon("packing begins", sandbox.pack(&path("/tmp/tree"))).await.unwrap();
    let mut begin = vec![0; 4 << 20];
    soon("the first part comes", tar.read_exact(&mut begin)).await.unwrap();
    drop(tar);
    assert_eq!(soon("a command runs", sh(&sandbox, "echo alive")).await, "alive\n");
}

/// Makes `/tmp/tree/way`, which is now a directory and now a link to `target`, and returns what swaps them.
async fn swapped(fixture: &Fixture, sandbox: &Arc<dyn Sandbox>, target: &str) -> ExecSession {
    sh(sandbox, &format!("mkdir -p /tmp/tree/way && ln -s '{target}' /tmp/tree/other")).await;
    let held = intruder(fixture, sandbox, &["swap", "/tmp/tree/way", "/tmp/tree/other"]).await;
    for wanted in [FileType::Directory, FileType::Symlink] {
        eventually!("it is both", {
            sandbox.metadata(&path("/tmp/tree/way")).await.unwrap().file_type == wanted
        });
    }
    held
}

/// How often each call is made while a path changes.
const ROUNDS: usize = 100;

async fn a_directory_that_becomes_a_link_leads_no_tree_away(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sh(&sandbox, "mkdir /tmp/victim; printf secret >/tmp/victim/file").await;
    let held = swapped(&fixture, &sandbox, "/tmp/victim").await;
    let hostile = archive(&[file("way/file", b"x"), file("way/new", b"x")]);
    for _ in 0..ROUNDS {
        let unpacked = unpack(&sandbox, "/tmp/tree", &hostile).await;
        assert!(unpacked.as_ref().err().is_none_or(is_typed), "{unpacked:?}");
        match pack(&sandbox, "/tmp/tree").await {
            Ok(tar) => assert!(entries(tar).iter().all(|(_, _, _, content)| content != b"secret")),
            Err(error) => assert!(is_typed(&error), "{error:?}"),
        }
    }
    let removed = soon("removing ends", sandbox.remove_path(&path("/tmp/tree"), Depth::Recursive)).await;
    assert!(removed.as_ref().err().is_none_or(is_typed), "{removed:?}");
    drop(held);
    assert_eq!(names(&sandbox, "/tmp/victim").await, ["file"]);
    assert_eq!(content(&sandbox, "/tmp/victim/file").await.unwrap(), b"secret");
}

async fn a_directory_that_becomes_a_link_leads_no_file_to_the_host(fixture: Fixture) {
    let host = HostDirectory::new(&fixture);
    let sandbox = fixture.start().await;
    let held = swapped(&fixture, &sandbox, host.0.to_str().unwrap()).await;
    let seen_outside = |content: &[u8]| content == b"of the host";
    for _ in 0..ROUNDS {
        let read = soon("reading answers", content(&sandbox, "/tmp/tree/way/file")).await;
        assert!(!read.is_ok_and(|content| seen_outside(&content)));
        let _missing = soon("writing answers", sandbox.write_file("/tmp/tree/way/file", b"x")).await;
        let _missing = soon("making answers", sandbox.mkdir("/tmp/tree/way/new", false)).await;
        let _missing = unpack(&sandbox, "/tmp/tree/way", &archive(&[file("file", b"x")])).await;
        let tree = pack(&sandbox, "/tmp/tree/way/file").await.map(entries).unwrap_or_default();
        assert!(!tree.iter().any(|(_, _, _, content)| seen_outside(content)));
        let _missing = soon("removing answers", sandbox.remove_file("/tmp/tree/way/file")).await;
    }
    drop(held);
    assert_eq!(fs::read(host.0.join("file")).unwrap(), b"of the host");
    assert_eq!(fs::read_dir(&host.0).unwrap().count(), 1);
}
