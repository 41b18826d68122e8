//! Commands: exact arguments, exact status, and failures of ours that are never taken for the command's.
use std::time::Duration;

use agentkernel_core::{ErrorKind, ExecOptions, ExecResult, ExitStatus, SandboxExt, Signal, WriteOptions};

use crate::{
    fixture::{Fixture, command, command_with, kind, output, path, refusal, script, script_with, sh},
    rule::rules,
    wait::soon,
};

rules![
    exit_code_is_the_commands_own,
    a_signal_that_ended_the_command_is_told,
    exit_137_is_a_code_and_no_signal,
    exit_127_with_not_found_in_the_output_is_a_code,
    exit_126_with_a_message_of_an_engine_is_a_code,
    a_missing_program_is_command_not_found[TypedExit],
    a_missing_path_is_command_not_found[TypedExit],
    a_file_without_permission_is_not_executable[TypedExit],
    a_directory_is_not_executable[TypedExit],
    a_file_of_no_known_format_is_not_executable[TypedExit, Files],
    a_script_runs_by_its_interpreter[Files],
    the_program_is_looked_up_in_the_path_of_the_command[Files],
    arguments_are_exact,
    arguments_need_not_be_utf8[RawBytes],
    no_shell_touches_arguments,
    an_argument_of_the_kernels_limit_works,
    an_argument_beyond_the_kernels_limit_is_refused,
    many_arguments_work,
    the_working_directory_is_the_one_asked_for,
    the_working_directory_of_the_sandbox_is_the_default,
    a_missing_working_directory_is_not_found,
    the_user_can_be_a_number[ExecUser],
    the_user_can_be_a_name[ExecUser],
    the_user_of_the_sandbox_is_the_default[ExecUser],
    an_unknown_user_is_not_found[ExecUser],
    exec_gives_text,
    a_timeout_ends_the_command_and_keeps_its_output,
    a_command_within_its_timeout_is_not_touched,
    ids_of_commands_differ,
];

async fn exit_code_is_the_commands_own(fixture: Fixture) {
    let sandbox = fixture.start().await;
    for code in [0, 1, 2, 42, 124, 125, 126, 127, 128, 129, 143, 255] {
        let status = output(&sandbox, &script(&format!("exit {code}"))).await.status;
        assert_eq!(status, ExitStatus::Code(code));
    }
}

async fn a_signal_that_ended_the_command_is_told(fixture: Fixture) {
    let sandbox = fixture.start().await;
    for (name, signal) in [("KILL", Signal::KILL), ("TERM", Signal::TERM), ("HUP", Signal::HUP)] {
        let status = output(&sandbox, &script(&format!("kill -{name} $$; sleep 1000"))).await.status;
        assert_eq!(status, ExitStatus::Signal(signal));
    }
}

async fn exit_137_is_a_code_and_no_signal(fixture: Fixture) {
    let sandbox = fixture.start().await;
    assert_eq!(output(&sandbox, &script("exit 137")).await.status, ExitStatus::Code(137));
}

async fn exit_127_with_not_found_in_the_output_is_a_code(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let forged = "echo 'sh: exec: \"nosuch\": executable file not found in $PATH'; exit 127";
    assert_eq!(output(&sandbox, &script(forged)).await.status, ExitStatus::Code(127));
}

async fn exit_126_with_a_message_of_an_engine_is_a_code(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let forged = "printf 'OCI runtime exec failed: exec failed: permission denied: unknown\\r\\n'; exit 126";
    assert_eq!(output(&sandbox, &script(forged)).await.status, ExitStatus::Code(126));
}

async fn a_missing_program_is_command_not_found(fixture: Fixture) {
    let sandbox = fixture.start().await;
    assert_eq!(refusal(&sandbox, &command(&["nosuch-program"])).await, ErrorKind::CommandNotFound);
}

async fn a_missing_path_is_command_not_found(fixture: Fixture) {
    let sandbox = fixture.start().await;
    assert_eq!(refusal(&sandbox, &command(&["/nosuch/program"])).await, ErrorKind::CommandNotFound);
}

async fn a_file_without_permission_is_not_executable(fixture: Fixture) {
    let sandbox = fixture.start().await;
    assert_eq!(refusal(&sandbox, &command(&["/etc/passwd"])).await, ErrorKind::CommandNotExecutable);
}

async fn a_directory_is_not_executable(fixture: Fixture) {
    let sandbox = fixture.start().await;
    assert_eq!(refusal(&sandbox, &command(&["/etc"])).await, ErrorKind::CommandNotExecutable);
}

async fn a_file_of_no_known_format_is_not_executable(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let options = WriteOptions { mode: Some(0o755), parents: true };
    sandbox.write(&path("/opt/garbage"), &options, &mut [1u8, 2, 3].as_slice()).await.unwrap();
    assert_eq!(refusal(&sandbox, &command(&["/opt/garbage"])).await, ErrorKind::CommandNotExecutable);
}

async fn a_script_runs_by_its_interpreter(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let options = WriteOptions { mode: Some(0o755), parents: true };
    let tool = b"#!/bin/sh\necho tool \"$1\"\n";
    sandbox.write(&path("/opt/tool"), &options, &mut tool.as_slice()).await.unwrap();
    assert_eq!(output(&sandbox, &command(&["/opt/tool", "a b"])).await.stdout, "tool a b\n");
}

async fn the_program_is_looked_up_in_the_path_of_the_command(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let options = WriteOptions { mode: Some(0o755), parents: true };
    let tool = b"#!/bin/sh\necho mine\n";
    sandbox.write(&path("/opt/bin/own-tool"), &options, &mut tool.as_slice()).await.unwrap();
    let env = vec!["PATH=/opt/bin:/bin".to_owned()];
    assert_eq!(sandbox.exec_with_env(&["own-tool"], &env).await.unwrap().stdout, "mine\n");
}

const ARGUMENTS: [&str; 16] = [
    "",
    " ",
    "a b",
    "c'd",
    "e\"f",
    "$HOME",
    "`id`",
    "$(id)",
    "*",
    "\\",
    "x\ny",
    "--",
    "-n",
    "--help",
    "a=b",
    "\u{e9}\t\x1b",
];

/// A script that prints its arguments, each with a NUL after it.
const PRINT_ARGUMENTS: [&str; 4] = ["sh", "-c", r#"printf '%s\0' "$@""#, "sh"];

async fn arguments_are_exact(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let argv = [&PRINT_ARGUMENTS[..], &ARGUMENTS[..]].concat();
    let expected = ARGUMENTS.iter().map(|argument| format!("{argument}\0")).collect::<String>();
    assert_eq!(output(&sandbox, &command(&argv)).await.stdout, expected);
}

async fn arguments_need_not_be_utf8(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let every_byte = (1..=255u8).collect::<Vec<_>>();
    let argv = PRINT_ARGUMENTS.iter().map(|argument| argument.as_bytes()).chain([every_byte.as_slice()]);
    let expected = [every_byte.as_slice(), b"\0"].concat();
    assert_eq!(output(&sandbox, &command(&argv.collect::<Vec<_>>())).await.stdout, expected);
}

async fn no_shell_touches_arguments(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let argv = ["echo", "$HOME", "*", ";", "a  b", "|", "&&", "~", ">/tmp/x"];
    assert_eq!(output(&sandbox, &command(&argv)).await.stdout, "$HOME * ; a  b | && ~ >/tmp/x\n");
}

async fn an_argument_of_the_kernels_limit_works(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let longest = "a".repeat(131_071);
    let argv = ["sh", "-c", r#"printf %s "$1" | wc -c"#, "sh", &longest];
    assert_eq!(output(&sandbox, &command(&argv)).await.stdout, "131071\n");
}

async fn an_argument_beyond_the_kernels_limit_is_refused(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let refused = sandbox.exec(&["true", &"a".repeat(131_072)]).await;
    assert_eq!(kind(refused), Some(ErrorKind::InvalidConfig));
}

async fn many_arguments_work(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let many = vec!["x"; 10_000];
    let argv = [&["sh", "-c", "echo $#", "sh"][..], &many[..]].concat();
    assert_eq!(output(&sandbox, &command(&argv)).await.stdout, "10000\n");
}

async fn the_working_directory_is_the_one_asked_for(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let options = ExecOptions::default().with_cwd(path("/home/user"));
    assert_eq!(output(&sandbox, &command_with(&["pwd"], options)).await.stdout, "/home/user\n");
}

async fn the_working_directory_of_the_sandbox_is_the_default(fixture: Fixture) {
    let mut config = fixture.config();
    config.cwd = Some("/home/user".into());
    let sandbox = fixture.start_with(&config).await;
    assert_eq!(output(&sandbox, &command(&["pwd"])).await.stdout, "/home/user\n");
}

async fn a_missing_working_directory_is_not_found(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let options = ExecOptions::default().with_cwd(path("/no/such/directory"));
    assert_eq!(refusal(&sandbox, &command_with(&["true"], options)).await, ErrorKind::NotFound);
}

async fn the_user_can_be_a_number(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let options = ExecOptions::default().with_user("4321:1234".parse().unwrap());
    let printed = output(&sandbox, &script_with("id -u; id -g", options)).await.stdout;
    assert_eq!(printed, "4321\n1234\n");
}

async fn the_user_can_be_a_name(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let options = ExecOptions::default().with_user("user".parse().unwrap());
    let printed = output(&sandbox, &script_with("id -u; id -g", options)).await.stdout;
    assert_eq!(printed, "1000\n1000\n");
}

async fn the_user_of_the_sandbox_is_the_default(fixture: Fixture) {
    let mut config = fixture.config();
    config.user = Some("1000:1000".into());
    let sandbox = fixture.start_with(&config).await;
    assert_eq!(sh(&sandbox, "id -u").await, "1000\n");
}

async fn an_unknown_user_is_not_found(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let options = ExecOptions::default().with_user("nosuch".parse().unwrap());
    assert_eq!(refusal(&sandbox, &command_with(&["true"], options)).await, ErrorKind::NotFound);
}

async fn exec_gives_text(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let result = sandbox.exec(&["sh", "-c", "echo out; echo err >&2; exit 3"]).await.unwrap();
    assert_eq!(result, ExecResult { exit_code: 3, stdout: "out\n".into(), stderr: "err\n".into() });
}

async fn a_timeout_ends_the_command_and_keeps_its_output(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let options = ExecOptions::default().with_timeout(Duration::from_secs(2));
    let spec = script_with("echo before; echo told >&2; sleep 1000", options);
    let output = soon("the timeout ends it", output(&sandbox, &spec)).await;
    assert_eq!(
        (output.status, &*output.stdout, &*output.stderr),
        (ExitStatus::TimedOut, &b"before\n"[..], &b"told\n"[..])
    );
}

async fn a_command_within_its_timeout_is_not_touched(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let options = ExecOptions::default().with_timeout(Duration::from_secs(50));
    assert_eq!(output(&sandbox, &script_with("exit 5", options)).await.status, ExitStatus::Code(5));
}

async fn ids_of_commands_differ(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let one = sandbox.spawn(&command(&["true"])).await.unwrap();
    let other = sandbox.spawn(&command(&["true"])).await.unwrap();
    assert_ne!(one.id(), other.id());
}
