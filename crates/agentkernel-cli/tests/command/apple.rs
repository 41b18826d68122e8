//! Apple's backend in the command, on the stand-in for `container`.
#[path = "../../../agentkernel-apple/tests/support/world.rs"]
mod world;

use std::process::Output;

use crate::program::{IMAGE, Name, agentkernel, binary, has_engine};
use world::World;

fn run(world: &World, args: &[&str]) -> Output {
    binary().args(args).env("AGENTKERNEL_CONTAINER", world.program()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_backends_show_it_first() {
    let world = World::new("1.2");
    let shown = run(&world, &["backends", "--json"]);
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown[0]["backend"], "apple");
    assert_eq!(shown[0]["isolation"], "vm", "{shown}");
}

#[test]
fn a_command_runs_and_its_exit_code_comes_back() {
    let world = World::new("1.2");
    let args = [
        "run",
        "--backend",
        "apple",
        "--image",
        "busybox",
        "--",
        "sh",
        "-c",
        "echo out; echo err >&2; exit 7",
    ];
    let ended = run(&world, &args);
    assert_eq!(
        (ended.status.code(), text(&ended.stdout), text(&ended.stderr)),
        (Some(7), "out\n".into(), "err\n".into())
    );
}

#[test]
fn without_a_terminal_nobody_is_asked_to_start_the_service() {
    let world = World::new("1.2");
    world.switch(r#"{"service":"unregistered"}"#);
    let ended = run(&world, &["run", "--backend", "apple", "--", "true"]);
    assert_eq!(ended.status.code(), Some(125));
    assert!(
        text(&ended.stderr).contains("hint: start the service: container system start"),
        "{}",
        text(&ended.stderr)
    );
    assert!(!text(&ended.stderr).contains("[y/N]"));
}

#[test]
fn with_a_hang_in_it_the_list_of_other_backends_still_answers() {
    if !has_engine() {
        return;
    }
    let name = Name::new();
    let made = agentkernel(["create", "--backend", "docker", &name.0, "--image", IMAGE]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let world = World::new("1.2");
    world.switch(r#"{"hang":["list"]}"#);
    let listed = run(&world, &["list"]);
    assert!(text(&listed.stdout).contains(&name.0), "{}", text(&listed.stderr));
    assert!(text(&listed.stderr).contains("backend: apple"), "{}", text(&listed.stderr));
    assert_eq!(listed.status.code(), Some(1), "what could not be listed is told");
}
