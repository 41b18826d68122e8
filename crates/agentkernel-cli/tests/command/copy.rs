//! `cp`: files and trees, both ways; what comes out of a sandbox is hostile.
use std::{fs, os::unix::fs::symlink};

use crate::program::{Name, agentkernel, has_engine, with_input};

#[test]
fn a_file_goes_in_and_comes_out_unchanged() {
    if !has_engine() {
        return;
    }
    let (name, dir) = (Name::created(), tempfile::tempdir().unwrap());
    let (source, back) = (dir.path().join("in"), dir.path().join("out"));
    let content = (0..3_000_000u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>();
    fs::write(&source, &content).unwrap();
    let inside = format!("{}:/tmp/f", name.0);
    assert_eq!(agentkernel(["cp", source.to_str().unwrap(), &inside]).text(), (Some(0), "", ""));
    assert_eq!(agentkernel(["cp", &inside, back.to_str().unwrap()]).text(), (Some(0), "", ""));
    assert!(fs::read(back).unwrap() == content);
}

#[test]
fn a_dash_is_stdin_or_stdout() {
    if !has_engine() {
        return;
    }
    let name = Name::created();
    let inside = format!("{}:/tmp/f", name.0);
    assert_eq!(with_input(["cp", "-", &inside], b"\0\xff").code, Some(0));
    assert_eq!(agentkernel(["cp", &inside, "-"]).stdout, b"\0\xff");
}

#[test]
fn links_fifos_devices_and_directories_are_errors_at_once() {
    if !has_engine() {
        return;
    }
    let (name, dir) = (Name::created(), tempfile::tempdir().unwrap());
    let make = "mkfifo /tmp/fifo; ln -s /etc/passwd /tmp/link; mkdir /tmp/dir";
    assert_eq!(name.exec(["sh", "-c", make]).code, Some(0));
    for path in ["/tmp/fifo", "/tmp/link", "/tmp/dir", "/dev/zero"] {
        let target = dir.path().join("out");
        let ended = agentkernel(["cp", &format!("{}:{path}", name.0), target.to_str().unwrap()]);
        assert_eq!((ended.code, target.exists()), (Some(1), false), "{path}: {}", ended.stderr);
    }
}

#[test]
fn a_tree_goes_in_and_comes_out() {
    if !has_engine() {
        return;
    }
    let (name, dir) = (Name::created(), tempfile::tempdir().unwrap());
    let (source, back) = (dir.path().join("tree"), dir.path().join("back"));
    fs::create_dir_all(source.join("a/b")).unwrap();
    fs::write(source.join("a/b/f"), "deep").unwrap();
    let inside = format!("{}:/tmp/tree", name.0);
    assert_eq!(agentkernel(["cp", "-r", source.to_str().unwrap(), &inside]).code, Some(0));
    assert_eq!(name.exec(["cat", "/tmp/tree/a/b/f"]).text(), (Some(0), "deep", ""));
    assert_eq!(agentkernel(["cp", "-r", &inside, back.to_str().unwrap()]).code, Some(0));
    assert_eq!(fs::read_to_string(back.join("a/b/f")).unwrap(), "deep");
}

#[test]
fn a_tree_never_leaves_its_target() {
    if !has_engine() {
        return;
    }
    let (name, dir) = (Name::created(), tempfile::tempdir().unwrap());
    let (outside, target) = (dir.path().join("outside"), dir.path().join("target"));
    fs::create_dir(&outside).unwrap();
    let make = format!("mkdir /tmp/t; ln -s {0} /tmp/t/evil; echo x > /tmp/t/f", outside.display());
    assert_eq!(name.exec(["sh", "-c", &make]).code, Some(0));
    let inside = format!("{}:/tmp/t", name.0);
    agentkernel(["cp", "-r", &inside, target.to_str().unwrap()]);
    // The link must not have become a way out: the second time it is a directory with a file in it.
    assert_eq!(
        name.exec(["sh", "-c", "rm /tmp/t/evil; mkdir /tmp/t/evil; echo pwn > /tmp/t/evil/f"]).code,
        Some(0)
    );
    agentkernel(["cp", "-r", &inside, target.to_str().unwrap()]);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn a_link_in_the_target_is_not_followed() {
    if !has_engine() {
        return;
    }
    let (name, dir) = (Name::created(), tempfile::tempdir().unwrap());
    let (outside, target) = (dir.path().join("outside"), dir.path().join("target"));
    fs::create_dir(&outside).unwrap();
    fs::create_dir(&target).unwrap();
    symlink(&outside, target.join("sub")).unwrap();
    assert_eq!(name.exec(["sh", "-c", "mkdir -p /tmp/t/sub; echo pwn > /tmp/t/sub/f"]).code, Some(0));
    agentkernel(["cp", "-r", &format!("{}:/tmp/t/.", name.0), target.to_str().unwrap()]);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}
