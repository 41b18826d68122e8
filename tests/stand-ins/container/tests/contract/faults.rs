//! The switches: each fault shows itself as the reference says, and goes away with its switch.
use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::world::{Is, Row, World, can_run, play};

const REMEDY: &str = "\nEnsure container system service has been started with `container system start`.\n";

fn hangs(world: &World, arguments: &[&str]) -> bool {
    let mut child = world.spawn(arguments);
    thread::sleep(Duration::from_millis(400));
    let hangs = child.try_wait().unwrap().is_none();
    child.kill().unwrap();
    child.wait().unwrap();
    hangs
}

#[test]
fn a_service_that_is_down_has_two_forms_and_starts() {
    let world = World::new("1.2");
    world.switch(&json!({"service": "unregistered"}));
    let error = |arguments: &[&str]| {
        let output = world.run(arguments);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    // 0.2: commands that load the configuration first.
    for arguments in
        [&["run", "busybox"][..], &["create", "busybox"], &["image", "list"], &["image", "pull", "x"]]
    {
        assert_eq!(
            error(arguments),
            format!("Error: interrupted: \"XPC connection error: Connection invalid\"{REMEDY}")
        );
    }
    // 0.2: list, inspect, exec, start, stats.
    for arguments in
        [&["list"][..], &["inspect", "ab"], &["exec", "ab", "true"], &["start", "ab"], &["stats", "ab"]]
    {
        let said = error(arguments);
        assert!(said.starts_with("Error: internalError: \"failed to "), "{said}");
        assert!(
            said.ends_with(&format!(
                "(cause: \"interrupted: \"XPC connection error: Connection invalid\"\"){REMEDY}"
            )),
            "{said}"
        );
    }
    // 1.1: status is on stdout, exit 1; version and grammar need no service.
    play(
        &world,
        &[
            Row(
                "1.1 down",
                &["system", "status"],
                1,
                Is::Exactly("apiserver is not running and not registered with launchd\n"),
                Is::Empty,
            ),
            Row(
                "2.4 down",
                &["system", "status", "--format", "json"],
                1,
                Is::Has("\"status\":\"unregistered\""),
                Is::Empty,
            ),
            Row(
                "2.4 version: array of 1 (daemon down)",
                &["system", "version", "--format", "json"],
                0,
                Is::Has("[{"),
                Is::Empty,
            ),
            Row(
                "0.1 plugins with the daemon down",
                &["ps"],
                64,
                Is::Empty,
                Is::Usage("Plugins are unavailable. Start the container system services and retry:"),
            ),
            Row("0 --version needs no daemon", &["--version"], 0, Is::Any, Is::Empty),
            Row("1.1 start", &["system", "start", "--disable-kernel-install"], 0, Is::Empty, Is::Any),
            Row("1.1 and it is up", &["system", "status"], 0, Is::Any, Is::Empty),
            Row("1.4 and answers", &["list", "--format=json"], 0, Is::Exactly("[]\n"), Is::Empty),
            Row("1.1 stop", &["system", "stop"], 0, Is::Any, Is::Empty),
            Row("1.4 and it is down", &["list"], 1, Is::Empty, Is::Has("XPC connection error")),
        ],
    );
    let world = World::new("1.2");
    world.switch(&json!({"service": "not-running", "start_fails": true}));
    play(
        &world,
        &[
            Row("1.1 dead", &["system", "status"], 1, Is::Exactly("apiserver is not running\n"), Is::Empty),
            Row(
                "1.1 start fails",
                &["system", "start", "--enable-kernel-install"],
                1,
                Is::Empty,
                Is::Has("Error: failed to get a response from apiserver: "),
            ),
        ],
    );
}

#[test]
fn without_a_kernel_start_asks_on_stdout_and_fails_at_the_end_of_stdin() {
    let world = World::new("1.2");
    world.switch(&json!({"kernel": false, "service": "unregistered"}));
    let output = world.run(&["system", "start"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .starts_with("Install the recommended default kernel from [")
    );
    assert!(String::from_utf8(output.stderr).unwrap().ends_with("Error: failed to read user input\n"));
    let output = world.fed(&["system", "start"], b"n\n");
    assert_eq!(output.status.code(), Some(0));
    if can_run() {
        let output = world.run(&["create", "--name=ab", "busybox"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.starts_with("Error: default kernel not configured for architecture "), "{said}");
        world.ok(&["system", "start", "--enable-kernel-install"]);
        world.ok(&["create", "--name=ab", "busybox"]);
    }
}

#[test]
fn a_verb_hangs_when_told_and_no_other_does() {
    let world = World::new("1.2");
    world.switch(&json!({"hang": ["list", "system status"]}));
    assert!(hangs(&world, &["list"]));
    assert!(hangs(&world, &["ls", "-a"]));
    assert!(hangs(&world, &["system", "status"]));
    assert!(!hangs(&world, &["system", "version"]));
    world.switch(&json!({}));
    assert!(!hangs(&world, &["list"]));
}

#[test]
fn a_wedged_delete_leaves_the_container() {
    if !can_run() {
        return;
    }
    let world = World::new("1.2");
    world.up("ab");
    world.switch(&json!({"wedged_delete": "hang"}));
    assert!(hangs(&world, &["delete", "--force", "ab"]));
    world.switch(&json!({"wedged_delete": "fail"}));
    let output = world.run(&["delete", "-f", "ab"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("deleteProcess: exec"));
    world.switch(&json!({}));
    assert_eq!(world.ok(&["list", "-q"]), "ab\n");
    world.ok(&["delete", "-f", "ab"]);
    assert_eq!(world.ok(&["list", "-aq"]), "");
}

#[test]
fn a_pull_fails_with_the_text_that_was_asked_for() {
    if !can_run() {
        return;
    }
    let world = World::new("1.2");
    world.switch(&json!({"pull_failure": "the registry is closed"}));
    for arguments in [&["image", "pull", "alpine"][..], &["run", "alpine"]] {
        let output = world.run(arguments);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(output.stderr, b"Error: the registry is closed\n");
    }
    world.ok(&["create", "busybox"]);
}

#[test]
fn a_slow_start_is_slow_and_then_runs() {
    if !can_run() {
        return;
    }
    let world = World::new("1.2");
    world.ok(&["create", "--name=ab", "busybox", "sleep", "100"]);
    world.switch(&json!({"start_delay_ms": 800}));
    let start = Instant::now();
    world.ok(&["start", "ab"]);
    assert!(start.elapsed() >= Duration::from_millis(800));
    assert_eq!(world.ok(&["list", "-q"]), "ab\n");
}

#[test]
fn a_crash_in_the_middle_does_the_work_and_loses_the_answer() {
    if !can_run() {
        return;
    }
    let world = World::new("1.2");
    world.switch(&json!({"crash": ["create", "start", "delete"]}));
    for arguments in [&["create", "--name=ab", "busybox", "sleep", "100"][..], &["start", "ab"]] {
        let output = world.run(arguments);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
        assert!(
            String::from_utf8(output.stderr)
                .unwrap()
                .contains("XPC connection error: Connection interrupted")
        );
    }
    assert_eq!(world.ok(&["list", "-q"]), "ab\n");
    assert_eq!(world.run(&["delete", "-f", "ab"]).status.code(), Some(1));
    assert_eq!(world.ok(&["list", "-aq"]), "");
}

#[test]
fn what_is_missing_in_the_stand_in_says_so_with_70() {
    let world = World::new("1.2");
    for arguments in [
        &["build", "."][..],
        &["prune"],
        &["machine", "list"],
        &["registry", "login"],
        &["system", "df"],
        &["list", "--format=yaml"],
    ] {
        let output = world.run(arguments);
        assert_eq!(output.status.code(), Some(70), "{arguments:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.starts_with("container stand-in: ") && said.contains("not in the stand-in"), "{said}");
    }
    fs::write(world.root().join("control.json"), r#"{"hnag": ["list"]}"#).unwrap();
    assert_eq!(world.run(&["list"]).status.code(), Some(70));
}

#[test]
fn every_call_is_recorded_as_it_was() {
    let world = World::new("1.2");
    let odd = "a'\"$(x)\n ---";
    world.run(&["list", odd]);
    world.run(&["no-such", "--x=", ""]);
    let log = fs::read_to_string(world.root().join("calls.jsonl")).unwrap();
    let calls = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["argv"].clone())
        .collect::<Vec<_>>();
    assert_eq!(calls, [json!(["list", odd]), json!(["no-such", "--x=", ""])]);
}

#[test]
fn without_any_environment_the_state_is_beside_the_executable() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    for (from, to) in
        [(env!("CARGO_BIN_EXE_container"), "container"), (env!("CARGO_BIN_EXE_sw_vers"), "sw_vers")]
    {
        fs::copy(from, path(to)).unwrap();
    }
    let run = |name: &str, arguments: &[&str]| {
        let mut command = Command::new(path(name));
        command.args(arguments).env_clear().stdin(Stdio::null()).output().unwrap()
    };
    assert_eq!(run("container", &["list"]).status.code(), Some(70));
    fs::create_dir(path("stand-in")).unwrap();
    fs::write(path("stand-in/control.json"), r#"{"version": "1.0"}"#).unwrap();
    assert!(String::from_utf8(run("container", &["--version"]).stdout).unwrap().contains(" 1.0.0 "));
    assert!(path("stand-in/calls.jsonl").exists());
    assert_eq!(run("sw_vers", &["-productVersion"]).stdout, b"26.1\n");
    fs::write(path("macos-version"), "15.6\n").unwrap();
    assert_eq!(run("sw_vers", &["--productVersion"]).stdout, b"15.6\n");
    assert_eq!(run("sw_vers", &["--nonsense"]).status.code(), Some(1));
}

#[test]
fn noise_is_on_stderr_of_a_call_that_succeeds() {
    let world = World::new("1.2");
    world.switch(&json!({"noise": true}));
    play(
        &world,
        &[Row(
            "0.3 stderr may start with noise on success",
            &["list", "--format=json"],
            0,
            Is::Exactly("[]\n"),
            Is::Exactly("Warning! Running debug build. Performance may be degraded.\n"),
        )],
    );
}
