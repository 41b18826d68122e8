//! What the command says of itself and of this machine.
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::program::{Name, agentkernel, binary, eventually, has_engine};

#[test]
fn doctor_says_what_works_and_what_run_would_take() {
    if !has_engine() {
        return;
    }
    let ended = agentkernel(["doctor"]);
    let (code, stdout, _) = ended.text();
    assert_eq!(code, Some(0));
    assert!(
        stdout.contains("* docker: works") && stdout.contains("`agentkernel run` uses docker"),
        "{stdout}"
    );
}

#[test]
fn doctor_says_what_would_help_where_nothing_works_and_fails() {
    let nowhere = "unix:///nonexistent/engine.sock";
    let output = binary()
        .args(["doctor", "--json"])
        .env("DOCKER_HOST", nowhere)
        .env("CONTAINER_HOST", nowhere)
        .output();
    let output = output.unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &told["chosen"]), (Some(1), &Value::Null));
    let hints = told["backends"].as_array().unwrap().iter().map(|one| one["error"]["hint"].as_str());
    assert!(hints.flatten().count() >= 2, "{told}");
}

#[test]
fn doctor_answers_while_an_engine_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("engine.sock");
    // It accepts, and is silent.
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let hung = format!("unix://{}", socket.display());
    let begin = Instant::now();
    let output =
        binary().arg("doctor").env("DOCKER_HOST", &hung).env("CONTAINER_HOST", &hung).output().unwrap();
    // Without the bound it is a minute.
    assert!(begin.elapsed() < Duration::from_secs(10));
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("does not answer in time"));
}

#[test]
fn the_manual_has_a_page_for_every_verb() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(agentkernel(["man", dir.path().to_str().unwrap()]).text(), (Some(0), "", ""));
    for page in ["agentkernel.1", "agentkernel-run.1", "agentkernel-snapshot-take.1"] {
        assert!(dir.path().join(page).is_file(), "{page}");
    }
    assert!(agentkernel(["man"]).text().1.contains(".TH agentkernel 1"));
}

#[test]
fn every_shell_gets_its_script() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = agentkernel(["completions", shell]);
        assert_eq!(
            (script.code, script.text().1.contains("AGENTKERNEL_COMPLETE")),
            (Some(0), true),
            "{shell}"
        );
    }
    assert_eq!(agentkernel(["completions", "nosuch"]).code, Some(2));
}

/// Asks how a line goes on, as bash does.
fn completed(words: &[&str]) -> Vec<String> {
    let mut asked = binary();
    let last = words.len().to_string();
    asked.env("AGENTKERNEL_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", last).env("_CLAP_IFS", "\n");
    let output = asked.args(["--", "agentkernel"]).args(words).output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_shell_that_asks_gets_the_verbs_that_begin_so() {
    assert_eq!(completed(&["re"]), ["restart", "remove"]);
}

#[test]
fn a_shell_that_asks_gets_the_names_of_sandboxes() {
    if !has_engine() {
        return;
    }
    let name = Name::created();
    // It waits for no backend longer than a person would.
    eventually("the name is known", || completed(&["exec", &name.0[..4]]).contains(&name.0));
    assert_eq!(completed(&["--backend", "dock"]), ["docker"]);
}

#[test]
fn the_first_page_fits_24_lines_and_names_every_verb() {
    let help = agentkernel(["--help"]);
    let (code, text, _) = help.text();
    assert!(code == Some(0) && text.lines().count() <= 24, "{text}");
    let pages = tempfile::tempdir().unwrap();
    assert_eq!(agentkernel(["man", pages.path().to_str().unwrap()]).code, Some(0));
    for page in pages.path().read_dir().unwrap() {
        let page = page.unwrap().file_name().into_string().unwrap();
        let verb = page.trim_end_matches(".1").rsplit('-').next().unwrap();
        assert!(text.contains(verb), "{verb}: {text}");
    }
}

#[test]
fn the_pages_in_docs_are_what_the_command_says() {
    let made = tempfile::tempdir().unwrap();
    let ended = agentkernel(["man", "--markdown", made.path().to_str().unwrap()]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/commands");
    let read = |directory: &std::path::Path| {
        let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let pages =
            files.map(|file| (file.file_name().unwrap().to_owned(), std::fs::read_to_string(file).unwrap()));
        pages.collect::<std::collections::BTreeMap<_, _>>()
    };
    let (made, kept) = (read(made.path()), read(std::path::Path::new(kept)));
    let stale = made.iter().filter(|(name, text)| kept.get(*name) != Some(text)).map(|(name, _)| name);
    let stale = stale.chain(kept.keys().filter(|name| !made.contains_key(*name))).collect::<Vec<_>>();
    assert!(stale.is_empty(), "run `cargo run -- man --markdown docs/commands`: {stale:?}");
}
