//! `run`: exact bytes, exact codes.
use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use crate::program::{IMAGE, agentkernel, has_engine, run, with_input};

#[test]
fn stdout_stderr_and_the_code_are_the_commands_own() {
    if !has_engine() {
        return;
    }
    let ended = run(["--", "sh", "-c", "echo out; echo err >&2; exit 42"]);
    assert_eq!(ended.text(), (Some(42), "out\n", "err\n"));
}

#[test]
fn stdin_goes_through_byte_by_byte() {
    if !has_engine() {
        return;
    }
    let ended = with_input(["run", "--image", IMAGE, "--", "cat"], b"a\0\xff\n");
    assert_eq!((ended.code, ended.stdout.as_slice()), (Some(0), b"a\0\xff\n".as_slice()));
}

#[test]
fn arguments_and_variables_need_not_be_text() {
    if !has_engine() {
        return;
    }
    let script = OsStr::new("printf '%s%s' \"$1\" \"$X\"");
    let (argument, variable) = (OsStr::from_bytes(b"\xff\xfe"), OsStr::from_bytes(b"X=\xfd"));
    let words = ["run", "--image", IMAGE, "-e"].map(OsStr::new);
    let rest =
        [variable, OsStr::new("--"), OsStr::new("sh"), OsStr::new("-c"), script, OsStr::new("sh"), argument];
    let ended = agentkernel(words.into_iter().chain(rest));
    assert_eq!((ended.code, ended.stdout.as_slice()), (Some(0), b"\xff\xfe\xfd".as_slice()));
}

#[test]
fn a_killed_command_ends_with_128_and_the_signal() {
    if has_engine() {
        assert_eq!(run(["--", "sh", "-c", "kill -9 $$"]).code, Some(137));
    }
}

#[test]
fn a_missing_program_ends_with_127() {
    if has_engine() {
        assert_eq!(run(["--", "nosuch"]).code, Some(127));
    }
}

#[test]
fn a_directory_as_program_ends_with_126() {
    if has_engine() {
        assert_eq!(run(["--", "/tmp"]).code, Some(126));
    }
}

#[test]
fn a_timeout_ends_with_124_and_keeps_the_output() {
    if !has_engine() {
        return;
    }
    let ended = run(["--timeout", "1s", "--", "sh", "-c", "echo kept; (setsid sleep 100 &); sleep 100"]);
    assert_eq!((ended.code, ended.stdout.as_slice()), (Some(124), b"kept\n".as_slice()));
}

#[test]
fn everything_after_the_first_word_is_the_command() {
    if has_engine() {
        assert_eq!(run(["echo", "--json", "-v"]).text(), (Some(0), "--json -v\n", ""));
    }
}

#[test]
fn an_image_in_place_of_the_command_is_pointed_out() {
    if !has_engine() {
        return;
    }
    let ended = run(["busybox:latest", "true"]);
    assert_eq!(
        (ended.code, ended.stderr.contains("--image busybox:latest")),
        (Some(127), true),
        "{}",
        ended.stderr
    );
}

#[test]
fn an_image_that_is_not_there_is_named() {
    if !has_engine() {
        return;
    }
    let ended = agentkernel(["run", "--image", "agentkernel-absent", "--", "true"]);
    assert_eq!(
        (ended.code, ended.stderr.contains("image: agentkernel-absent")),
        (Some(125), true),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_limit_that_cannot_be_enforced_is_refused() {
    if !has_engine() {
        return;
    }
    let ended = run(["--disk", "1G", "--", "true"]);
    assert_eq!((ended.code, ended.stderr.contains("`disk_mb`")), (Some(125), true), "{}", ended.stderr);
}

#[test]
fn json_tells_the_end_and_both_streams() {
    if !has_engine() {
        return;
    }
    let ended = run(["--json", "--", "sh", "-c", "echo out; printf '\\377' >&2; exit 3"]);
    let told: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
    let expected = serde_json::json!({
        "exit_code": 3, "signal": null, "timed_out": false, "out_of_memory": false, "truncated": false,
        "stdout": "out\n", "stderr_base64": "/w==",
    });
    assert_eq!((ended.code, told), (Some(3), expected));
}

#[test]
fn out_of_memory_is_told_apart_from_an_exit_with_137() {
    if !has_engine() {
        return;
    }
    let told = |script: &str| {
        let ended = run(["--json", "-m", "16M", "--", "sh", "-c", script]);
        let told: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
        (ended.code, told["out_of_memory"].as_bool())
    };
    assert_eq!(told("x=a; while :; do x=$x$x; done"), (Some(137), Some(true)));
    assert_eq!(told("exit 137"), (Some(137), Some(false)));
}

#[test]
fn two_gigabytes_of_output_leave_our_memory_flat() {
    if !has_engine() {
        return;
    }
    let mut command = crate::program::binary();
    command.args(["run", "--image", IMAGE, "--", "dd", "if=/dev/zero", "bs=1M", "count=2048"]);
    let mut child =
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let (mut buffer, mut seen, mut peak_kib) = (vec![0; 1 << 20], 0, 0);
    loop {
        let count = std::io::Read::read(&mut stdout, &mut buffer).unwrap();
        if count == 0 {
            break;
        }
        seen += count;
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        peak_kib = peak_kib.max(kib.unwrap_or(0));
    }
    assert_eq!((child.wait().unwrap().code(), seen), (Some(0), 2 << 30));
    assert!(peak_kib < 64 << 10, "{peak_kib} KiB");
}

fn lines(ended: &crate::program::Ended) -> Vec<serde_json::Value> {
    ended.text().1.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_stream_of_json_tells_where_what_and_how_it_ended() {
    if !has_engine() {
        return;
    }
    let ended = run([
        "--json-stream",
        "--name",
        "cli-stream",
        "--",
        "sh",
        "-c",
        "echo out; sleep 0.2; printf '\\377' >&2; exit 3",
    ]);
    let lines = lines(&ended);
    assert_eq!((ended.code, ended.stderr.as_str(), lines.len()), (Some(3), "", 4), "{lines:?}");
    assert_eq!(lines[0]["started"]["sandbox"], "cli-stream");
    assert_eq!(lines[1], serde_json::json!({"stream": "stdout", "data": "out\n"}));
    assert_eq!(lines[2], serde_json::json!({"stream": "stderr", "data_base64": "/w=="}));
    assert_eq!(lines[3]["exit_code"], 3);
}

#[test]
fn a_stream_of_json_ends_with_the_error_if_there_is_one() {
    if !has_engine() {
        return;
    }
    let ended = run(["--json-stream", "--", "nosuch"]);
    let lines = lines(&ended);
    assert_eq!((ended.code, lines.len()), (Some(127), 1));
    assert_eq!(lines[0]["error"]["kind"], "command_not_found");
}

#[test]
fn a_stream_of_json_comes_while_the_command_runs() {
    if !has_engine() {
        return;
    }
    let mut command = crate::program::heeding_signals();
    command.args(["run", "--json-stream", "--image", IMAGE, "--", "sh", "-c", "echo now; exec sleep 1000"]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let output = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut lines = std::io::BufRead::lines(output);
    let told = lines.nth(1).unwrap().unwrap();
    crate::program::signal(&child, "TERM");
    assert!(told.contains("now") && child.wait().unwrap().code() == Some(143), "{told}");
}
