//! What goes in from files of the host, and what stays of a `run`.
use std::{fs, os::unix::fs::PermissionsExt};

use crate::program::{IMAGE, Name, agentkernel, has_engine, run};

#[test]
fn variables_come_from_a_file_and_a_flag_wins() {
    if !has_engine() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("vars");
    fs::write(&file, "# comment\n\nA=from file\nB=from file\n").unwrap();
    let file = file.to_str().unwrap();
    let ended = run(["--env-file", file, "-e", "B=from flag", "--", "sh", "-c", "echo $A, $B"]);
    assert_eq!(ended.text(), (Some(0), "from file, from flag\n", ""));
}

#[test]
fn a_wrong_line_of_a_variable_file_is_told_by_file_and_number() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("vars");
    fs::write(&file, "A=1\nHOME\n").unwrap();
    let ended = run(["--env-file", file.to_str().unwrap(), "--", "true"]);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    for part in [file.to_str().unwrap(), "line: 2", "NAME=value"] {
        assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
}

#[test]
fn an_endless_variable_file_is_refused() {
    let ended = run(["--env-file", "/dev/zero", "--", "true"]);
    assert_eq!((ended.code, ended.stderr.contains("1 MiB")), (Some(2), true), "{}", ended.stderr);
}

#[test]
fn a_file_goes_in_with_its_permissions() {
    if !has_engine() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script");
    fs::write(&script, "#!/bin/sh\necho ran\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let flag = format!("{}:/opt/script", script.display());
    assert_eq!(run(["--file", &flag, "--", "/opt/script"]).text(), (Some(0), "ran\n", ""));
}

#[test]
fn a_directory_is_no_file_to_put_in() {
    let ended = run(["--file", "/etc:/etc2", "--", "true"]);
    assert_eq!((ended.code, ended.stderr.contains("--mount")), (Some(2), true), "{}", ended.stderr);
}

#[test]
fn no_network_and_a_network_exclude_each_other() {
    assert_eq!(run(["--no-network", "--network", "full", "--", "true"]).code, Some(2));
}

#[test]
fn a_kept_sandbox_stays_and_is_named() {
    if !has_engine() {
        return;
    }
    let name = Name::new();
    let ended = run(["--keep", "--name", &name.0, "--", "sh", "-c", "echo x > /kept; exit 3"]);
    assert_eq!(
        (ended.code, ended.stderr.contains(&format!("agentkernel exec {} -- sh", name.0))),
        (Some(3), true),
        "{}",
        ended.stderr
    );
    assert_eq!(name.exec(["cat", "/kept"]).text(), (Some(0), "x\n", ""));
}

#[test]
fn a_kept_sandbox_whose_command_never_began_does_not_stay() {
    if !has_engine() {
        return;
    }
    let name = Name::new();
    assert_eq!(run(["--keep", "--name", &name.0, "--", "nosuch"]).code, Some(127));
    assert_eq!(name.exec(["true"]).code, Some(125));
}

#[test]
fn create_if_missing_is_content_with_what_is_there() {
    if !has_engine() {
        return;
    }
    let name = Name::created();
    let again = agentkernel(["create", "--if-missing", &name.0, "--image", IMAGE]);
    assert_eq!(again.text(), (Some(0), format!("{}\n", name.0).as_str(), ""));
    let new = Name::new();
    let made = agentkernel(["create", "--if-missing", &new.0, "--image", IMAGE]);
    assert_eq!(made.text(), (Some(0), format!("{}\n", new.0).as_str(), ""));
}
