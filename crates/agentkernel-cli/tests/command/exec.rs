//! `exec` and `attach` in a sandbox that stays.
use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use crate::program::{Name, agentkernel, eventually, has_engine, heeding_signals, signal, with_input};

#[test]
fn exec_runs_in_the_same_sandbox_each_time() {
    if !has_engine() {
        return;
    }
    let name = Name::created();
    assert_eq!(name.exec(["sh", "-c", "echo kept > /tmp/f"]).text(), (Some(0), "", ""));
    assert_eq!(name.exec(["cat", "/tmp/f"]).text(), (Some(0), "kept\n", ""));
}

#[test]
fn user_directory_and_variables_are_the_execs_own() {
    if !has_engine() {
        return;
    }
    let name = Name::created();
    let flags = ["exec", &name.0, "-u", "user", "-w", "/tmp", "-e", "A=b"];
    let ended = agentkernel(flags.into_iter().chain(["--", "sh", "-c", "id -un; pwd; echo $A"]));
    assert_eq!(ended.text(), (Some(0), "user\n/tmp\nb\n", ""));
}

#[test]
fn a_directory_that_is_not_there_ends_with_125() {
    if !has_engine() {
        return;
    }
    let name = Name::created();
    assert_eq!(agentkernel(["exec", &name.0, "-w", "/nosuch", "--", "true"]).code, Some(125));
}

#[test]
fn exec_in_a_sandbox_that_is_not_there_ends_with_125_and_a_hint() {
    if !has_engine() {
        return;
    }
    let ended = agentkernel(["exec", "cli-absent", "--", "true"]);
    assert_eq!(
        (ended.code, ended.stderr.contains("agentkernel list")),
        (Some(125), true),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_detached_command_is_joined_again_with_what_it_wrote() {
    if !has_engine() {
        return;
    }
    let name = Name::created();
    let script = "echo before; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo after; exit 5";
    let detached = agentkernel(["exec", &name.0, "--detach", "--", "sh", "-c", script]);
    let id = String::from_utf8(detached.stdout).unwrap().trim().to_owned();
    assert_eq!(name.exec(["touch", "/tmp/go"]).code, Some(0));
    assert_eq!(agentkernel(["attach", &name.0, &id]).text(), (Some(5), "before\nafter\n", ""));
}

/// Returns what `inspect` says of a command.
fn listed(name: &Name, id: &str) -> serde_json::Value {
    let shown = agentkernel(["inspect", &name.0, "--json"]);
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    let mut commands = shown["commands"].as_array().unwrap().iter();
    commands.find(|command| command["id"] == id).unwrap().clone()
}

/// Each call is a process of its own.
#[test]
fn a_detached_command_is_listed_killed_and_told_of_by_later_processes() {
    if !has_engine() {
        return;
    }
    let name = Name::created();
    let script = "echo out; echo err >&2; exec sleep 1000";
    let detached = agentkernel(["exec", &name.0, "--detach", "--", "sh", "-c", script]);
    let id = String::from_utf8(detached.stdout).unwrap().trim().to_owned();
    let command = listed(&name, &id);
    assert_eq!((&command["running"], &command["detached"]), (&true.into(), &true.into()));
    let mut attach = heeding_signals();
    let mut attach = attach.args(["attach", &name.0, &id]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(attach.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "out\n");
    signal(&attach, "TERM");
    assert_eq!(attach.wait().unwrap().code(), Some(143));
    assert_eq!(listed(&name, &id)["running"], false);
    for _ in 0..2 {
        assert_eq!(agentkernel(["attach", &name.0, &id]).text(), (Some(143), "out\n", "err\n"));
    }
}

#[test]
fn the_deadline_of_a_detached_command_needs_no_process_of_ours() {
    if !has_engine() {
        return;
    }
    let name = Name::created();
    let command =
        ["exec", &name.0, "--detach", "--timeout", "1s", "--", "sh", "-c", "echo out; exec sleep 1000"];
    let id = String::from_utf8(agentkernel(command).stdout).unwrap().trim().to_owned();
    eventually("the command is ended", || listed(&name, &id)["running"] == false);
    let ended = agentkernel(["attach", &name.0, &id]);
    assert_eq!((ended.code, &*ended.stdout), (Some(124), &b"out\n"[..]), "{}", ended.stderr);
}

#[test]
fn a_background_child_does_not_hold_up_the_end() {
    if !has_engine() {
        return;
    }
    let name = Name::created();
    let began = std::time::Instant::now();
    assert_eq!(name.exec(["sh", "-c", "sleep 300 & echo done"]).text(), (Some(0), "done\n", ""));
    assert!(began.elapsed().as_secs() < 60);
    eventually("the child lives on", || {
        name.exec(["sh", "-c", "ps | grep -q '[s]leep 300'"]).code == Some(0)
    });
}

#[test]
fn attaching_without_a_terminal_begins_a_shell_that_reads_our_stdin() {
    if !has_engine() {
        return;
    }
    let name = Name::created();
    let ended = with_input(["attach", &name.0], b"echo out; echo err >&2; exit 6\n");
    assert_eq!(ended.text(), (Some(6), "out\n", "err\n"));
}

#[test]
fn a_stream_of_json_names_the_command() {
    if !has_engine() {
        return;
    }
    let name = Name::created();
    let ended = agentkernel(["exec", "--json-stream", &name.0, "--", "sh", "-c", "exit 4"]);
    let lines = ended.text().1.lines().map(|line| serde_json::from_str(line).unwrap());
    let lines = lines.collect::<Vec<serde_json::Value>>();
    assert_eq!((ended.code, lines.len(), &lines[1]["exit_code"]), (Some(4), 2, &serde_json::json!(4)));
    assert_eq!(lines[0]["started"]["sandbox"], name.0.as_str());
    assert!(lines[0]["started"]["command"].is_string(), "{lines:?}");
}
