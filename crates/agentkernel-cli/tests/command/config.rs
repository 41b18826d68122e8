//! `agentkernel.toml`: who may say what.
use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::Value;
use tempfile::TempDir;

use crate::program::{Ended, IMAGE, binary, has_engine};

/// A directory with a config file, and a home of its own for what is trusted.
struct Project {
    directory: TempDir,
    home: TempDir,
}

impl Project {
    fn new(text: &str) -> Self {
        let project = Self { directory: TempDir::new().unwrap(), home: TempDir::new().unwrap() };
        fs::write(project.file(), text).unwrap();
        project
    }

    fn file(&self) -> std::path::PathBuf {
        self.directory.path().join("agentkernel.toml")
    }

    fn agentkernel(&self, args: &[&str]) -> Ended {
        let mut command = binary();
        command.args(args).current_dir(&self.directory).env("XDG_DATA_HOME", self.home.path());
        let output = command.output().unwrap();
        Ended {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// What would be made.
    fn plan(&self, flags: &[&str]) -> (Value, String) {
        let line = [&["run", "--dry-run", "--json", "--image", IMAGE], flags, &["--", "true"]].concat();
        let ended = self.agentkernel(&line);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        (serde_json::from_slice(&ended.stdout).unwrap(), ended.stderr)
    }

    fn trust(&self) {
        assert_eq!(self.agentkernel(&["trust"]).code, Some(0));
    }
}

fn asked<'a>(plan: &'a Value, restriction: &str) -> Option<&'a str> {
    let all = plan["restrictions"].as_array().unwrap();
    all.iter().find(|one| one["capability"] == restriction).and_then(|one| one["asked"].as_str())
}

#[test]
fn an_untrusted_file_only_narrows_and_says_so() {
    if !has_engine() {
        return;
    }
    let project = Project::new("pids = 64\nnetwork = \"full\"\n[env]\nA = \"1\"\n");
    let (plan, stderr) = project.plan(&[]);
    assert_eq!(
        (asked(&plan, "pids"), &plan["network"], plan["env"].as_array().map(Vec::len)),
        (Some("64"), &Value::from("none"), Some(0))
    );
    for part in ["is not trusted", "network", "env", "agentkernel trust"] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
}

#[test]
fn a_trusted_file_counts_until_it_changes() {
    if !has_engine() {
        return;
    }
    let project = Project::new("network = \"full\"\n");
    project.trust();
    let (plan, stderr) = project.plan(&[]);
    assert_eq!((&plan["network"], stderr.as_str()), (&Value::from("full"), ""));
    fs::write(project.file(), "network = \"full\" # changed\n").unwrap();
    let (plan, stderr) = project.plan(&[]);
    assert_eq!((&plan["network"], stderr.contains("is not trusted")), (&Value::from("none"), true));
}

#[test]
fn trust_is_bound_to_the_path() {
    if !has_engine() {
        return;
    }
    let project = Project::new("network = \"full\"\n");
    project.trust();
    let elsewhere = Project { directory: TempDir::new().unwrap(), home: project.home };
    fs::copy(project.directory.path().join("agentkernel.toml"), elsewhere.file()).unwrap();
    assert_eq!(elsewhere.plan(&[]).0["network"], Value::from("none"));
}

#[test]
fn trust_that_is_revoked_is_gone() {
    if !has_engine() {
        return;
    }
    let project = Project::new("network = \"full\"\n");
    project.trust();
    assert_eq!(project.agentkernel(&["trust", "--revoke"]).code, Some(0));
    assert_eq!(project.plan(&[]).0["network"], Value::from("none"));
}

#[test]
fn what_is_trusted_is_kept_for_its_user_alone() {
    let project = Project::new("pids = 1\n");
    project.trust();
    let store = project.home.path().join("agentkernel/trusted");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&store), mode(store.parent().unwrap())), (0o600, 0o700));
}

#[test]
fn a_list_of_trusted_files_that_others_could_write_is_not_believed() {
    let project = Project::new("network = \"full\"\n");
    project.trust();
    let store = project.home.path().join("agentkernel/trusted");
    fs::set_permissions(&store, fs::Permissions::from_mode(0o666)).unwrap();
    let ended = project.agentkernel(&["run", "--image", IMAGE, "--", "true"]);
    assert_eq!(
        (ended.code, ended.stderr.contains("others may write")),
        (Some(125), true),
        "{}",
        ended.stderr
    );
}

#[test]
fn flags_win_over_the_file_but_for_what_it_denies() {
    if !has_engine() {
        return;
    }
    let project = Project::new("image = \"nosuch\"\nuser = \"1000\"\nnetwork = \"none\"\npids = 64\n");
    project.trust();
    let (plan, stderr) = project.plan(&["--user", "2000", "--network", "full", "--pids", "128"]);
    assert_eq!((&plan["image"], &plan["user"]), (&Value::from(IMAGE), &Value::from("2000")));
    assert_eq!((&plan["network"], asked(&plan, "pids")), (&Value::from("none"), Some("64")));
    assert!(stderr.contains("stricter than the flags: network, pids"), "{stderr}");
}

#[test]
fn a_file_that_a_flag_names_counts_and_the_one_that_lies_there_does_not() {
    if !has_engine() {
        return;
    }
    let project = Project::new("pids = 64\n");
    let other = project.directory.path().join("other.toml");
    fs::write(&other, "network = \"full\"\n").unwrap();
    let (plan, stderr) = project.plan(&["--config", other.to_str().unwrap()]);
    assert_eq!((&plan["network"], asked(&plan, "pids"), stderr.as_str()), (&Value::from("full"), None, ""));
}

#[test]
fn an_unknown_key_is_an_error_with_its_line_and_the_nearest() {
    let project = Project::new("\npid = 64\n");
    for line in [vec!["run", "--image", IMAGE, "--", "true"], vec!["trust"]] {
        let ended = project.agentkernel(&line);
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        for part in ["`pid`", "line: 2", "did you mean `pids`?"] {
            assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
        }
    }
}

#[test]
fn what_a_file_says_cannot_drive_the_terminal() {
    let project = Project::new("\"a\\u001b[2Jb\" = 1\n");
    let ended = project.agentkernel(&["run", "--image", IMAGE, "--", "true"]);
    assert_eq!((ended.code, ended.stderr.contains('\x1b')), (Some(2), false), "{}", ended.stderr);
}

#[test]
fn a_config_file_that_is_a_pipe_holds_nothing_up() {
    let project = Project::new("");
    fs::remove_file(project.file()).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(project.file()).status().unwrap().success());
    let ended = project.agentkernel(&["run", "--image", IMAGE, "--", "true"]);
    assert_eq!((ended.code, ended.stderr.contains("regular file")), (Some(2), true), "{}", ended.stderr);
}

#[test]
fn init_writes_a_file_once_that_is_taken_as_it_is() {
    let project = Project::new("");
    fs::remove_file(project.file()).unwrap();
    assert_eq!(project.agentkernel(&["init"]).text().1, "agentkernel.toml\n");
    project.trust();
    let before = fs::read(project.file()).unwrap();
    let again = project.agentkernel(&["init"]);
    assert_eq!((again.code, again.stderr.contains("not overwritten")), (Some(1), true), "{}", again.stderr);
    assert_eq!(fs::read(project.file()).unwrap(), before);
}

#[test]
fn init_prints_the_schema() {
    let schema: Value =
        serde_json::from_slice(&Project::new("").agentkernel(&["init", "--schema"]).stdout).unwrap();
    assert_eq!(schema["properties"]["pids"]["type"], "integer");
}
