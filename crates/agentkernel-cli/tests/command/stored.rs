//! What backends keep: snapshots, images and volumes.
use std::{fs, process::Command};

use serde_json::Value;

use crate::program::{IMAGE, Name, agentkernel, has_engine, with_input};

/// A snapshot of one's own name, removed at the end.
struct Snapshot(String);

impl Snapshot {
    fn taken(of: &Name) -> Self {
        let snapshot = Self(format!("{}-snap", of.0));
        let taken = agentkernel(["snapshot", "take", &of.0, &snapshot.0]);
        assert_eq!(taken.text(), (Some(0), format!("{}\n", snapshot.0).as_str(), ""));
        snapshot
    }

    fn is_listed(&self) -> bool {
        let listed: Value =
            serde_json::from_slice(&agentkernel(["snapshot", "list", "--json"]).stdout).unwrap();
        listed.as_array().unwrap().iter().any(|one| one["name"] == self.0.as_str())
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let _gone = agentkernel(["snapshot", "remove", &self.0]);
    }
}

#[test]
fn a_snapshot_brings_back_files_and_limits() {
    if !has_engine() {
        return;
    }
    let name = Name::new();
    let made = agentkernel(["create", &name.0, "--image", IMAGE, "--pids", "77", "-e", "A=1"]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    assert_eq!(name.exec(["sh", "-c", "echo kept >/file"]).code, Some(0));
    let snapshot = Snapshot::taken(&name);
    assert!(snapshot.is_listed());
    let restored = Name::new();
    let ended = agentkernel(["snapshot", "restore", &snapshot.0, &restored.0]);
    assert_eq!(ended.text(), (Some(0), format!("{}\n", restored.0).as_str(), ""));
    assert_eq!(restored.exec(["sh", "-c", "cat /file; echo $A"]).text(), (Some(0), "kept\n1\n", ""));
    let info: Value =
        serde_json::from_slice(&agentkernel(["inspect", "--json", &restored.0]).stdout).unwrap();
    assert!(info["restrictions"].to_string().contains("77"), "{info}");
}

#[test]
fn a_snapshot_that_a_sandbox_uses_is_not_removed_and_another_is() {
    if !has_engine() {
        return;
    }
    let name = Name::created();
    let snapshot = Snapshot::taken(&name);
    let restored = Name::new();
    assert_eq!(agentkernel(["snapshot", "restore", &snapshot.0, &restored.0]).code, Some(0));
    let refused = agentkernel(["snapshot", "remove", &snapshot.0]);
    assert_eq!((refused.code, refused.stderr.contains("hint: ")), (Some(1), true), "{}", refused.stderr);
    assert_eq!(agentkernel(["remove", "--force", &restored.0]).code, Some(0));
    assert_eq!(agentkernel(["snapshot", "remove", &snapshot.0]).code, Some(0));
    assert!(!snapshot.is_listed());
}

#[test]
fn a_taken_name_is_refused_with_what_helps() {
    if !has_engine() {
        return;
    }
    let name = Name::created();
    let snapshot = Snapshot::taken(&name);
    let again = agentkernel(["snapshot", "take", &name.0, &snapshot.0]);
    assert_eq!((again.code, again.stderr.contains("agentkernel snapshot remove")), (Some(1), true));
}

#[test]
fn a_snapshot_that_there_is_not_is_told() {
    if !has_engine() {
        return;
    }
    for verb in ["restore", "remove"] {
        let ended = agentkernel(["snapshot", verb, "nosuch"]);
        assert_eq!((ended.code, ended.stderr.contains("agentkernel snapshot list")), (Some(1), true));
    }
}

#[test]
fn an_image_is_imported_from_a_file_and_from_stdin_listed_and_removed() {
    if !has_engine() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("root")).unwrap();
    fs::write(dir.path().join("root/file"), "x").unwrap();
    let archive = dir.path().join("root.tar");
    let made =
        Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(dir.path().join("root")).arg(".").status();
    assert!(made.unwrap().success());
    let image = format!("agentkernel-cli-{}:latest", std::process::id());
    for from_stdin in [false, true] {
        let imported = if from_stdin {
            with_input(["image", "import", "-", &image], &fs::read(&archive).unwrap())
        } else {
            agentkernel(["image", "import", archive.to_str().unwrap(), &image])
        };
        assert_eq!(imported.text(), (Some(0), format!("{image}\n").as_str(), ""));
        assert!(agentkernel(["image", "list"]).text().1.contains(&image));
        assert_eq!(agentkernel(["image", "remove", &image]).code, Some(0));
        assert!(!agentkernel(["image", "list"]).text().1.contains(&image));
    }
}

#[test]
fn a_directory_in_place_of_an_archive_is_refused_with_the_command_that_makes_one() {
    if !has_engine() {
        return;
    }
    let ended = agentkernel(["image", "import", "/usr", "agentkernel-x"]);
    assert_eq!((ended.code, ended.stderr.contains("tar -C /usr -c .")), (Some(2), true), "{}", ended.stderr);
}

#[test]
fn a_local_name_is_never_pulled() {
    if !has_engine() {
        return;
    }
    let ended = agentkernel(["image", "pull", "agentkernel-snap:x"]);
    assert_eq!((ended.code, ended.stderr.contains("never pulled")), (Some(1), true), "{}", ended.stderr);
}

#[test]
fn a_volume_outlives_its_sandboxes_and_is_removed_by_name() {
    if !has_engine() {
        return;
    }
    let volume = format!("cli-{}", std::process::id());
    let mount = format!("{volume}:/data");
    let write = ["run", "--image", IMAGE, "--volume", &mount, "--", "touch", "/data/x"];
    assert_eq!(agentkernel(write).code, Some(0));
    assert!(agentkernel(["volume", "list"]).text().1.contains(&volume));
    let mut removed = agentkernel(["volume", "remove", &volume]);
    // The sandbox's own removal is not waited for.
    while removed.stderr.contains("uses it") || removed.stderr.contains("in use") {
        removed = agentkernel(["volume", "remove", &volume]);
    }
    assert_eq!(removed.text(), (Some(0), format!("{volume}\n").as_str(), ""));
    let absent = agentkernel(["volume", "remove", &volume]);
    assert_eq!((absent.code, absent.stderr.contains("agentkernel volume list")), (Some(1), true));
}
