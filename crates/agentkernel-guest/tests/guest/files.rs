//! Files and trees.
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use agentkernel_guest::protocol::*;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::client::*;

fn bytes(path: &Path) -> Vec<u8> {
    path.to_str().unwrap().as_bytes().to_vec()
}

fn write(guest: &mut Guest, path: &Path, content: &[u8], mode: Option<u32>, parents: bool) -> Outcome {
    let channel = guest.client.open(Request::Write { path: bytes(path), mode, parents });
    guest.client.feed(channel, content);
    guest.client.finish(channel)
}

fn open(guest: &mut Guest, path: &Path) -> Outcome {
    guest.client.run(Request::Open { path: bytes(path) })
}

#[test]
fn content_goes_in_and_comes_out_unchanged() {
    let mut guest = start();
    let path = guest.directory.path().join("a/b/file");
    let content: Vec<u8> = (0..3u32 << 20).map(|n| (n % 253).try_into().unwrap()).collect();
    assert_eq!(write(&mut guest, &path, &content, None, false).failure(), FailureCode::NotFound);
    assert_eq!(write(&mut guest, &path, &content, Some(0o640), true).end, Some(FromGuest::Done));
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
    let outcome = open(&mut guest, &path);
    assert_eq!(outcome.end, Some(FromGuest::Done));
    assert!(outcome.stdout == content);
    // A new content keeps the mode of the old one.
    assert_eq!(write(&mut guest, &path, b"new", None, false).end, Some(FromGuest::Done));
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let mut guest = start();
    let directory = guest.directory.path().to_owned();
    let fifo = directory.join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    fs::create_dir(directory.join("dir")).unwrap();
    symlink("fifo", directory.join("link")).unwrap();
    symlink("loop", directory.join("loop")).unwrap();
    let begin = Instant::now();
    assert_eq!(open(&mut guest, &fifo).failure(), FailureCode::NotRegular);
    assert_eq!(open(&mut guest, &directory.join("link")).failure(), FailureCode::NotRegular);
    assert_eq!(open(&mut guest, &directory.join("loop")).failure(), FailureCode::NotRegular);
    assert_eq!(open(&mut guest, Path::new("/dev/zero")).failure(), FailureCode::NotRegular);
    assert_eq!(open(&mut guest, &directory.join("dir")).failure(), FailureCode::IsDirectory);
    assert_eq!(open(&mut guest, &directory.join("none")).failure(), FailureCode::NotFound);
    assert_eq!(open(&mut guest, &directory.join("fifo/x")).failure(), FailureCode::NotDirectory);
    assert_eq!(write(&mut guest, &fifo, b"x", None, false).failure(), FailureCode::NotRegular);
    assert_eq!(
        write(&mut guest, &directory.join("dir"), b"x", None, false).failure(),
        FailureCode::IsDirectory
    );
    assert!(begin.elapsed() < Duration::from_secs(5));
    // A link is replaced, not followed.
    fs::write(directory.join("target"), "old").unwrap();
    symlink("target", directory.join("pointer")).unwrap();
    assert_eq!(write(&mut guest, &directory.join("pointer"), b"new", None, false).end, Some(FromGuest::Done));
    assert_eq!(fs::read(directory.join("target")).unwrap(), b"old");
    assert!(fs::symlink_metadata(directory.join("pointer")).unwrap().is_file());
}

#[test]
fn a_canceled_write_leaves_nothing() {
    let mut guest = start();
    let before = fs::read_dir(guest.directory.path()).unwrap().count();
    let path = guest.directory.path().join("file");
    let channel = guest.client.open(Request::Write { path: bytes(&path), mode: None, parents: false });
    guest.client.send(channel, &ToGuest::Data(vec![1; 1000]));
    guest.client.send(channel, &ToGuest::Close);
    assert_eq!(guest.client.finish(channel).failure(), FailureCode::Canceled);
    assert!(!path.exists());
    guest.client.ping();
    let left = || fs::read_dir(guest.directory.path()).unwrap().count();
    wait_until("nothing is left", || (left() == before).then_some(()));
}

/// Whoever may kill the worker inside cannot make it leave half a file, where a file needs no name.
#[test]
fn a_killed_write_leaves_nothing() {
    let mut guest = start();
    let flags = OFlags::RDWR | OFlags::TMPFILE;
    if rustix::fs::open(guest.directory.path(), flags, Mode::RUSR | Mode::WUSR).err()
        == Some(Errno::OPNOTSUPP)
    {
        return;
    }
    let before = fs::read_dir(guest.directory.path()).unwrap().count();
    let path = guest.directory.path().join("file");
    let channel = begin_to_write(&mut guest, &path);
    let worker = worker_of(&guest);
    assert!(std::process::Command::new("kill").args(["-KILL", &worker]).status().unwrap().success());
    assert_eq!(guest.client.finish(channel).failure(), FailureCode::Exhausted);
    assert_eq!(fs::read_dir(guest.directory.path()).unwrap().count(), before);
}

#[test]
fn directories_are_listed_made_and_removed() {
    let mut guest = start();
    let top = guest.directory.path().join("top");
    let path = bytes(&top);
    let done = Some(FromGuest::Done);
    assert_eq!(guest.client.run(Request::CreateDir { path: path.clone(), recursive: false }).end, done);
    let again = guest.client.run(Request::CreateDir { path: path.clone(), recursive: false });
    assert_eq!(again.failure(), FailureCode::AlreadyExists);
    assert_eq!(guest.client.run(Request::CreateDir { path: path.clone(), recursive: true }).end, done);
    let deep = bytes(&top.join("x/y/z"));
    assert_eq!(guest.client.run(Request::CreateDir { path: deep, recursive: true }).end, done);
    for n in 0..20_000 {
        fs::write(top.join(format!("a-name-that-is-not-so-short-{n:05}")), "").unwrap();
    }
    let listing = guest.client.run(Request::ReadDir { path: path.clone() });
    assert_eq!((listing.frames.len(), &listing.end), (20_001, &done));
    let x = DirectoryEntry { name: b"x".to_vec(), kind: FileKind::Directory };
    assert!(listing.frames.contains(&FromGuest::Entry(x)));
    let refused = guest.client.run(Request::RemovePath { path: path.clone(), recursive: false });
    assert_eq!(refused.failure(), FailureCode::NotEmpty);
    assert_eq!(guest.client.run(Request::RemovePath { path: path.clone(), recursive: true }).end, done);
    assert!(!top.exists());
    let metadata = guest.client.run(Request::Metadata { path: path.clone() });
    assert_eq!(metadata.failure(), FailureCode::NotFound);
    assert_eq!(
        guest.client.run(Request::RemovePath { path, recursive: true }).failure(),
        FailureCode::NotFound
    );
}

/// Makes a tree that is deeper than any path.
fn deep(top: &Path, depth: usize) {
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
    fs::create_dir(top).unwrap();
    let mut current = openat(CWD, top, OFlags::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..depth {
        mkdirat(&current, "d", Mode::RWXU).unwrap();
        current = openat(&current, "d", OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
}

#[test]
fn removing_a_tree_follows_no_link_and_knows_no_depth() {
    let mut guest = start();
    let directory = guest.directory.path().to_owned();
    fs::create_dir(directory.join("kept")).unwrap();
    fs::write(directory.join("kept/file"), "").unwrap();
    let top = directory.join("tree");
    deep(&top, 10_000);
    symlink("../kept", top.join("link")).unwrap();
    let outcome = guest.client.run(Request::RemovePath { path: bytes(&top), recursive: true });
    assert_eq!(outcome.end, Some(FromGuest::Done));
    assert!(!top.exists() && directory.join("kept/file").exists());
}

#[test]
fn a_deep_tree_goes_out_and_in_again() {
    let mut guest = start();
    let top = guest.directory.path().join("tree");
    deep(&top, 3000);
    let packed = guest.client.run(Request::Pack { path: bytes(&top) });
    assert_eq!(packed.end, Some(FromGuest::Done));
    let target = guest.directory.path().join("new");
    let channel = guest.client.open(Request::Unpack { path: bytes(&target) });
    guest.client.feed(channel, &packed.stdout);
    assert_eq!(guest.client.finish(channel).end, Some(FromGuest::Done));
    let again = guest.client.run(Request::Pack { path: bytes(&target.join("tree")) });
    assert_eq!(again.stdout.len(), packed.stdout.len());
    for path in [bytes(&top), bytes(&target)] {
        let removed = guest.client.run(Request::RemovePath { path, recursive: true });
        assert_eq!(removed.end, Some(FromGuest::Done));
    }
}

#[test]
fn a_tree_goes_out_and_in_again() {
    let mut guest = start();
    let directory = guest.directory.path().to_owned();
    let tree = directory.join("tree");
    fs::create_dir_all(tree.join("sub/deep")).unwrap();
    let long = "n".repeat(200);
    fs::write(tree.join("sub").join(&long), vec![7; 100_000]).unwrap();
    fs::write(tree.join("empty"), "").unwrap();
    fs::set_permissions(tree.join("empty"), PermissionsExt::from_mode(0o4755)).unwrap();
    symlink("/etc/passwd", tree.join("sub/link")).unwrap();
    fs::set_permissions(tree.join("sub/deep"), PermissionsExt::from_mode(0o555)).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(tree.join("fifo")).status().unwrap().success());
    let packed = guest.client.run(Request::Pack { path: bytes(&tree) });
    assert_eq!(packed.end, Some(FromGuest::Done));

    let archive = directory.join("archive.tar");
    fs::write(&archive, &packed.stdout).unwrap();
    let listed = std::process::Command::new("tar").arg("-tf").arg(&archive).output().unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    assert_eq!(String::from_utf8(listed.stdout).unwrap().lines().count(), 6);

    let target = directory.join("new/place");
    let channel = guest.client.open(Request::Unpack { path: bytes(&target) });
    guest.client.feed(channel, &packed.stdout);
    assert_eq!(guest.client.finish(channel).end, Some(FromGuest::Done));
    let target = target.join("tree");
    assert_eq!(fs::read(target.join("sub").join(&long)).unwrap(), vec![7; 100_000]);
    assert_eq!(fs::read_link(target.join("sub/link")).unwrap(), Path::new("/etc/passwd"));
    assert_eq!(fs::metadata(target.join("empty")).unwrap().mode() & 0o7777, 0o755);
    assert_eq!(fs::metadata(target.join("sub/deep")).unwrap().mode() & 0o7777, 0o555);
    assert!(!target.join("fifo").exists());
}

#[test]
fn gnu_tar_is_understood() {
    let mut guest = start();
    let directory = guest.directory.path().to_owned();
    let tree = directory.join("tree");
    fs::create_dir(&tree).unwrap();
    let long = "l".repeat(180);
    fs::write(tree.join(&long), "long").unwrap();
    fs::hard_link(tree.join(&long), tree.join("zhard")).unwrap();
    symlink("x".repeat(150), tree.join("link")).unwrap();
    for format in ["gnu", "pax", "ustar"] {
        if format == "ustar" {
            fs::remove_file(tree.join(&long)).unwrap();
            fs::remove_file(tree.join("link")).unwrap();
        }
        let archive = std::process::Command::new("tar")
            .args(["--format", format, "-C", directory.to_str().unwrap(), "-c", "tree"])
            .output()
            .unwrap();
        assert!(archive.status.success());
        let target = directory.join(format);
        let channel = guest.client.open(Request::Unpack { path: bytes(&target) });
        guest.client.feed(channel, &archive.stdout);
        assert_eq!(guest.client.finish(channel).end, Some(FromGuest::Done), "{format}");
        assert_eq!(fs::read(target.join("tree/zhard")).unwrap(), b"long");
        if format != "ustar" {
            assert_eq!(fs::read(target.join("tree").join(&long)).unwrap(), b"long");
            assert_eq!(fs::read_link(target.join("tree/link")).unwrap(), Path::new(&"x".repeat(150)));
        }
    }
}

/// An entry of a hand-made archive.
fn entry(name: &str, flag: u8, target: &str, content: &[u8]) -> Vec<u8> {
    let mut block = [0u8; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..107].copy_from_slice(b"0000644");
    block[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    block[148..156].copy_from_slice(b"        ");
    block[156] = flag;
    block[157..157 + target.len()].copy_from_slice(target.as_bytes());
    block[257..263].copy_from_slice(b"ustar\0");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut bytes = block.to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

#[test]
fn an_archive_cannot_leave_its_directory() {
    let mut guest = start();
    let directory = guest.directory.path().to_owned();
    let outside = directory.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "old").unwrap();
    let end = vec![0; 1024];
    let up = "../outside/file";
    let out = outside.to_str().unwrap();
    let mut damaged = entry("file", b'0', "", b"x");
    damaged[0] = b'F';
    let archives = [
        [entry(up, b'0', "", b"x"), end.clone()].concat(),
        [entry(&format!("{out}/file"), b'0', "", b"x"), end.clone()].concat(),
        [entry("a/../../outside/file", b'0', "", b"x"), end.clone()].concat(),
        [entry("link", b'2', out, b""), entry("link/file", b'0', "", b"x"), end.clone()].concat(),
        [entry("link", b'2', "../outside", b""), entry("link/new", b'5', "", b""), end.clone()].concat(),
        [entry("hard", b'1', up, b""), entry("hard", b'0', "", b"x"), end.clone()].concat(),
        [entry("l", b'2', "../outside", b""), entry("hard", b'1', "l/file", b""), end.clone()].concat(),
        [entry("device", b'3', "", b""), end.clone()].concat(),
        [entry("fifo", b'6', "", b""), end.clone()].concat(),
        entry("file", b'0', "", b"x"),
        entry("file", b'0', "", &[b'x'; 600])[..700].to_vec(),
        [damaged, end].concat(),
        b"this is no archive".to_vec(),
        vec![],
    ];
    for (number, archive) in archives.iter().enumerate() {
        let target = directory.join(format!("target-{number}"));
        let channel = guest.client.open(Request::Unpack { path: bytes(&target) });
        guest.client.feed(channel, archive);
        assert_eq!(guest.client.finish(channel).failure(), FailureCode::BadArchive, "{number}");
    }
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"old");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

/// The worker of a guest that has no other child.
fn worker_of(guest: &Guest) -> String {
    let children = format!("/proc/{0}/task/{0}/children", guest.child.id());
    wait_until("the worker is there", || {
        let children = fs::read_to_string(&children).unwrap();
        children.split_whitespace().next().map(str::to_owned)
    })
}

/// What [`begin_to_write`] sends.
static BEGUN: [u8; 3 * WINDOW as usize] = [b'n'; 3 * WINDOW as usize];

/// Returns a channel whose worker is writing, for the pipe to it cannot hold what the guest has taken.
fn begin_to_write(guest: &mut Guest, path: &Path) -> u32 {
    let channel = guest.client.open(Request::Write { path: bytes(path), mode: None, parents: false });
    assert!(guest.client.pour(channel, &BEGUN));
    channel
}

#[test]
fn a_write_whose_end_the_guest_did_not_live_to_see_is_not_put_in_place() {
    let mut start = Start::default();
    if rustix::process::getuid().is_root() {
        // As in a container: the kernel then does not kill the worker with the guest at once.
        start.configure.user = Some(b"4242".to_vec());
    }
    let mut guest = start.start();
    fs::set_permissions(guest.directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let path = guest.directory.path().join("file");
    fs::write(&path, "old").unwrap();
    begin_to_write(&mut guest, &path);
    let worker = worker_of(&guest);
    guest.child.kill().unwrap();
    guest.child.wait().unwrap();
    let gone = || (!Path::new("/proc").join(&worker).exists()).then_some(());
    wait_until("the worker ends", gone);
    assert_eq!(fs::read(&path).unwrap(), b"old");
}

#[test]
fn file_work_that_somebody_inside_stops_goes_on() {
    let mut guest = start();
    let path = guest.directory.path().join("file");
    let channel = begin_to_write(&mut guest, &path);
    let worker = worker_of(&guest);
    for _ in 0..3 {
        assert!(std::process::Command::new("kill").args(["-STOP", &worker]).status().unwrap().success());
    }
    guest.client.send(channel, &ToGuest::Eof);
    assert_eq!(guest.client.finish(channel).end, Some(FromGuest::Done));
    assert!(fs::read(&path).unwrap() == BEGUN);
}
