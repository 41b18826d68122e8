//! Commands that run on without anybody: found again, read, signalled; and what a sandbox uses.
use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use serde_json::Value;

use crate::program::{IMAGE, Name, agentkernel, binary, eventually, has_engine, heeding_signals, signal};

/// Starts a script that nobody is attached to, and returns its id.
fn begun(name: &Name, script: &str) -> String {
    let begun = agentkernel(["exec", "--detach", &name.0, "--", "sh", "-c", script]);
    assert_eq!(begun.code, Some(0), "{}", begun.stderr);
    String::from_utf8(begun.stdout).unwrap().trim().to_owned()
}

fn commands(name: &Name) -> Value {
    serde_json::from_slice(&agentkernel(["ps", "--json", &name.0]).stdout).unwrap()
}

fn wait_for(name: &Name, id: &str, text: &str) {
    eventually(text, || agentkernel(["logs", &name.0, id]).text().1.contains(text));
}

#[test]
fn ps_shows_what_runs_and_what_has_ended() {
    if !has_engine() {
        return;
    }
    let name = Name::created();
    begun(&name, "exit 3");
    begun(&name, "exec sleep 1000");
    eventually("the first has ended", || commands(&name)[0]["exit_code"] == 3);
    let listed = commands(&name);
    assert_eq!(
        (&listed[1]["exit_code"], &listed[1]["argv"][2]),
        (&Value::Null, &Value::from("exec sleep 1000"))
    );
}

#[test]
fn logs_of_a_running_command_are_what_it_wrote_each_in_its_stream_and_do_not_wait() {
    if !has_engine() {
        return;
    }
    let name = Name::created();
    let id = begun(&name, "echo out; echo err >&2; echo done; exec sleep 1000");
    wait_for(&name, &id, "done");
    assert_eq!(agentkernel(["logs", &name.0, &id]).text(), (Some(0), "out\ndone\n", "err\n"));
}

#[test]
fn logs_are_whole_up_to_a_mebibyte() {
    if !has_engine() {
        return;
    }
    let name = Name::created();
    let id = begun(&name, "seq 1 100000; exec sleep 1000");
    wait_for(&name, &id, "\n100000\n");
    let expected = (1..=100_000).map(|line| format!("{line}\n")).collect::<String>();
    assert!(agentkernel(["logs", &name.0, &id]).stdout == expected.as_bytes());
}

#[test]
fn the_tail_is_counted_for_each_stream() {
    if !has_engine() {
        return;
    }
    let name = Name::created();
    let id = begun(&name, "echo a; echo b >&2; echo c; echo d >&2");
    wait_for(&name, &id, "c");
    assert_eq!(agentkernel(["logs", "--tail", "1", &name.0, &id]).text(), (Some(0), "c\n", "d\n"));
}

#[test]
fn following_goes_on_until_the_command_ends() {
    if !has_engine() {
        return;
    }
    let name = Name::created();
    let id = begun(&name, "echo first; while [ ! -e /tmp/go ]; do sleep 0.1; done; echo last");
    let mut follower = binary();
    follower.args(["logs", "--follow", &name.0, &id]).stdout(Stdio::piped());
    let mut follower = follower.spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().as_deref(), Some("first"));
    assert_eq!(name.exec(["touch", "/tmp/go"]).code, Some(0));
    assert_eq!(lines.collect::<Vec<_>>(), ["last"]);
    assert_eq!(follower.wait().unwrap().code(), Some(0));
}

#[test]
fn following_ends_by_a_signal_and_leaves_the_command_alone() {
    if !has_engine() {
        return;
    }
    let name = Name::created();
    let id = begun(&name, "echo first; exec sleep 1000");
    let mut follower = heeding_signals();
    follower.args(["logs", "--follow", &name.0, &id]).stdout(Stdio::piped());
    let mut follower = follower.spawn().unwrap();
    let mut first = String::new();
    BufReader::new(follower.stdout.take().unwrap()).read_line(&mut first).unwrap();
    signal(&follower, "INT");
    assert_eq!(follower.wait().unwrap().code(), Some(130));
    assert_eq!(commands(&name)[0]["exit_code"], Value::Null);
}

#[test]
fn logs_as_json_are_one_line_for_each_part() {
    if !has_engine() {
        return;
    }
    let name = Name::created();
    let id = begun(&name, "printf '\\377'; exit 4");
    eventually("it has ended", || commands(&name)[0]["exit_code"] == 4);
    let logs = agentkernel(["logs", "--json", &name.0, &id]);
    let lines =
        logs.text().1.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>();
    assert_eq!(
        (&lines[0]["stream"], &lines[0]["data_base64"]),
        (&Value::from("stdout"), &Value::from("/w=="))
    );
    assert_eq!(lines[1]["exit_code"], 4);
}

#[test]
fn without_an_id_logs_are_of_what_run_began() {
    if !has_engine() {
        return;
    }
    let name = Name::new();
    let script = "echo out; echo err >&2; exec sleep 1000";
    let begun =
        agentkernel(["run", "--detach", "--name", &name.0, "--image", IMAGE, "--", "sh", "-c", script]);
    assert_eq!(begun.code, Some(0), "{}", begun.stderr);
    eventually("it is written", || agentkernel(["logs", &name.0]).text() == (Some(0), "out\n", "err\n"));
}

#[test]
fn kill_ends_a_command_and_what_it_started() {
    if !has_engine() {
        return;
    }
    let name = Name::created();
    let id = begun(&name, "sleep 1000 & echo $!; wait");
    wait_for(&name, &id, "\n");
    let child = agentkernel(["logs", &name.0, &id]).text().1.trim().to_owned();
    assert_eq!(agentkernel(["kill", &name.0, &id]).text(), (Some(0), format!("{id}\n").as_str(), ""));
    eventually("it was killed", || commands(&name)[0]["exit_code"] == 137);
    assert_ne!(name.exec(["kill", "-0", &child]).code, Some(0));
}

#[test]
fn kill_sends_the_signal_that_is_named() {
    if !has_engine() {
        return;
    }
    let name = Name::created();
    let id = begun(&name, "trap 'exit 9' USR1; echo ready; while :; do sleep 0.1; done");
    wait_for(&name, &id, "ready");
    assert_eq!(agentkernel(["kill", "--signal", "usr1", &name.0, &id]).code, Some(0));
    eventually("it has ended by itself", || commands(&name)[0]["exit_code"] == 9);
}

#[test]
fn an_id_that_there_is_not_is_told() {
    if !has_engine() {
        return;
    }
    let name = Name::created();
    for verb in ["kill", "logs"] {
        let ended = agentkernel([verb, &name.0, "99"]);
        assert_eq!((ended.code, ended.stderr.contains("no command 99")), (Some(1), true), "{}", ended.stderr);
    }
}

#[test]
fn stats_tell_memory_and_processes() {
    if !has_engine() {
        return;
    }
    let name = Name::created();
    let stats: Value = serde_json::from_slice(&agentkernel(["stats", "--json", &name.0]).stdout).unwrap();
    let stats = &stats[0];
    assert!(stats["memory_bytes"].as_u64() > Some(0) && stats["pids"].as_u64() > Some(0), "{stats}");
}

#[test]
fn watched_stats_tell_the_share_of_the_processor() {
    if !has_engine() {
        return;
    }
    let name = Name::created();
    begun(&name, "while :; do :; done");
    let mut watch = heeding_signals();
    watch.args(["stats", "--watch", "--json", &name.0]).stdout(Stdio::piped());
    let mut watch = watch.spawn().unwrap();
    let lines = BufReader::new(watch.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut shares = lines.filter_map(|line| {
        let stats: Value = serde_json::from_str(&line).unwrap();
        stats[0]["cpu_percent"].as_f64()
    });
    assert!(shares.any(|share| share > 1.0));
    signal(&watch, "INT");
    assert_eq!(watch.wait().unwrap().code(), Some(130));
}

#[test]
fn a_restarted_sandbox_keeps_its_files_and_none_of_its_commands() {
    if !has_engine() {
        return;
    }
    let name = Name::created();
    assert_eq!(name.exec(["touch", "/kept"]).code, Some(0));
    begun(&name, "exec sleep 1000");
    let again = agentkernel(["restart", "--grace", "100ms", &name.0]);
    assert_eq!(again.text(), (Some(0), format!("{}\n", name.0).as_str(), ""));
    assert_eq!(name.exec(["ls", "/kept"]).text(), (Some(0), "/kept\n", ""));
    assert_eq!(commands(&name).as_array().map(Vec::len), Some(0));
}

#[test]
fn what_another_process_owns_is_not_restarted() {
    if !has_engine() {
        return;
    }
    let name = Name::new();
    let mut owner = heeding_signals();
    owner.args(["run", "--name", &name.0, "--image", IMAGE, "--", "sleep", "1000"]);
    let mut owner = owner.spawn().unwrap();
    eventually("it runs", || name.exec(["true"]).code == Some(0));
    let refused = agentkernel(["restart", &name.0]);
    assert_eq!((refused.code, refused.stderr.contains("another process owns it")), (Some(1), true));
    assert_eq!(name.exec(["true"]).code, Some(0));
    signal(&owner, "TERM");
    assert!(owner.wait().is_ok());
}
