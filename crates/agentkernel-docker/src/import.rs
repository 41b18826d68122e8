//! Loading an image from an archive: what `docker save` wrote, or a plain root file system. The archive is streamed.
use std::io;

use agentkernel_core::{Error, ErrorKind, ImageInfo, ImageRef, Result, Source};
use bollard::{
    body_try_stream,
    errors::Error as EngineError,
    query_parameters::{CreateImageOptions, ImportImageOptions, TagImageOptions},
};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use tokio::{io::AsyncReadExt, sync::mpsc, time::timeout};

use crate::{
    error,
    images::{DockerImages, IMPORTED, check_new_name},
};

/// One part of the archive on its way to the engine.
const CHUNK: usize = 256 << 10;
/// A block of a tar archive, which begins with the name of the first entry.
const BLOCK: usize = 512;
/// How much of a compressed archive surely holds its first block.
const HEAD: usize = 64 << 10;

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Saved,
    Root,
}

/// Loads an archive and gives it a name.
pub(crate) async fn import(images: &DockerImages, archive: Source<'_>, name: &ImageRef) -> Result<ImageInfo> {
    check_new_name("import image", name)?;
    let mut head = BytesMut::with_capacity(HEAD);
    while head.len() < HEAD && archive.read_buf(&mut head).await? > 0 {}
    let kind = kind_of(&head)?;
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(4);
    let body = futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|chunk| (chunk, receiver))
    });
    let send = async {
        let mut chunk = head;
        loop {
            if chunk.is_empty() || sender.send(Ok(chunk.split().freeze())).await.is_err() {
                break;
            }
            chunk.reserve(CHUNK);
            if let Err(source) = archive.read_buf(&mut chunk).await {
                // The engine must not take what came for the whole.
                let _gone = sender.send(Err(io::Error::other("the archive cannot be read"))).await;
                return Err(Error::from(source));
            }
        }
        drop(sender);
        Ok(())
    };
    match kind {
        Kind::Root => {
            let options = CreateImageOptions {
                from_src: Some("-".to_owned()),
                repo: Some(name.name().to_owned()),
                tag: Some(name.tag().unwrap_or("latest").to_owned()),
                changes: vec![format!("LABEL {IMPORTED}=1")],
                ..Default::default()
            };
            let answers =
                images.engine().docker().create_image(Some(options), Some(body_try_stream(body)), None);
            let (sent, answered) = tokio::join!(send, drain(images, answers, |_| ()));
            sent.and(answered)?;
        }
        Kind::Saved => {
            let options = ImportImageOptions { quiet: true, platform: None };
            let answers = images.engine().docker().import_image_stream(options, body, None);
            let mut loaded = None;
            let take = |answer: &bollard::models::BuildInfo| {
                loaded = loaded.take().or_else(|| answer.stream.as_deref().and_then(loaded_name));
            };
            let (sent, answered) = tokio::join!(send, drain(images, answers, take));
            sent.and(answered)?;
            tag(images, loaded, name).await?;
        }
    }
    images.present(name).await
}

/// Reads the engine's answers to the end; it says what went wrong in the last of them.
async fn drain<T>(
    images: &DockerImages,
    answers: impl Stream<Item = Result<T, EngineError>>,
    mut take: impl FnMut(&T),
) -> Result<()> {
    let patience = images.engine().config().transfer_timeout;
    tokio::pin!(answers);
    loop {
        match timeout(patience, answers.next()).await {
            Err(_) => {
                return Err(error::timed_out("import image", images.engine().kind())
                    .with_context("seconds", patience.as_secs()));
            }
            Ok(None) => return Ok(()),
            Ok(Some(Ok(answer))) => take(&answer),
            Ok(Some(Err(source))) => {
                let failure = images.engine().error("import image", source);
                // Whatever is not about the engine itself is about the archive.
                if failure.kind() != ErrorKind::Unexpected && failure.kind() != ErrorKind::InvalidConfig {
                    return Err(failure);
                }
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    "import image",
                    "the engine cannot read the archive",
                )
                .with_source(failure)
                .with_hint("it must be of `docker save`, or a tar of a root file system"));
            }
        }
    }
}

/// Gives what was loaded the name that was asked for.
async fn tag(images: &DockerImages, loaded: Option<String>, name: &ImageRef) -> Result<()> {
    let loaded = loaded.ok_or_else(|| {
        Error::new(ErrorKind::InvalidConfig, "import image", "the archive holds no image")
            .with_hint("it must be of `docker save`, or a tar of a root file system")
    })?;
    let options = TagImageOptions {
        repo: Some(name.name().to_owned()),
        tag: Some(name.tag().unwrap_or("latest").to_owned()),
    };
    let call = images.engine().docker().tag_image(&loaded, Some(options));
    images.engine().ask("name image", call).await.map_err(|error| error.with_context("image", name))
}

/// Reads the engine's `Loaded image: NAME` or `Loaded image ID: sha256:…`. It reaches an address, so it is checked.
fn loaded_name(line: &str) -> Option<String> {
    let line = line.trim();
    if let Some(id) = line.strip_prefix("Loaded image ID: sha256:") {
        let well_formed = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        return well_formed.then(|| format!("sha256:{id}"));
    }
    let name = line.strip_prefix("Loaded image: ")?;
    name.parse::<ImageRef>().ok().map(|name| name.to_string())
}

/// Tells the two kinds apart by the first name in the archive.
fn kind_of(head: &[u8]) -> Result<Kind> {
    let fail = |message: &'static str, hint: &'static str| {
        Err(Error::new(ErrorKind::InvalidConfig, "import image", message).with_hint(hint))
    };
    let inflated;
    let block = match head {
        [] => return fail("the archive is empty", "give a tar archive"),
        [0x1f, 0x8b, ..] => {
            inflated = first_inflated(head);
            inflated.as_slice()
        }
        [b'B', b'Z', b'h', ..] | [0xfd, b'7', b'z', ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            return fail("only archives that are plain or gzip can be told apart", "decompress it first");
        }
        plain => plain,
    };
    let Some(block) = block.get(..BLOCK) else {
        return fail("this is no tar archive", "give a tar archive");
    };
    // Of an archive without entries only the zeros of its end are there.
    if block.iter().all(|byte| *byte == 0) {
        return Ok(Kind::Root);
    }
    if block.get(257..262) != Some(b"ustar") {
        return fail("this is no tar archive", "give a tar archive");
    }
    let name = block.split(|byte| *byte == 0).next().unwrap_or_default();
    let name = name.strip_prefix(b"./").unwrap_or(name);
    let first = name.split(|byte| *byte == b'/').next().unwrap_or_default();
    Ok(if is_of_save(first) { Kind::Saved } else { Kind::Root })
}

/// What `docker save` puts at the top: layers and configs named by digests, and a few names of its own.
fn is_of_save(first: &[u8]) -> bool {
    let stem = first.strip_suffix(b".json").unwrap_or(first);
    let digest = stem.len() == 64 && stem.iter().all(u8::is_ascii_hexdigit);
    let known: [&[u8]; 5] = [b"manifest.json", b"oci-layout", b"index.json", b"repositories", b"blobs"];
    digest || known.contains(&first)
}

/// Inflates the beginning of a gzip stream; less than a block if it is none.
fn first_inflated(head: &[u8]) -> Vec<u8> {
    let Some(deflated) = after_gzip_header(head) else { return Vec::new() };
    // It fails, since neither the input nor the output is whole, and gives what it has got.
    match miniz_oxide::inflate::decompress_to_vec_with_limit(deflated, 2 * BLOCK) {
        Ok(all) => all,
        Err(part) => part.output,
    }
}

/// Skips the header of RFC 1952: ten bytes, and optional fields that flags announce.
fn after_gzip_header(head: &[u8]) -> Option<&[u8]> {
    let flags = *head.get(3)?;
    let mut rest = head.get(10..)?;
    if flags & 4 != 0 {
        let length = u16::from_le_bytes([*rest.first()?, *rest.get(1)?]);
        rest = rest.get(2 + usize::from(length)..)?;
    }
    for bit in [8, 16] {
        if flags & bit != 0 {
            let end = rest.iter().position(|byte| *byte == 0)?;
            rest = rest.get(end + 1..)?;
        }
    }
    if flags & 2 != 0 { rest.get(2..) } else { Some(rest) }
}

#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(bytes: &[u8]) {
    let _kind = kind_of(bytes);
    let name = loaded_name(&String::from_utf8_lossy(bytes));
    // It goes into an address.
    assert!(name.is_none_or(|name| !name.contains(['?', '#', '%', ' ', '\n'])));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(first: &str) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(0);
        builder.append_data(&mut header, first, io::empty()).unwrap();
        builder.into_inner().unwrap()
    }

    fn gzip(content: &[u8], name: &str) -> Vec<u8> {
        let mut all = vec![0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3];
        all.extend_from_slice(name.as_bytes());
        all.push(0);
        all.extend(miniz_oxide::deflate::compress_to_vec(content, 6));
        all
    }

    #[test]
    fn archives_are_told_apart_by_their_first_entry() {
        for (first, kind) in [
            ("manifest.json", Kind::Saved),
            ("blobs/sha256/aa", Kind::Saved),
            ("oci-layout", Kind::Saved),
            (&*format!("{}/VERSION", "ab".repeat(32)), Kind::Saved),
            (&*format!("{}.json", "ab".repeat(32)), Kind::Saved),
            ("bin/sh", Kind::Root),
            ("etc/manifest.json", Kind::Root),
        ] {
            assert_eq!(kind_of(&archive(first)).unwrap(), kind, "{first}");
            assert_eq!(kind_of(&gzip(&archive(first), "x.tar")).unwrap(), kind, "{first}");
        }
        assert_eq!(kind_of(&[0; 1024]).unwrap(), Kind::Root);
    }

    #[test]
    fn what_is_no_archive_is_refused() {
        for bad in [&b""[..], b"hello", &[7; 2000], b"BZh9", &gzip(b"hello", "x"), &[0x1f, 0x8b]] {
            assert_eq!(kind_of(bad).unwrap_err().kind(), ErrorKind::InvalidConfig);
        }
    }

    #[test]
    fn only_names_and_ids_come_from_the_engines_answer() {
        let id = format!("sha256:{}", "a".repeat(64));
        assert_eq!(loaded_name(&format!("Loaded image ID: {id}\n")).as_deref(), Some(&*id));
        assert_eq!(loaded_name("Loaded image: busybox:latest\n").as_deref(), Some("busybox:latest"));
        assert_eq!(loaded_name("Loaded image: ../../version"), None);
        assert_eq!(loaded_name("Loaded image ID: sha256:../x"), None);
        assert_eq!(loaded_name("anything"), None);
    }
}
