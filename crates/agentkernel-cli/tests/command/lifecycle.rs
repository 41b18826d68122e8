//! Making, listing, stopping and removing.
use std::process::Command;

use crate::program::{IMAGE, Name, agentkernel, binary, containers, has_engine};

#[test]
fn create_prints_the_name_and_a_second_one_is_refused() {
    if !has_engine() {
        return;
    }
    let name = Name::new();
    let made = agentkernel(["create", &name.0, "--image", IMAGE]);
    assert_eq!(made.text(), (Some(0), format!("{}\n", name.0).as_str(), ""));
    let again = agentkernel(["create", &name.0, "--image", IMAGE]);
    assert_eq!((again.code, again.stderr.contains("taken")), (Some(1), true), "{}", again.stderr);
}

#[test]
fn a_stopped_sandbox_keeps_its_files_and_starts_again() {
    if !has_engine() {
        return;
    }
    let name = Name::created();
    assert_eq!(name.exec(["touch", "/kept"]).code, Some(0));
    assert_eq!(agentkernel(["stop", &name.0]).code, Some(0));
    assert_eq!(name.exec(["true"]).code, Some(125));
    assert_eq!(agentkernel(["start", &name.0]).code, Some(0));
    assert_eq!(name.exec(["ls", "/kept"]).text(), (Some(0), "/kept\n", ""));
}

#[test]
fn a_running_sandbox_is_removed_only_by_force() {
    if !has_engine() {
        return;
    }
    let name = Name::created();
    assert_eq!(agentkernel(["remove", &name.0]).code, Some(1));
    assert_eq!(agentkernel(["remove", "--force", &name.0]).code, Some(0));
    assert!(!containers().contains(&name.0));
}

#[test]
fn list_gives_names_alone_when_quiet() {
    if !has_engine() {
        return;
    }
    let name = Name::created();
    let names = agentkernel(["list", "--quiet"]);
    let (code, stdout, stderr) = names.text();
    assert_eq!((code, stderr, stdout.lines().any(|line| line == name.0)), (Some(0), "", true));
}

#[test]
fn inspect_shows_what_restricts_it() {
    if !has_engine() {
        return;
    }
    let name = Name::new();
    let made =
        agentkernel(["create", &name.0, "--image", IMAGE, "--pids", "64", "-m", "64M", "--label", "a=b"]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let shown = agentkernel(["inspect", "--json", &name.0]);
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    let info = shown.get("sandbox").unwrap_or(&shown);
    let asked =
        info["restrictions"].as_array().unwrap().iter().map(|one| one["capability"].as_str().unwrap());
    let asked = asked.collect::<Vec<_>>();
    assert!(asked.contains(&"pids") && asked.contains(&"memory_mb"), "{asked:?}");
    assert_eq!((info["state"].as_str(), info["labels"]["a"].as_str()), (Some("running"), Some("b")));
}

#[test]
fn a_foreign_container_with_our_prefix_is_never_touched() {
    if !has_engine() {
        return;
    }
    let name = format!("cli-foreign-{}", std::process::id());
    let container = format!("agentkernel-{name}");
    let docker =
        |args: &[&str]| assert!(Command::new("docker").args(args).output().unwrap().status.success());
    docker(&["create", "--name", &container, IMAGE, "true"]);
    let removed = agentkernel(["remove", "--force", &name]);
    let made = agentkernel(["create", &name, "--image", IMAGE]);
    let there = containers().contains(&container);
    docker(&["rm", &container]);
    assert_eq!((removed.code, made.code, there), (Some(0), Some(1), true), "{}", made.stderr);
}

#[test]
fn backends_tells_what_there_is() {
    let ended = agentkernel(["backends", "--json"]);
    let told: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert!(ended.code == Some(0) && told.to_string().contains("docker"), "{told}");
}

#[test]
fn backends_tells_that_the_guest_is_missing_and_what_to_do() {
    if !has_engine() {
        return;
    }
    let told = binary().env("AGENTKERNEL_GUEST", "/no/such/guest").arg("backends").output().unwrap();
    let text = String::from_utf8(told.stdout).unwrap();
    let line = text.lines().find(|line| line.starts_with("docker")).unwrap();
    for part in ["unavailable", "/no/such/guest", "hint:", "AGENTKERNEL_GUEST"] {
        assert!(line.contains(part), "{part}: {text}");
    }
}
