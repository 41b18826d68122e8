//! Trees in and out as tar streams; what comes in may be hostile.
use std::{
    io::{Cursor, Read},
    sync::Arc,
};

use agentkernel_core::{Bytes, Error, ErrorKind, FileType, Sandbox, SandboxExt, Tmpfs};
use tar::{Archive, EntryType, Header};
use tokio::io::AsyncReadExt;

use crate::{
    fixture::{Fixture, content, kind, path, pattern, sh},
    rule::rules,
    wait::soon,
};

rules![
    a_tree_goes_out_and_in_unchanged[Files],
    a_single_file_is_packed[Files],
    names_are_relative_to_the_parent[Files],
    links_are_packed_as_links[Files],
    long_names_are_packed[Files],
    packing_waits_for_no_fifo[Files],
    packing_what_is_missing_is_not_found[Files],
    unpacking_makes_the_directory[Files],
    modes_are_unpacked[Files],
    eight_mib_are_unpacked[Files],
    names_with_parents_stay_inside[Files],
    absolute_names_stay_inside[Files],
    a_file_through_a_link_of_the_archive_stays_inside[Files],
    a_file_through_a_link_that_was_there_stays_inside[Files],
    a_hard_link_to_the_outside_is_not_made[Files],
    devices_are_not_made[Files],
    set_user_id_bits_are_not_made[Files],
    a_cut_archive_is_an_error[Files],
    what_is_no_archive_is_an_error[Files],
    an_archive_without_end_ends_where_space_does[Files, Tmpfs],
];

/// The header of an entry, its names as bytes that no library has made safe.
fn header(kind: EntryType, name: &[u8], link: &[u8], mode: u32, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(1);
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
    if kind == EntryType::Char {
        header.set_device_major(1).unwrap();
        header.set_device_minor(5).unwrap();
    }
    header.set_cksum();
    header
}

/// One entry of an archive.
fn entry(kind: EntryType, name: &[u8], link: &[u8], mode: u32, content: &[u8]) -> Vec<u8> {
    let header = header(kind, name, link, mode, content.len() as u64);
    let mut bytes = [header.as_bytes().as_slice(), content].concat();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

pub(super) fn file(name: &str, content: &[u8]) -> Vec<u8> {
    entry(EntryType::Regular, name.as_bytes(), b"", 0o644, content)
}

fn link(name: &str, target: &str) -> Vec<u8> {
    entry(EntryType::Symlink, name.as_bytes(), target.as_bytes(), 0o777, b"")
}

pub(super) fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = entries.concat();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

pub(super) async fn unpack(sandbox: &Arc<dyn Sandbox>, at: &str, tar: &[u8]) -> Result<(), Error> {
    let mut tar = tar;
    soon("unpacking answers", sandbox.unpack(&path(at), &mut tar)).await
}

pub(super) async fn pack(sandbox: &Arc<dyn Sandbox>, at: &str) -> Result<Vec<u8>, Error> {
    let mut tar = Vec::new();
    soon("packing ends", async {
        sandbox.pack(&path(at)).await?.read_to_end(&mut tar).await.map_err(Error::from)
    })
    .await?;
    Ok(tar)
}

/// Returns name, type, link target and content of each entry, ordered by name.
pub(super) fn entries(tar: Vec<u8>) -> Vec<(String, EntryType, Option<String>, Vec<u8>)> {
    let mut archive = Archive::new(Cursor::new(tar));
    let mut all = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = String::from_utf8_lossy(&entry.path_bytes()).trim_end_matches('/').to_owned();
        let link = entry.link_name_bytes().map(|link| String::from_utf8_lossy(&link).into_owned());
        let entry_type = entry.header().entry_type();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        all.push((name, entry_type, link, content));
    }
    all.sort_by(|one, other| one.0.cmp(&other.0));
    all
}

async fn exists(sandbox: &Arc<dyn Sandbox>, at: &str) -> bool {
    kind(sandbox.metadata(&path(at)).await) != Some(ErrorKind::NotFound)
}

async fn a_tree_goes_out_and_in_unchanged(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sh(&sandbox, "mkdir -p /tmp/tree/a/b; cd /tmp/tree; printf x >a/b/x; : >empty; chmod 750 a/b/x").await;
    sh(&sandbox, "ln -s a/b/x /tmp/tree/link").await;
    let tar = pack(&sandbox, "/tmp/tree").await.unwrap();
    unpack(&sandbox, "/tmp/again", &tar).await.unwrap();
    let again = pack(&sandbox, "/tmp/again/tree").await.unwrap();
    assert_eq!(entries(again), entries(tar));
}

async fn a_single_file_is_packed(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sandbox.write_file("/tmp/file", b"content").await.unwrap();
    let packed = entries(pack(&sandbox, "/tmp/file").await.unwrap());
    assert_eq!(packed, [("file".to_owned(), EntryType::Regular, None, b"content".to_vec())]);
}

async fn names_are_relative_to_the_parent(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sh(&sandbox, "mkdir -p /tmp/up/tree/a; : >/tmp/up/tree/a/x").await;
    let packed = entries(pack(&sandbox, "/tmp/up/tree").await.unwrap());
    let names = packed.iter().map(|entry| entry.0.as_str()).collect::<Vec<_>>();
    assert_eq!(names, ["tree", "tree/a", "tree/a/x"]);
}

async fn links_are_packed_as_links(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sh(&sandbox, "mkdir /tmp/tree; ln -s /etc/passwd /tmp/tree/link").await;
    let packed = entries(pack(&sandbox, "/tmp/tree").await.unwrap());
    assert_eq!(packed[1], ("tree/link".into(), EntryType::Symlink, Some("/etc/passwd".into()), vec![]));
}

async fn long_names_are_packed(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let (directory, name) = ("d".repeat(150), "n".repeat(200));
    sandbox.write_file(&format!("/tmp/long/{directory}/{name}"), b"x").await.unwrap();
    let tar = pack(&sandbox, "/tmp/long").await.unwrap();
    unpack(&sandbox, "/tmp/again", &tar).await.unwrap();
    let again = format!("/tmp/again/long/{directory}/{name}");
    assert_eq!(sandbox.read_file(&again).await.unwrap(), b"x");
}

async fn packing_waits_for_no_fifo(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sh(&sandbox, "mkdir /tmp/tree; mkfifo /tmp/tree/fifo; echo x >/tmp/tree/last").await;
    let packed = entries(pack(&sandbox, "/tmp/tree").await.unwrap());
    assert!(packed.iter().any(|entry| entry.0 == "tree/last"));
}

async fn packing_what_is_missing_is_not_found(fixture: Fixture) {
    let sandbox = fixture.start().await;
    assert_eq!(kind(pack(&sandbox, "/tmp/nothing").await), Some(ErrorKind::NotFound));
}

async fn unpacking_makes_the_directory(fixture: Fixture) {
    let sandbox = fixture.start().await;
    unpack(&sandbox, "/tmp/new/in", &archive(&[file("file", b"x")])).await.unwrap();
    assert_eq!(sandbox.read_file("/tmp/new/in/file").await.unwrap(), b"x");
}

async fn modes_are_unpacked(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let tool = entry(EntryType::Regular, b"tool", b"", 0o750, b"x");
    unpack(&sandbox, "/tmp/in", &archive(&[tool])).await.unwrap();
    assert_eq!(sandbox.metadata(&path("/tmp/in/tool")).await.unwrap().mode, 0o750);
}

async fn eight_mib_are_unpacked(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let large: Bytes = pattern(8 << 20);
    unpack(&sandbox, "/tmp/in", &archive(&[file("large", &large)])).await.unwrap();
    assert!(sandbox.read_file("/tmp/in/large").await.unwrap() == large);
}

/// Whether the archive is refused or the entry left out is the backend's choice.
async fn names_with_parents_stay_inside(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let hostile = archive(&[file("../outside", b"x"), file("a/../../outside", b"x")]);
    let _refused = unpack(&sandbox, "/tmp/up/in", &hostile).await;
    assert!(!exists(&sandbox, "/tmp/up/outside").await && !exists(&sandbox, "/tmp/outside").await);
}

async fn absolute_names_stay_inside(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let _refused = unpack(&sandbox, "/tmp/in", &archive(&[file("/tmp/outside", b"x")])).await;
    assert!(!exists(&sandbox, "/tmp/outside").await);
}

async fn a_file_through_a_link_of_the_archive_stays_inside(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sandbox.mkdir("/tmp/victim", false).await.unwrap();
    let hostile = archive(&[link("way", "/tmp/victim"), file("way/file", b"x")]);
    let _refused = unpack(&sandbox, "/tmp/in", &hostile).await;
    assert!(!exists(&sandbox, "/tmp/victim/file").await);
}

async fn a_file_through_a_link_that_was_there_stays_inside(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sh(&sandbox, "mkdir /tmp/victim /tmp/in; ln -s ../victim /tmp/in/way").await;
    let _refused = unpack(&sandbox, "/tmp/in", &archive(&[file("way/file", b"x")])).await;
    assert!(!exists(&sandbox, "/tmp/victim/file").await);
}

async fn a_hard_link_to_the_outside_is_not_made(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sandbox.write_file("/tmp/victim", b"secret").await.unwrap();
    let hard = |target: &[u8]| entry(EntryType::Link, b"hard", target, 0o644, b"");
    for target in [b"/tmp/victim".as_slice(), b"../victim"] {
        let _refused = unpack(&sandbox, "/tmp/in", &archive(&[hard(target)])).await;
        let seen = content(&sandbox, "/tmp/in/hard").await.unwrap_or_default();
        assert_ne!(seen, b"secret");
    }
}

async fn devices_are_not_made(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let device = entry(EntryType::Char, b"zero", b"", 0o666, b"");
    let _refused = unpack(&sandbox, "/tmp/in", &archive(&[device])).await;
    let made = sandbox.metadata(&path("/tmp/in/zero")).await.map(|metadata| metadata.file_type);
    assert!(!matches!(made, Ok(FileType::Other)));
}

async fn set_user_id_bits_are_not_made(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let tool = entry(EntryType::Regular, b"tool", b"", 0o6755, b"x");
    let _refused = unpack(&sandbox, "/tmp/in", &archive(&[tool])).await;
    let mode = sandbox.metadata(&path("/tmp/in/tool")).await.map_or(0, |metadata| metadata.mode);
    assert_eq!(mode & 0o7000, 0);
}

async fn a_cut_archive_is_an_error(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let whole = archive(&[file("file", &pattern(5000))]);
    assert!(unpack(&sandbox, "/tmp/in", &whole[..2000]).await.is_err());
}

async fn what_is_no_archive_is_an_error(fixture: Fixture) {
    let sandbox = fixture.start().await;
    assert!(unpack(&sandbox, "/tmp/in", &[b'x'; 4096]).await.is_err());
}

/// What cannot be held in memory, nor at its place, is neither.
async fn an_archive_without_end_ends_where_space_does(fixture: Fixture) {
    let mut config = fixture.config();
    config.tmpfs = vec![Tmpfs { target: "/memory".into(), size_mb: 1 }];
    let sandbox = fixture.start_with(&config).await;
    let most = 0o77_777_777_777;
    let begin = header(EntryType::Regular, b"bomb", b"", 0o644, most);
    let mut bomb = AsyncReadExt::chain(begin.as_bytes().as_slice(), tokio::io::repeat(b'x'));
    let unpacked = soon("unpacking ends", sandbox.unpack(&path("/memory/in"), &mut bomb)).await;
    assert_eq!(kind(unpacked), Some(ErrorKind::ResourceExhausted));
    assert_eq!(sh(&sandbox, "echo alive").await, "alive\n");
}
