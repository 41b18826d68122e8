//! Directories: made, listed and removed, and no link followed on the way.
use std::sync::Arc;

use agentkernel_core::{Depth, DirEntry, ErrorKind, FileType, Sandbox, SandboxExt};
use futures_util::TryStreamExt;

use crate::{
    fixture::{Fixture, kind, path, sh},
    rule::rules,
};

rules![
    a_directory_is_listed[Files],
    listing_a_file_is_refused[Files],
    a_large_directory_is_listed_whole[Files],
    a_directory_is_made[Files],
    a_directory_twice_is_already_there[Files],
    a_directory_with_its_parents_is_made_twice[Files],
    a_directory_without_its_parent_is_not_found[Files],
    a_full_directory_is_not_removed_alone[Files],
    a_tree_is_removed[Files],
    removing_follows_no_link[Files],
    removing_a_link_removes_the_link[Files],
    removing_what_is_missing_is_not_found[Files],
];

async fn entries(sandbox: &Arc<dyn Sandbox>, at: &str) -> Vec<DirEntry> {
    let events = sandbox.read_dir(&path(at)).await.unwrap();
    let mut entries = events.try_collect::<Vec<_>>().await.unwrap();
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    entries
}

pub(super) async fn names(sandbox: &Arc<dyn Sandbox>, at: &str) -> Vec<bytes::Bytes> {
    entries(sandbox, at).await.into_iter().map(|entry| entry.name).collect()
}

async fn a_directory_is_listed(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sh(&sandbox, "mkdir -p /tmp/d/directory; cd /tmp/d; echo x >.file; ln -s .file link; mkfifo pipe").await;
    let expected = [
        (".file", FileType::File),
        ("directory", FileType::Directory),
        ("link", FileType::Symlink),
        ("pipe", FileType::Other),
    ];
    let expected = expected.map(|(name, file_type)| DirEntry { name: name.into(), file_type });
    assert_eq!(entries(&sandbox, "/tmp/d").await, expected);
}

async fn listing_a_file_is_refused(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let listed = async { sandbox.read_dir(&path("/etc/passwd")).await?.try_collect::<Vec<_>>().await };
    assert_eq!(kind(listed.await), Some(ErrorKind::Conflict));
}

async fn a_large_directory_is_listed_whole(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sh(&sandbox, "mkdir /tmp/large; cd /tmp/large; for i in $(seq 1 2000); do : >file-$i; done").await;
    assert_eq!(entries(&sandbox, "/tmp/large").await.len(), 2000);
}

async fn a_directory_is_made(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sandbox.mkdir("/tmp/directory", false).await.unwrap();
    let made = sandbox.metadata(&path("/tmp/directory")).await.unwrap();
    assert_eq!((made.file_type, made.mode), (FileType::Directory, 0o755));
}

async fn a_directory_twice_is_already_there(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sandbox.mkdir("/tmp/directory", false).await.unwrap();
    assert_eq!(kind(sandbox.mkdir("/tmp/directory", false).await), Some(ErrorKind::AlreadyExists));
}

async fn a_directory_with_its_parents_is_made_twice(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sandbox.mkdir("/tmp/a/b/c", true).await.unwrap();
    assert_eq!(kind(sandbox.mkdir("/tmp/a/b/c", true).await), None);
}

async fn a_directory_without_its_parent_is_not_found(fixture: Fixture) {
    let sandbox = fixture.start().await;
    assert_eq!(kind(sandbox.mkdir("/tmp/no/directory", false).await), Some(ErrorKind::NotFound));
}

async fn a_full_directory_is_not_removed_alone(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sandbox.write_file("/tmp/full/file", b"x").await.unwrap();
    assert_eq!(kind(sandbox.remove_file("/tmp/full").await), Some(ErrorKind::Conflict));
}

async fn a_tree_is_removed(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sandbox.write_file("/tmp/tree/a/b/file", b"x").await.unwrap();
    sandbox.remove_path(&path("/tmp/tree"), Depth::Recursive).await.unwrap();
    assert_eq!(kind(sandbox.metadata(&path("/tmp/tree")).await), Some(ErrorKind::NotFound));
}

async fn removing_follows_no_link(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sh(&sandbox, "mkdir /tmp/kept /tmp/tree; echo x >/tmp/kept/file; ln -s /tmp/kept /tmp/tree/link").await;
    sandbox.remove_path(&path("/tmp/tree"), Depth::Recursive).await.unwrap();
    assert_eq!(sandbox.read_file("/tmp/kept/file").await.unwrap(), b"x\n");
}

async fn removing_a_link_removes_the_link(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sh(&sandbox, "mkdir /tmp/kept; echo x >/tmp/kept/file; ln -s /tmp/kept /tmp/link").await;
    sandbox.remove_path(&path("/tmp/link"), Depth::Recursive).await.unwrap();
    assert_eq!(sandbox.read_file("/tmp/kept/file").await.unwrap(), b"x\n");
}

async fn removing_what_is_missing_is_not_found(fixture: Fixture) {
    let sandbox = fixture.start().await;
    assert_eq!(kind(sandbox.remove_file("/tmp/no-file").await), Some(ErrorKind::NotFound));
}
