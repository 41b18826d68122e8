//! Hostile archives against a real directory.
use std::{fs, os::unix::fs::symlink, path::Path};

use super::*;
use rustix::fs::CWD;
use tar::{Builder, Header};
use tempfile::TempDir;

const LIMITS: Limits = Limits { bytes: 1000, entries: 20, depth: 5 };

/// Packs entries whose names are taken as they are.
fn archive(entries: &[(&str, EntryType, &str, u32)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, kind, content, mode) in entries {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        let data = if matches!(kind, EntryType::Symlink | EntryType::Link) {
            header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
            &[][..]
        } else {
            content.as_bytes()
        };
        header.set_size(data.len() as u64);
        header.set_cksum();
        builder.append(&header, data).unwrap();
    }
    builder.into_inner().unwrap()
}

fn into(target: &Path, entries: &[(&str, EntryType, &str, u32)]) -> Result<Skipped> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, target, flags, Mode::empty()).unwrap();
    unpack(archive(entries).as_slice(), &root, Some(b"t"), LIMITS)
}

fn file(name: &str) -> (&str, EntryType, &str, u32) {
    (name, EntryType::Regular, "x", 0o644)
}

#[test]
fn names_that_lead_out_are_refused_and_leave_nothing() {
    for name in ["/t/a", "t/../../a", "../a", "other/a", "t/1/2/3/4/5", "t", "."] {
        let outer = TempDir::new().unwrap();
        let target = outer.path().join("target");
        fs::create_dir(&target).unwrap();
        assert!(into(&target, &[file(name)]).is_err(), "{name}");
        let left = [outer.path(), &target].map(|path| fs::read_dir(path).unwrap().count());
        assert_eq!(left, [1, 0], "{name}");
    }
}

#[test]
fn links_devices_and_set_user_id_are_skipped_and_told() {
    let target = TempDir::new().unwrap();
    let skipped = into(
        target.path(),
        &[
            ("t/link", EntryType::Symlink, "/etc", 0o777),
            ("t/hard", EntryType::Link, "/etc/passwd", 0o644),
            ("t/fifo", EntryType::Fifo, "", 0o644),
            ("t/device", EntryType::Char, "", 0o644),
            ("t/suid", EntryType::Regular, "x", 0o4755),
        ],
    );
    assert_eq!(skipped.unwrap().named.len(), 5);
    let names =
        fs::read_dir(target.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    assert_eq!(names, ["suid"]);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &fs::metadata(target.path().join("suid")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o7000, 0);
}

#[test]
fn a_link_in_the_archive_cannot_be_walked_through() {
    let target = TempDir::new().unwrap();
    into(target.path(), &[("t/a", EntryType::Symlink, "/tmp", 0o777), file("t/a/b")]).unwrap();
    assert_eq!(fs::read(target.path().join("a/b")).unwrap(), b"x");
    assert!(fs::symlink_metadata(target.path().join("a")).unwrap().is_dir());
}

#[test]
fn links_that_are_in_the_target_already_are_refused() {
    let (target, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    symlink(elsewhere.path(), target.path().join("directory")).unwrap();
    symlink(elsewhere.path().join("new"), target.path().join("file")).unwrap();
    for name in ["t/directory/a", "t/file"] {
        assert!(into(target.path(), &[file(name)]).is_err(), "{name}");
    }
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

#[test]
fn size_number_and_headers_are_bounded() {
    let target = TempDir::new().unwrap();
    let large = "x".repeat(1001);
    assert!(into(target.path(), &[("t/a", EntryType::Regular, &large, 0o644)]).is_err());
    assert!(into(target.path(), &[file("t/b"); 21]).is_err());
    let long = "n".repeat(2 << 20);
    assert!(into(target.path(), &[("t/c", EntryType::GNULongName, &long, 0o644), file("t/d")]).is_err());
    let names =
        fs::read_dir(target.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    assert_eq!(names, ["b"]);
}

#[test]
fn a_tree_arrives_with_its_modes() {
    let target = TempDir::new().unwrap();
    into(
        target.path(),
        &[
            ("t/", EntryType::Directory, "", 0o755),
            ("t/d/", EntryType::Directory, "", 0o500),
            ("t/d/f", EntryType::Regular, "x", 0o444),
        ],
    )
    .unwrap();
    let mode = |path: &str| {
        std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(target.path().join(path)).unwrap().permissions(),
        ) & 0o7777
    };
    assert_eq!((mode("d"), mode("d/f")), (0o700, 0o444));
}

#[test]
fn a_directory_that_becomes_a_link_does_not_lead_out() {
    let outer = TempDir::new().unwrap();
    let (target, outside) = (outer.path().join("target"), outer.path().join("outside"));
    fs::create_dir_all(target.join("way")).unwrap();
    fs::create_dir(&outside).unwrap();
    let entries = [file("t/way/a"), file("t/way/d/b")];
    // What changes under its hands may end it, each time on a busy machine.
    crate::copy::swapping::while_swapped(&target, &outside, || drop(into(&target, &entries)));
    let in_peace = TempDir::new().unwrap();
    assert!(into(in_peace.path(), &entries).is_ok());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}
