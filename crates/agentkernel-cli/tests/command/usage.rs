//! Bad input, and no engine: a clear error before anything starts.
use std::process::Output;

use crate::program::{agentkernel, binary};

fn without_engine(args: &[&str]) -> Output {
    let nowhere = "unix:///nonexistent/engine.sock";
    binary().args(args).env("DOCKER_HOST", nowhere).env("CONTAINER_HOST", nowhere).output().unwrap()
}

#[test]
fn an_unknown_flag_is_a_usage_error() {
    assert_eq!(agentkernel(["run", "--no-such-flag", "--", "true"]).code, Some(2));
}

#[test]
fn run_without_a_command_is_a_usage_error() {
    assert_eq!(agentkernel(["run", "--image", "busybox"]).code, Some(2));
}

#[test]
fn a_malformed_name_is_a_usage_error_that_shows_no_control_character() {
    let ended = agentkernel(["create", "a\x1b[2Jb", "--image", "busybox"]);
    assert_eq!((ended.code, ended.stderr.contains('\x1b')), (Some(2), false));
}

#[test]
fn an_image_that_looks_like_a_flag_is_a_usage_error() {
    assert_eq!(agentkernel(["run", "--image=--privileged", "--", "true"]).code, Some(2));
}

#[test]
fn a_variable_by_its_name_alone_is_refused_with_a_hint() {
    let ended = agentkernel(["run", "--image", "busybox", "-e", "HOME", "--", "true"]);
    assert_eq!((ended.code, ended.stderr.contains("NAME=")), (Some(2), true), "{}", ended.stderr);
}

#[test]
fn an_unknown_backend_names_those_that_there_are() {
    let ended = agentkernel(["run", "--backend", "nosuch", "--image", "busybox", "--", "true"]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("docker"), "{}", ended.stderr);
}

#[test]
fn without_an_engine_run_says_what_is_missing_and_ends_with_125() {
    let output = without_engine(&["run", "--image", "busybox", "--", "true"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(125), 0));
    assert!(stderr.starts_with("error: ") && stderr.contains("hint: "), "{stderr}");
}

#[test]
fn without_an_engine_other_verbs_end_with_1() {
    let output = without_engine(&["list"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn errors_are_one_json_object_where_json_was_asked_for() {
    let output = without_engine(&["run", "--json", "--image", "busybox", "--", "true"]);
    let error: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), error["error"]["kind"].as_str()), (Some(125), Some("unavailable")));
}

#[test]
fn both_ends_of_a_copy_on_the_host_is_a_usage_error() {
    assert_eq!(agentkernel(["cp", "/etc/hostname", "/tmp/x"]).code, Some(2));
}
