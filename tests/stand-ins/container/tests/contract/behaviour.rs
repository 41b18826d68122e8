//! What processes, streams and signals do (reference 1.5 and 4 and the corrections): no row can show it.
use std::{
    io::Read,
    process::Child,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::world::{World, can_run};

const FOREVER: [&str; 3] =
    ["sh", "-c", "echo $$ > /tmp/pid; trap 'echo TERM > /tmp/got' TERM INT; while :; do sleep 0.05; done"];

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Waits for what the container says to this command.
fn eventually(world: &World, name: &str, script: &str) {
    let end = Instant::now() + Duration::from_secs(10);
    while !world.run(&["exec", name, "sh", "-c", script]).status.success() {
        assert!(Instant::now() < end, "never true in {name}: {script}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn ends_within(child: &mut Child, limit: Duration) -> Option<i32> {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        thread::sleep(Duration::from_millis(10));
    }
    None
}

fn exec_forever(world: &World) -> Child {
    let child = world.spawn(&[&["exec", "up"][..], &FOREVER].concat());
    eventually(world, "up", "test -s /tmp/pid");
    child
}

#[test]
fn a_process_that_was_started_by_exec_survives_the_death_of_the_call() {
    if !can_run() {
        return;
    }
    let world = World::new("1.2");
    world.up("up");
    let mut child = exec_forever(&world);
    child.kill().unwrap();
    child.wait().unwrap();
    thread::sleep(Duration::from_millis(300));
    world.ok(&["exec", "up", "sh", "-c", "kill -0 $(cat /tmp/pid)"]);
}

#[test]
fn a_container_survives_the_death_of_its_attached_run_and_its_log_stops() {
    if !can_run() {
        return;
    }
    let world = World::new("1.2");
    let script =
        "echo before; while ! test -e /tmp/go; do sleep 0.05; done; echo after; touch /tmp/said; sleep 100";
    let mut child = world.spawn(&["run", "--name=ab", "busybox", "sh", "-c", script]);
    let mut line = [0; 7];
    child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    assert_eq!(&line, b"before\n");
    child.kill().unwrap();
    child.wait().unwrap();
    world.ok(&["exec", "ab", "touch", "/tmp/go"]);
    eventually(&world, "ab", "test -e /tmp/said");
    thread::sleep(Duration::from_millis(100));
    assert_eq!(world.ok(&["logs", "ab"]), "before\n");
}

#[test]
fn since_1_0_signals_are_not_forwarded_and_the_third_ends_the_call() {
    if !can_run() {
        return;
    }
    let world = World::new("1.2");
    world.up("up");
    let mut child = exec_forever(&world);
    signal(&child, Signal::USR1);
    for _ in 0..2 {
        signal(&child, Signal::TERM);
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(ends_within(&mut child, Duration::from_millis(300)), None);
    signal(&child, Signal::INT);
    assert_eq!(ends_within(&mut child, Duration::from_secs(2)), Some(1));
    let said = String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap();
    assert!(said.contains("\"missing signal in xpc message\", \"signal\": 15]"), "{said}");
    assert!(said.ends_with("Received 3 SIGINT/SIGTERM's, forcefully exiting.\n"), "{said}");
    world.ok(&["exec", "up", "sh", "-c", "kill -0 $(cat /tmp/pid) && ! test -e /tmp/got"]);
}

#[test]
fn before_1_0_signals_are_forwarded() {
    if !can_run() {
        return;
    }
    let world = World::new("0.12");
    world.up("up");
    let mut child = exec_forever(&world);
    signal(&child, Signal::TERM);
    eventually(&world, "up", "grep TERM /tmp/got");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn before_the_process_has_started_a_signal_ends_the_call() {
    if !can_run() {
        return;
    }
    let world = World::new("1.2");
    world.switch(&serde_json::json!({"start_delay_ms": 1500}));
    let mut child = world.spawn(&["run", "--name=ab", "busybox", "sleep", "5"]);
    thread::sleep(Duration::from_millis(700));
    signal(&child, Signal::TERM);
    assert_eq!(ends_within(&mut child, Duration::from_secs(5)), Some(143));
}

#[test]
fn a_reader_more_than_three_seconds_behind_loses_output_and_gets_1() {
    if !can_run() {
        return;
    }
    let world = World::new("1.2");
    world.up("up");
    // Less than the pipes hold, so that the program ends at once, and more than the reader's own pipe.
    let arguments = ["exec", "up", "head", "-c", "150000", "/dev/zero"];
    let mut late = world.spawn(&arguments);
    thread::sleep(Duration::from_secs(5));
    let output = {
        assert_eq!(ends_within(&mut late, Duration::from_millis(100)), Some(1));
        late.wait_with_output().unwrap()
    };
    assert!(output.stdout.len() < 150_000, "{}", output.stdout.len());
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "Error: failed to exec process CancellationError()\n"
    );
    let soon = world.spawn(&arguments);
    thread::sleep(Duration::from_millis(1500));
    let output = soon.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 150_000));
}

#[test]
fn what_is_left_in_the_background_does_not_hold_up_the_call() {
    if !can_run() {
        return;
    }
    let world = World::new("1.2");
    world.up("up");
    let start = Instant::now();
    let output = world.run(&["exec", "up", "sh", "-c", "sleep 60 & echo $! > /tmp/pid; echo said; exit 3"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), &b"said\n"[..]));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    world.ok(&["exec", "up", "sh", "-c", "kill -0 $(cat /tmp/pid)"]);
}

#[test]
fn twenty_mebibytes_of_any_bytes_go_in_and_come_out() {
    if !can_run() {
        return;
    }
    let world = World::new("1.2");
    world.up("up");
    let mut bytes = vec![0; 20 << 20];
    std::fs::File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
    let written = world.fed(&["exec", "-i", "up", "sh", "-c", "cat > /tmp/all"], &bytes);
    assert!(written.status.success(), "{written:?}");
    let read = world.run(&["exec", "up", "cat", "/tmp/all"]);
    assert!(read.stdout == bytes && read.stderr.is_empty(), "{} bytes", read.stdout.len());
}

#[test]
fn a_program_that_ends_early_does_not_wait_for_its_stdin() {
    if !can_run() {
        return;
    }
    let world = World::new("1.2");
    world.up("up");
    let mut child = world.spawn(&["exec", "-i", "up", "true"]);
    assert_eq!(ends_within(&mut child, Duration::from_secs(3)), Some(0));
}

#[test]
fn exec_i_leaves_its_stdin_non_blocking() {
    if !can_run() {
        return;
    }
    let world = World::new("1.2");
    world.up("up");
    let (reader, writer) = std::io::pipe().unwrap();
    let kept = reader.try_clone().unwrap();
    let mut child = world.command(&["exec", "-i", "up", "cat"]).stdin(reader).spawn().unwrap();
    drop(writer);
    child.wait().unwrap();
    assert!(rustix::fs::fcntl_getfl(&kept).unwrap().contains(rustix::fs::OFlags::NONBLOCK));
}

#[test]
fn exec_appends_its_environment_without_looking_for_duplicates() {
    if !can_run() {
        return;
    }
    let world = World::new("1.2");
    world.ok(&["run", "-d", "--name=up", "-e", "A=0", "-e", "A=1", "busybox", "tail", "-f", "/dev/null"]);
    let environment = world.ok(&["exec", "-e", "A=2", "up", "cat", "/proc/self/environ"]);
    let of_a = environment.split('\0').filter(|entry| entry.starts_with("A=")).collect::<Vec<_>>();
    assert_eq!(of_a, ["A=1", "A=2"]);
}

#[test]
fn a_terminal_merges_the_streams() {
    if !can_run() {
        return;
    }
    let world = World::new("1.2");
    world.up("up");
    let output = world.run(&[
        "exec",
        "-t",
        "up",
        "sh",
        "-c",
        "echo out; echo err >&2; test -t 0 && test -t 1 && tty && echo $TERM",
    ]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "out\r\nerr\r\n/dev/pts/0\r\nxterm\r\n");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn programs_find_their_signals_as_they_should_be() {
    if !can_run() {
        return;
    }
    let world = World::new("1.2");
    world.up("up");
    let ignored = world.ok(&["exec", "up", "grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status"]);
    // 32 and 33 are the C library's own.
    let masks =
        ignored.lines().map(|line| u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap());
    assert!(masks.into_iter().all(|mask| mask & 0x7fff_ffff == 0), "{ignored}");
}

#[test]
fn stop_ends_what_was_started_by_exec_too() {
    if !can_run() {
        return;
    }
    let world = World::new("1.2");
    world.up("up");
    let mut child = exec_forever(&world);
    let start = Instant::now();
    world.ok(&["stop", "--time", "1", "up"]);
    // `tail` as PID 1 has no handler: TERM does nothing.
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(ends_within(&mut child, Duration::from_secs(2)), Some(137));
}

#[test]
fn with_init_a_program_gets_the_signal_of_stop() {
    if !can_run() {
        return;
    }
    let world = World::new("1.2");
    world.ok(&["run", "-d", "--init", "--name=ab", "busybox", "sleep", "100"]);
    world.ok(&["exec", "ab", "sh", "-c", "(sleep 0.01 &) ; true"]);
    let start = Instant::now();
    world.ok(&["stop", "--time", "10", "ab"]);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(world.run(&["run", "--rm", "--init", "busybox", "sh", "-c", "exit 9"]).status.code(), Some(9));
}

#[test]
fn kill_reaches_the_first_process_only() {
    if !can_run() {
        return;
    }
    let world = World::new("1.2");
    let script = "trap 'touch /tmp/first' USR1; while :; do sleep 0.05; done";
    world.ok(&["run", "-d", "--name=up", "busybox", "sh", "-c", script]);
    let mut child = exec_forever(&world);
    world.ok(&["kill", "-s", "USR1", "up"]);
    eventually(&world, "up", "test -e /tmp/first");
    assert_eq!(ends_within(&mut child, Duration::from_millis(200)), None);
    world.ok(&["kill", "up"]);
    assert_eq!(ends_within(&mut child, Duration::from_secs(2)), Some(137));
}
