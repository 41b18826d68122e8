//! How `run` ends when the person, the pipe or the machine ends it: nothing is left.
use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Stdio},
    time::Instant,
};

use crate::program::{IMAGE, Name, containers, eventually, has_engine, heeding_signals, signal};

/// Starts a run and waits for its first line.
fn started(name: &Name, script: &str) -> Child {
    let mut command = heeding_signals();
    command.args(["run", "--name", &name.0, "--image", IMAGE, "--", "sh", "-c", script]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}

fn is_gone(name: &Name) {
    eventually("the container is gone", || !containers().contains(&name.0));
}

#[test]
fn an_interrupt_is_the_commands_to_handle() {
    if !has_engine() {
        return;
    }
    let name = Name::new();
    let mut child =
        started(&name, "trap 'echo caught; exit 7' INT; echo ready; while :; do sleep 0.05; done");
    signal(&child, "INT");
    let mut rest = String::new();
    child.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
    assert_eq!((child.wait().unwrap().code(), rest.as_str()), (Some(7), "caught\n"));
    is_gone(&name);
}

#[test]
fn a_second_interrupt_within_a_second_ends_everything() {
    if !has_engine() {
        return;
    }
    let name = Name::new();
    let mut child = started(&name, "trap '' INT TERM; echo ready; while :; do sleep 1; done");
    signal(&child, "INT");
    std::thread::sleep(std::time::Duration::from_millis(200));
    signal(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    is_gone(&name);
}

#[test]
fn a_request_to_end_is_the_commands_to_handle() {
    if !has_engine() {
        return;
    }
    let name = Name::new();
    let mut child = started(&name, "trap 'exit 8' TERM; echo ready; while :; do sleep 0.05; done");
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(8));
    is_gone(&name);
}

#[test]
fn a_reader_that_stops_does_not_keep_signals_out() {
    if !has_engine() {
        return;
    }
    let name = Name::new();
    let mut child = started(&name, "trap '' TERM; echo ready; yes");
    signal(&child, "TERM");
    std::thread::sleep(std::time::Duration::from_millis(200));
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(143));
    is_gone(&name);
}

#[test]
fn killing_run_leaves_nothing() {
    if !has_engine() {
        return;
    }
    let name = Name::new();
    let mut child = started(&name, "trap '' TERM HUP; (setsid sleep 1000 &); echo ready; sleep 1000");
    signal(&child, "KILL");
    child.wait().unwrap();
    is_gone(&name);
}

#[test]
fn a_reader_that_goes_ends_the_command() {
    if !has_engine() {
        return;
    }
    let name = Name::new();
    let mut child = started(&name, "echo ready; yes");
    let began = Instant::now();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(141));
    assert!(began.elapsed().as_secs() < 30);
    is_gone(&name);
}
