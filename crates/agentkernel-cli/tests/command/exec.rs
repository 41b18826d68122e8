//! `exec` and `attach` in a sandbox that stays.
use crate::program::{Name, agentkernel, eventually, has_engine};

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
