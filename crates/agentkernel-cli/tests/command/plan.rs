//! `--dry-run`: the plan, and nothing made.
use crate::program::{IMAGE, Name, agentkernel, containers, has_engine};

fn plan(args: &[&str]) -> serde_json::Value {
    let planned =
        agentkernel([&["run", "--dry-run", "--json", "--image", IMAGE], args, &["--", "true"]].concat());
    assert_eq!((planned.code, planned.stderr.as_str()), (Some(0), ""));
    serde_json::from_slice(&planned.stdout).unwrap()
}

fn restriction<'a>(plan: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    let all = plan["restrictions"].as_array().unwrap();
    all.iter().find(|one| one["capability"] == name).unwrap()
}

#[test]
fn a_plan_makes_nothing() {
    if !has_engine() {
        return;
    }
    let name = Name::new();
    for line in [vec!["create", &name.0], vec!["run", "--name", &name.0]] {
        let command = if line[0] == "run" { vec!["true"] } else { vec![] };
        let flags = vec!["--dry-run", "--image", IMAGE];
        let ended = agentkernel([line, flags, command].concat());
        assert_eq!((ended.code, ended.stderr.as_str(), containers().contains(&name.0)), (Some(0), "", false));
        assert!(ended.text().1.contains("Nothing was made."), "{}", ended.text().1);
    }
}

#[test]
fn a_plan_tells_what_enforces_each_restriction() {
    if !has_engine() {
        return;
    }
    let plan = plan(&["--backend", "docker", "--pids", "64"]);
    let pids = restriction(&plan, "pids");
    assert_eq!((pids["asked"].as_str(), pids["enforced_by"].as_str()), (Some("64"), Some("docker")));
    assert_eq!(restriction(&plan, "network_none")["enforced_by"], "docker");
}

#[test]
fn a_plan_shows_what_goes_unenforced_by_leave() {
    if !has_engine() {
        return;
    }
    let plan = plan(&["--backend", "docker", "--disk", "1G", "--allow-weaker", "disk_mb"]);
    let disk = restriction(&plan, "disk_mb");
    assert_eq!(
        (disk["enforced_by"].is_null(), disk["allowed_weaker"].as_bool()),
        (true, Some(true)),
        "{plan}"
    );
}

#[test]
fn a_plan_tells_what_became_of_every_backend() {
    if !has_engine() {
        return;
    }
    let plan = plan(&[]);
    let considered = plan["considered"].as_array().unwrap();
    let backends: serde_json::Value =
        serde_json::from_slice(&agentkernel(["backends", "--json"]).stdout).unwrap();
    assert_eq!(considered.len(), backends.as_array().unwrap().len(), "{plan}");
    assert!(considered.iter().all(|one| !one["reason"].as_str().unwrap().is_empty()), "{plan}");
}

#[test]
fn a_plan_shows_no_value_of_a_variable() {
    if !has_engine() {
        return;
    }
    let plan = plan(&["-e", "TOKEN=hunter2"]).to_string();
    assert!(plan.contains("TOKEN") && !plan.contains("hunter2"), "{plan}");
}

#[test]
fn what_cannot_be_enforced_has_no_plan() {
    if !has_engine() {
        return;
    }
    let refused = agentkernel([
        "run",
        "--dry-run",
        "--backend",
        "docker",
        "--image",
        IMAGE,
        "--disk",
        "1G",
        "--",
        "true",
    ]);
    assert_eq!((refused.code, refused.stderr.contains("`disk_mb`")), (Some(125), true), "{}", refused.stderr);
}
