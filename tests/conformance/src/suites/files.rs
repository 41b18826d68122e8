//! Files in and out: exact, atomic, and nothing special that could block or lead elsewhere.
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use agentkernel_core::{ErrorKind, FileInjection, FileType, Metadata, Sandbox, SandboxExt, WriteOptions};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};

use super::directories::names;
use crate::{
    fixture::{Fixture, content, kind, path, pattern, sh},
    rule::rules,
    wait::{eventually, soon},
};

rules![
    what_is_written_reads_back[Files],
    an_empty_file_reads_back[Files],
    eight_mib_read_back[Files],
    a_command_sees_what_was_written[Files],
    what_a_command_wrote_is_read[Files],
    the_mode_is_the_one_asked_for[Files],
    the_mode_of_a_new_file_is_0644[Files],
    the_mode_of_a_replaced_file_is_kept[Files],
    parents_are_made_if_asked_for[Files],
    a_missing_parent_is_not_found[Files],
    a_missing_file_is_not_found[Files],
    a_file_as_a_parent_is_refused[Files],
    a_directory_is_not_read[Files],
    a_directory_is_not_replaced[Files],
    a_fifo_is_refused_at_once[Files],
    a_device_is_refused_at_once[Files],
    a_link_is_followed_when_read[Files],
    a_link_to_a_fifo_is_refused_at_once[Files],
    a_link_is_replaced_and_not_followed_when_written[Files],
    a_fifo_is_not_opened_when_written[Files],
    a_reader_sees_the_old_content_or_the_new[Files],
    a_failed_write_leaves_the_old_content[Files],
    nothing_is_left_beside_a_written_file[Files],
    a_write_that_is_given_up_leaves_nothing[Files],
    strange_names_work[Files],
    names_need_not_be_utf8[Files, RawBytes],
    metadata_tells_what_a_file_is[Files],
    metadata_of_a_link_is_of_the_link[Files],
    metadata_of_a_directory_and_a_fifo_tells_so[Files],
    files_belong_to_the_user_of_the_sandbox[Files, ExecUser],
    files_act_with_the_rights_of_the_user[Files, ExecUser],
    injected_files_are_there_before_the_first_command[Files],
    a_relative_path_is_refused[Files],
];

async fn what_is_written_reads_back(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let every_byte = (0..=255u8).collect::<Vec<_>>();
    sandbox.write_file("/tmp/file", &every_byte).await.unwrap();
    assert_eq!(sandbox.read_file("/tmp/file").await.unwrap(), every_byte);
}

async fn an_empty_file_reads_back(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sandbox.write_file("/tmp/file", b"").await.unwrap();
    assert_eq!(sandbox.read_file("/tmp/file").await.unwrap(), b"");
}

async fn eight_mib_read_back(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let large = pattern(8 << 20);
    sandbox.write_file("/tmp/file", &large).await.unwrap();
    assert!(sandbox.read_file("/tmp/file").await.unwrap() == large);
}

async fn a_command_sees_what_was_written(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sandbox.write_file("/tmp/file", b"from outside").await.unwrap();
    assert_eq!(sh(&sandbox, "cat /tmp/file").await, "from outside");
}

async fn what_a_command_wrote_is_read(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sh(&sandbox, "printf inside >/tmp/file").await;
    assert_eq!(sandbox.read_file("/tmp/file").await.unwrap(), b"inside");
}

async fn mode(sandbox: &Arc<dyn Sandbox>, at: &str) -> u32 {
    sandbox.metadata(&path(at)).await.unwrap().mode
}

async fn the_mode_is_the_one_asked_for(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let options = WriteOptions { mode: Some(0o750), parents: false };
    sandbox.write(&path("/tmp/file"), &options, &mut b"x".as_slice()).await.unwrap();
    assert_eq!(mode(&sandbox, "/tmp/file").await, 0o750);
}

async fn the_mode_of_a_new_file_is_0644(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sandbox.write_file("/tmp/file", b"x").await.unwrap();
    assert_eq!(mode(&sandbox, "/tmp/file").await, 0o644);
}

async fn the_mode_of_a_replaced_file_is_kept(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sh(&sandbox, "echo old >/tmp/file; chmod 600 /tmp/file").await;
    sandbox.write_file("/tmp/file", b"new").await.unwrap();
    assert_eq!(mode(&sandbox, "/tmp/file").await, 0o600);
}

async fn parents_are_made_if_asked_for(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sandbox.write_file("/tmp/a/b/file", b"x").await.unwrap();
    assert_eq!((mode(&sandbox, "/tmp/a").await, mode(&sandbox, "/tmp/a/b").await), (0o755, 0o755));
}

async fn write(sandbox: &Arc<dyn Sandbox>, at: &str, bytes: &[u8]) -> Option<ErrorKind> {
    kind(sandbox.write(&path(at), &WriteOptions::default(), &mut &bytes[..]).await)
}

async fn a_missing_parent_is_not_found(fixture: Fixture) {
    let sandbox = fixture.start().await;
    assert_eq!(write(&sandbox, "/tmp/no/file", b"x").await, Some(ErrorKind::NotFound));
}

async fn a_missing_file_is_not_found(fixture: Fixture) {
    let sandbox = fixture.start().await;
    assert_eq!(kind(sandbox.read_file("/tmp/no-file").await), Some(ErrorKind::NotFound));
}

async fn a_file_as_a_parent_is_refused(fixture: Fixture) {
    let sandbox = fixture.start().await;
    assert!(write(&sandbox, "/etc/passwd/file", b"x").await.is_some());
}

async fn a_directory_is_not_read(fixture: Fixture) {
    let sandbox = fixture.start().await;
    assert_eq!(kind(soon("reading answers", content(&sandbox, "/tmp")).await), Some(ErrorKind::Conflict));
}

async fn a_directory_is_not_replaced(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sandbox.mkdir("/tmp/directory", false).await.unwrap();
    assert_eq!(write(&sandbox, "/tmp/directory", b"x").await, Some(ErrorKind::Conflict));
}

async fn a_fifo_is_refused_at_once(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sh(&sandbox, "mkfifo /tmp/fifo").await;
    let read = soon("reading answers", content(&sandbox, "/tmp/fifo")).await;
    assert_eq!(kind(read), Some(ErrorKind::Conflict));
}

async fn a_device_is_refused_at_once(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let read = soon("reading answers", content(&sandbox, "/dev/zero")).await;
    assert_eq!(kind(read), Some(ErrorKind::Conflict));
}

async fn a_link_is_followed_when_read(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sh(&sandbox, "printf target >/tmp/target; ln -s target /tmp/link").await;
    assert_eq!(sandbox.read_file("/tmp/link").await.unwrap(), b"target");
}

async fn a_link_to_a_fifo_is_refused_at_once(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sh(&sandbox, "mkfifo /tmp/fifo; ln -s fifo /tmp/link").await;
    let read = soon("reading answers", content(&sandbox, "/tmp/link")).await;
    assert_eq!(kind(read), Some(ErrorKind::Conflict));
}

async fn a_link_is_replaced_and_not_followed_when_written(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sh(&sandbox, "printf target >/tmp/target; ln -s target /tmp/link").await;
    sandbox.write_file("/tmp/link", b"new").await.unwrap();
    let both = sh(&sandbox, "cat /tmp/target /tmp/link").await;
    let file_type = sandbox.metadata(&path("/tmp/link")).await.unwrap().file_type;
    assert_eq!((both.as_str(), file_type), ("targetnew", FileType::File));
}

/// Whether it is replaced, as a link is, or refused is the backend's choice.
async fn a_fifo_is_not_opened_when_written(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sh(&sandbox, "mkfifo /tmp/fifo").await;
    match soon("writing answers", sandbox.write_file("/tmp/fifo", b"new")).await {
        Ok(()) => assert_eq!(sandbox.read_file("/tmp/fifo").await.unwrap(), b"new"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict),
    }
}

/// While one side replaces the file, the other never sees anything but one of the two contents, whole.
async fn a_reader_sees_the_old_content_or_the_new(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let contents = [vec![b'a'; 300_000], vec![b'b'; 300_001]];
    sandbox.write_file("/tmp/file", &contents[0]).await.unwrap();
    let writing = async {
        for round in 0..20 {
            sandbox.write_file("/tmp/file", &contents[round % 2]).await.unwrap();
        }
    };
    let reading = async {
        for _ in 0..20 {
            let seen = sandbox.read_file("/tmp/file").await.unwrap();
            assert!(contents.contains(&seen), "{} bytes of neither", seen.len());
        }
    };
    tokio::join!(writing, reading);
}

/// Content that breaks off.
struct Broken;

impl AsyncRead for Broken {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Poll::Ready(Err(std::io::Error::other("the content breaks off")))
    }
}

async fn a_failed_write_leaves_the_old_content(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sandbox.write_file("/tmp/file", b"old").await.unwrap();
    let begin = pattern(100_000);
    let mut source = begin.as_ref().chain(Broken);
    let failed = sandbox.write(&path("/tmp/file"), &WriteOptions::default(), &mut source).await;
    assert!(failed.is_err());
    assert_eq!(sandbox.read_file("/tmp/file").await.unwrap(), b"old");
}

async fn nothing_is_left_beside_a_written_file(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sandbox.write_file("/tmp/own/file", b"x").await.unwrap();
    sandbox.write_file("/tmp/own/file", b"y").await.unwrap();
    assert_eq!(names(&sandbox, "/tmp/own").await, ["file"]);
}

async fn a_write_that_is_given_up_leaves_nothing(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sandbox.mkdir("/tmp/place", false).await.unwrap();
    let (mut content, mut end) = tokio::io::simplex(64 << 10);
    let (at, options) = (path("/tmp/place/file"), WriteOptions::default());
    let begun = end.write_all(&[1; 100_000]);
    tokio::select! {
        ended = sandbox.write(&at, &options, &mut content) => panic!("the content has no end yet: {ended:?}"),
        begun = begun => begun.unwrap(),
    }
    eventually!("nothing is left", names(&sandbox, "/tmp/place").await.is_empty());
}

async fn strange_names_work(fixture: Fixture) {
    let sandbox = fixture.start().await;
    for name in ["a b", "-n", "new\nline", "$HOME", "*", "a..b", "%20", "\u{e9}", "a'b\"c", "\\"] {
        let at = format!("/tmp/strange/{name}");
        sandbox.write_file(&at, name.as_bytes()).await.unwrap();
        assert_eq!(sandbox.read_file(&at).await.unwrap(), name.as_bytes());
    }
}

async fn names_need_not_be_utf8(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let at = path(b"/tmp/names/\xff\xfe");
    let options = WriteOptions { mode: None, parents: true };
    sandbox.write(&at, &options, &mut b"x".as_slice()).await.unwrap();
    assert_eq!(names(&sandbox, "/tmp/names").await, [&b"\xff\xfe"[..]]);
}

async fn metadata_tells_what_a_file_is(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sh(&sandbox, "printf 12345 >/tmp/file; chmod 640 /tmp/file").await;
    let metadata = sandbox.metadata(&path("/tmp/file")).await.unwrap();
    let Metadata { file_type, size, mode, .. } = metadata;
    assert_eq!((file_type, size, mode), (FileType::File, 5, 0o640));
}

async fn metadata_of_a_link_is_of_the_link(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sh(&sandbox, "ln -s /no/such/file /tmp/link").await;
    assert_eq!(sandbox.metadata(&path("/tmp/link")).await.unwrap().file_type, FileType::Symlink);
}

async fn metadata_of_a_directory_and_a_fifo_tells_so(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sh(&sandbox, "mkfifo /tmp/fifo").await;
    let directory = sandbox.metadata(&path("/tmp")).await.unwrap().file_type;
    let fifo = sandbox.metadata(&path("/tmp/fifo")).await.unwrap().file_type;
    assert_eq!((directory, fifo), (FileType::Directory, FileType::Other));
}

async fn files_belong_to_the_user_of_the_sandbox(fixture: Fixture) {
    let mut config = fixture.config();
    config.user = Some("1000:1000".into());
    let sandbox = fixture.start_with(&config).await;
    sandbox.write_file("/tmp/own/file", b"x").await.unwrap();
    let file = sandbox.metadata(&path("/tmp/own/file")).await.unwrap();
    assert_eq!((file.uid, file.gid), (1000, 1000));
}

async fn files_act_with_the_rights_of_the_user(fixture: Fixture) {
    let mut config = fixture.config();
    config.user = Some("1000:1000".into());
    let sandbox = fixture.start_with(&config).await;
    assert_eq!(write(&sandbox, "/etc/file", b"x").await, Some(ErrorKind::PermissionDenied));
}

async fn injected_files_are_there_before_the_first_command(fixture: Fixture) {
    let mut config = fixture.config();
    let mut tool = FileInjection::new(&path("/opt/in/tool"), *b"#!/bin/sh\necho injected\n");
    tool.mode = Some(0o755);
    config.files.push(tool);
    let sandbox = fixture.backend().sandbox(fixture.name());
    let session = sandbox.run(&config, crate::fixture::command(&["/opt/in/tool"])).await.unwrap();
    assert_eq!(session.collect().await.unwrap().stdout, "injected\n");
}

async fn a_relative_path_is_refused(fixture: Fixture) {
    let sandbox = fixture.start().await;
    for bad in ["relative", "", "/a/../b", "/a\0b"] {
        assert_eq!(kind(sandbox.read_file(bad).await), Some(ErrorKind::InvalidConfig), "{bad:?}");
    }
}
