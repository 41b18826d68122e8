//! Variables: exact, of one command only, and nothing of the host's.
use agentkernel_core::{EnvVar, ErrorKind, ExecOptions, SandboxExt};

use crate::{
    fixture::{Fixture, contains, kind, output, script_with, sh},
    rule::rules,
};

rules![
    values_are_exact,
    values_need_not_be_utf8[RawBytes],
    an_empty_value_is_kept,
    variables_of_the_sandbox_reach_every_command,
    variables_of_a_command_replace_those_of_the_sandbox,
    the_last_of_two_counts,
    variables_of_a_command_end_with_it,
    a_path_is_given_by_default,
    the_environment_of_the_host_stays_outside,
    strange_names_are_refused,
    a_name_without_value_is_refused,
    the_longest_value_works,
    values_are_never_shown,
];

/// A script that prints a variable, and nothing after it.
const PRINT: &str = r#"printf %s "$VALUE""#;

fn with(variables: &[(&str, &[u8])]) -> ExecOptions {
    let variables = variables.iter().map(|(name, value)| EnvVar::new(*name, *value).unwrap());
    ExecOptions::default().with_env(variables.collect())
}

async fn values_are_exact(fixture: Fixture) {
    let sandbox = fixture.start().await;
    for value in ["a b", "=", "x\ny", "'\"", "$HOME", "*", "\\n", "\u{e9}", " lead and trail "] {
        let spec = script_with(PRINT, with(&[("VALUE", value.as_bytes())]));
        assert_eq!(output(&sandbox, &spec).await.stdout, value);
    }
}

async fn values_need_not_be_utf8(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let every_byte = (1..=255u8).collect::<Vec<_>>();
    let spec = script_with(PRINT, with(&[("VALUE", &every_byte)]));
    assert_eq!(output(&sandbox, &spec).await.stdout, every_byte);
}

async fn an_empty_value_is_kept(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let spec = script_with("echo ${VALUE+set}", with(&[("VALUE", b"")]));
    assert_eq!(output(&sandbox, &spec).await.stdout, "set\n");
}

async fn variables_of_the_sandbox_reach_every_command(fixture: Fixture) {
    let mut config = fixture.config();
    config.env.insert("VALUE".into(), "of the sandbox".into());
    let sandbox = fixture.start_with(&config).await;
    assert_eq!(sh(&sandbox, PRINT).await, "of the sandbox");
}

async fn variables_of_a_command_replace_those_of_the_sandbox(fixture: Fixture) {
    let mut config = fixture.config();
    config.env.insert("VALUE".into(), "of the sandbox".into());
    let sandbox = fixture.start_with(&config).await;
    let spec = script_with(PRINT, with(&[("VALUE", b"of the command")]));
    assert_eq!(output(&sandbox, &spec).await.stdout, "of the command");
}

async fn the_last_of_two_counts(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let spec = script_with(PRINT, with(&[("VALUE", b"first"), ("VALUE", b"last")]));
    assert_eq!(output(&sandbox, &spec).await.stdout, "last");
}

async fn variables_of_a_command_end_with_it(fixture: Fixture) {
    let sandbox = fixture.start().await;
    output(&sandbox, &script_with("true", with(&[("VALUE", b"of another")]))).await;
    assert_eq!(sh(&sandbox, PRINT).await, "");
}

async fn a_path_is_given_by_default(fixture: Fixture) {
    let sandbox = fixture.start().await;
    assert_eq!(sh(&sandbox, "echo ${PATH:+given}").await, "given\n");
}

/// Cargo gives variables of its own to every test; none of them has any business inside.
async fn the_environment_of_the_host_stays_outside(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let inside = sh(&sandbox, "env").await;
    let leaked = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()).filter(|name| {
        name.starts_with("CARGO") && inside.lines().any(|line| line.starts_with(&format!("{name}=")))
    });
    assert_eq!(leaked.collect::<Vec<_>>(), Vec::<String>::new());
}

async fn strange_names_are_refused(fixture: Fixture) {
    let sandbox = fixture.start().await;
    for strange in ["=x", "A B=1", "1A=2", "A\n=1", "\u{c9}=1"] {
        let refused = sandbox.exec_with_env(&["true"], &[strange.to_owned()]).await;
        assert_eq!(kind(refused), Some(ErrorKind::InvalidConfig), "{strange:?}");
    }
}

async fn a_name_without_value_is_refused(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let refused = sandbox.exec_with_env(&["env"], &["CARGO".to_owned()]).await;
    assert_eq!(kind(refused), Some(ErrorKind::InvalidConfig));
}

async fn the_longest_value_works(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let longest = vec![b'a'; 131_071 - "VALUE=".len()];
    let spec = script_with(r#"printf %s "$VALUE" | wc -c"#, with(&[("VALUE", &longest)]));
    assert_eq!(output(&sandbox, &spec).await.stdout, "131065\n");
}

async fn values_are_never_shown(fixture: Fixture) {
    let mut config = fixture.config();
    config.env.insert("VALUE".into(), "the-secret".into());
    let sandbox = fixture.start_with(&config).await;
    let shown = format!("{sandbox:?} {:?}", sandbox.inspect().await.unwrap());
    assert!(!contains(shown.as_bytes(), "the-secret"));
}
