//! Process trees die whole. Most of it needs a process namespace: without one a test says so and ends.
use std::time::{Duration, Instant};

use agentkernel_guest::protocol::*;

use crate::client::*;

fn init() -> Option<Guest> {
    can_be_init().then(|| Start { init: true, ..Start::default() }.start())
}

/// How many processes are in the sandbox beside the guest and who asks.
fn processes(guest: &mut Guest) -> usize {
    let outcome = guest.client.shell("set -- /proc/[0-9]*; echo $#");
    // The guest, this command's stub and its shell.
    assert_eq!(outcome.status(), Status::Code(0));
    outcome.text().trim().parse::<usize>().unwrap() - 3
}

/// The tree is gone when its channel ends; who held it may take a moment longer to be waited for.
fn assert_alone(guest: &mut Guest) {
    let begin = Instant::now();
    while processes(guest) > 0 {
        assert!(begin.elapsed() < Duration::from_secs(5), "processes are left");
    }
}

/// Makes the tree, closes its channel and returns how long it took to be gone.
fn close(guest: &mut Guest, script: &str) -> Duration {
    let channel = guest.client.open(Request::Spawn(sh(script)));
    assert!(matches!(guest.client.next(channel), FromGuest::Started { .. }));
    while !matches!(guest.client.next(channel), FromGuest::Stdout(_)) {}
    let begin = Instant::now();
    guest.client.send(channel, &ToGuest::Close);
    assert_eq!(guest.client.finish(channel).failure(), FailureCode::Canceled, "{script}");
    begin.elapsed()
}

#[test]
fn whatever_a_command_has_become_dies_with_its_channel() {
    let Some(mut guest) = init() else { return };
    assert_eq!(guest.report.pid, 1);
    let trees = [
        "trap '' TERM INT HUP; echo ready; while :; do sleep 1; done",
        "(setsid sh -c 'setsid sleep 1000 & sleep 1000' &) ; echo ready; sleep 1000",
        "setsid setsid sh -c '(sleep 1000 &) ; trap \"\" TERM; sleep 1000' & echo ready; sleep 1000",
        "(sleep 1000 & kill -STOP $!) ; echo ready; kill -STOP $$",
    ];
    let witness = guest.client.open(Request::Spawn(sh("echo here; sleep 1000")));
    while !matches!(guest.client.next(witness), FromGuest::Stdout(_)) {}
    for script in trees {
        let channel = guest.client.open(Request::Spawn(sh(script)));
        while !matches!(guest.client.next(channel), FromGuest::Stdout(_)) {}
        guest.client.send(channel, &ToGuest::Close);
        guest.client.finish(channel);
        let left = guest.client.run(Request::Commands).frames.len();
        assert_eq!(left, 1, "{script}");
    }
    guest.client.send(witness, &ToGuest::Signal(15));
    assert_eq!(guest.client.finish(witness).status(), Status::Signal(15));
}

#[test]
fn a_fork_storm_of_two_thousand_ends() {
    let Some(mut guest) = init() else { return };
    // Many that wait, and some that leave their parents and fork for ever.
    let storm = "export C='while :; do (setsid sleep 0.01 &) ; done'; i=0; \
                 while [ $i -lt 1950 ]; do sleep 1000 & i=$((i+1)); done; \
                 while [ $i -lt 2000 ]; do setsid sh -c \"$C\" & i=$((i+1)); done; echo ready; wait";
    let took = close(&mut guest, storm);
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_alone(&mut guest);
}

#[test]
fn a_timeout_takes_what_double_forked() {
    let Some(mut guest) = init() else { return };
    let spawn = Spawn { timeout_ms: Some(200), ..sh("echo early; (setsid sleep 1000 &); sleep 1000") };
    let outcome = guest.client.spawn(spawn);
    assert_eq!((outcome.text().as_str(), outcome.status()), ("early\n", Status::TimedOut));
    assert_alone(&mut guest);
}

#[test]
fn what_a_command_leaves_in_the_background_lives_on_and_is_listed() {
    let Some(mut guest) = init() else { return };
    let outcome = guest.client.shell("(setsid sh -c 'sleep 1; echo late' &) ; echo done");
    assert_eq!((outcome.text().as_str(), outcome.status()), ("done\n", Status::Code(0)));
    let listing = guest.client.run(Request::Commands);
    assert!(matches!(listing.frames.as_slice(), [FromGuest::Command(entry)] if entry.running));
    let gone = |listing: Outcome| listing.frames.is_empty().then_some(());
    wait_until("the background ends", || gone(guest.client.run(Request::Commands)));
}

#[test]
fn the_end_of_the_lease_kills_everything() {
    let Some(mut guest) = init() else { return };
    let marker = format!("1000{}", std::process::id());
    let channel = guest.client.open(Request::Spawn(sh(&format!(
        "trap '' TERM HUP; (setsid sleep {marker} &); echo ready; sleep {marker}"
    ))));
    while !matches!(guest.client.next(channel), FromGuest::Stdout(_)) {}
    let alive = || {
        let found =
            std::process::Command::new("pgrep").args(["-f", &format!("^sleep {marker}")]).output().unwrap();
        !found.stdout.is_empty()
    };
    assert!(alive());
    let begin = Instant::now();
    guest.client.stream.shutdown(std::net::Shutdown::Both).unwrap();
    guest.wait();
    wait_until("everything is gone", || (!alive()).then_some(()));
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
}

#[test]
fn a_murdered_stub_does_not_set_its_tree_free() {
    let Some(mut guest) = init() else { return };
    let channel = guest.client.open(Request::Spawn(sh("echo ready; (setsid sleep 1000 &); sleep 1000")));
    while !matches!(guest.client.next(channel), FromGuest::Stdout(_)) {}
    // In the tests commands have the guest's own user; in a container they cannot do this.
    let killer = guest.client.shell("for c in /proc/[0-9]*/comm; do if grep -q agentkernel-tre $c; then p=${c%/comm}; p=${p#/proc/}; grep -q \"^PPid:.1$\" /proc/$p/status && [ $p != $PPID ] && kill -9 $p; fi; done; echo ok");
    assert_eq!(killer.text(), "ok\n");
    assert_eq!(guest.client.finish(channel).status(), Status::Signal(9));
    // Who murders a stub ends its command at once; what else was below it is killed and reaped right after.
    let deadline = Instant::now() + Duration::from_secs(10);
    while processes(&mut guest) > 0 {
        assert!(Instant::now() < deadline, "the tree lives on");
    }
}

#[test]
fn a_guest_without_free_descriptors_still_kills_whole_trees() {
    if !can_be_init() {
        return;
    }
    let mut guest = Start { init: true, open_files: Some(64), ..Start::default() }.start();
    let tree = || Request::Spawn(sh("(setsid sleep 1000 &); echo ready; sleep 1000"));
    let mut running = Vec::new();
    let failure = loop {
        let channel = guest.client.open(tree());
        match guest.client.next(channel) {
            FromGuest::Started { .. } => running.push(channel),
            FromGuest::Failed(failure) => break failure,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(failure.code, FailureCode::Exhausted);
    assert!(running.len() > 5, "{}", running.len());
    for channel in running {
        while !matches!(guest.client.next(channel), FromGuest::Stdout(_)) {}
        guest.client.send(channel, &ToGuest::Close);
        assert_eq!(guest.client.finish(channel).failure(), FailureCode::Canceled);
    }
    assert_alone(&mut guest);
}

/// Runs a script that goes on for ever, and returns the process id of who holds its tree.
fn held(guest: &mut Guest, spawn: Spawn) -> String {
    let channel = guest.client.open(Request::Spawn(spawn));
    loop {
        if let FromGuest::Stdout(bytes) = guest.client.next(channel) {
            return String::from_utf8(bytes).unwrap().trim().to_owned();
        }
    }
}

/// Returns a process's own memory, in kB.
fn anonymous(pid: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn who_holds_a_tree_keeps_no_copy_of_what_the_guest_remembers() {
    let mut guest = start();
    let chatty = Spawn { detached: true, ..sh("head -c 3000000 /dev/zero") };
    assert_eq!(guest.client.spawn(chatty).status(), Status::Code(0));
    let stub = held(&mut guest, sh("echo $PPID; sleep 1000"));
    let guests = anonymous(&guest.child.id().to_string());
    assert!(guests > KEPT_OUTPUT as u64 >> 10, "{guests} kB");
    wait_until("the copy is let go", || (anonymous(&stub) < 700).then_some(()));
}

#[test]
fn who_holds_a_tree_keeps_no_copy_of_the_frame_that_asked_for_it() {
    let mut guest = start();
    let (variables, kib) = (12, 120);
    let variable = |n| [format!("V{n}=").as_bytes(), vec![b'x'; kib << 10].as_slice()].concat();
    let env = (0..variables).map(variable).collect();
    let stub = held(&mut guest, Spawn { env, ..sh("echo $PPID; sleep 1000") });
    // Twice the environment, as it was read and as it is passed on; not a third time, as it came.
    let most = (5 * variables * kib / 2 + 400) as u64;
    wait_until("the copy is let go", || (anonymous(&stub) < most).then_some(()));
}
