//! Finding what is meant: labels, the group `sandbox`, and the nearest name.
use crate::program::{IMAGE, Name, agentkernel, has_engine};

fn labelled(label: &str) -> Name {
    let name = Name::new();
    let made = agentkernel(["create", &name.0, "--image", IMAGE, "--label", label]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    name
}

#[test]
fn labels_select_in_place_of_names() {
    if !has_engine() {
        return;
    }
    let label = format!("suite=cli-{}", std::process::id());
    let (one, two, other) = (labelled(&label), labelled(&label), Name::created());
    let mut names = [format!("{}\n", one.0), format!("{}\n", two.0)];
    names.sort();
    for line in [vec!["restart"], vec!["stop"], vec!["remove", "--force"]] {
        let ended = agentkernel(line.iter().copied().chain(["--label", &label]));
        let mut told = ended.text().1.split_inclusive('\n').collect::<Vec<_>>();
        told.sort_unstable();
        assert_eq!((ended.code, told), (Some(0), names.iter().map(String::as_str).collect()), "{line:?}");
    }
    assert_eq!(other.exec(["true"]).code, Some(0));
}

#[test]
fn labels_that_nothing_has_are_an_error() {
    if has_engine() {
        assert_eq!(agentkernel(["stop", "--label", "no=such"]).code, Some(1));
        assert_eq!(agentkernel(["remove", "--force", "--label", "no=such"]).code, Some(0));
    }
}

#[test]
fn names_and_labels_together_are_a_usage_error() {
    assert_eq!(agentkernel(["stop", "a", "--label", "a=b"]).code, Some(2));
    assert_eq!(agentkernel(["stop"]).code, Some(2));
}

#[test]
fn the_group_sandbox_has_the_same_verbs() {
    if !has_engine() {
        return;
    }
    let name = Name::created();
    let names = agentkernel(["sandbox", "list", "--quiet"]);
    assert!(names.text().1.lines().any(|line| line == name.0), "{names:?}");
    assert_eq!(agentkernel(["sandbox", "exec", &name.0, "--", "sh", "-c", "exit 7"]).code, Some(7));
}

#[test]
fn a_mistyped_name_gets_the_nearest() {
    if !has_engine() {
        return;
    }
    let name = Name::created();
    for verb in ["inspect", "stop"] {
        let ended = agentkernel([verb, &format!("{}x", name.0)]);
        let hint = format!("did you mean `{}`?", name.0);
        assert_eq!((ended.code, ended.stderr.contains(&hint)), (Some(1), true), "{}", ended.stderr);
    }
}

#[test]
fn a_mistyped_profile_or_backend_gets_the_nearest() {
    let profile = agentkernel(["run", "--profile", "restrictiv", "--", "true"]);
    assert_eq!(
        (profile.code, profile.stderr.contains("'restrictive'")),
        (Some(2), true),
        "{}",
        profile.stderr
    );
    let backend = agentkernel(["run", "--backend", "dokcer", "--", "true"]);
    assert_eq!(
        (backend.code, backend.stderr.contains("`--backend docker`")),
        (Some(2), true),
        "{}",
        backend.stderr
    );
}

#[test]
fn lists_give_names_alone_when_quiet() {
    if !has_engine() {
        return;
    }
    let images = agentkernel(["image", "list", "--quiet"]);
    assert!(images.text().1.lines().all(|line| !line.contains(' ')), "{images:?}");
}

#[test]
fn the_tree_shows_verbs_with_their_flags() {
    let tree = agentkernel(["--tree"]);
    let (code, text, stderr) = tree.text();
    assert_eq!((code, stderr), (Some(0), ""));
    for part in ["agentkernel run ", "    -m, --memory <SIZE>", "agentkernel snapshot take "] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
