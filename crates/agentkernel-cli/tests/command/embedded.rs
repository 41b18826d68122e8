//! The embedded Linux backend: what a new user types first, where the kernel allows it.
use crate::program::binary;

/// Runs the binary on the embedded backend; `None`, with the reason printed, where there is none.
#[expect(clippy::print_stderr, reason = "whoever runs the tests should know what was not tested")]
fn embedded(args: &[&str]) -> Option<(Option<i32>, String)> {
    let there = binary().args(["run", "--backend", "linux", "--", "true"]).output().unwrap();
    if !there.status.success() {
        eprintln!("not run: {}", String::from_utf8_lossy(&there.stderr));
        return None;
    }
    let output = binary().args(args).output().unwrap();
    Some((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
}

#[test]
fn a_command_without_an_image_runs_on_this_machine_itself() {
    let Some(ended) = embedded(&["run", "--", "sh", "-c", "echo hello; exit 7"]) else { return };
    assert_eq!(ended, (Some(7), "hello\n".to_owned()));
}

#[test]
fn the_workspace_is_written_by_its_own_owner() {
    let workspace = tempfile::tempdir().unwrap();
    let path = workspace.path().to_str().unwrap();
    if embedded(&["run", "--workspace", path, "--", "touch", "made"]).is_none() {
        return;
    }
    use std::os::unix::fs::MetadataExt;
    let owner = |path: &std::path::Path| std::fs::metadata(path).unwrap().uid();
    assert_eq!(owner(&workspace.path().join("made")), owner(workspace.path()));
}

#[test]
fn shadow_cannot_be_read_and_home_is_empty() {
    let script = "cat /etc/shadow 2>/dev/null; ls -A /home /root 2>/dev/null | grep ssh; echo end";
    let Some((_, stdout)) = embedded(&["run", "--", "sh", "-c", script]) else { return };
    assert_eq!(stdout, "end\n");
}
