//! What `tests/fuzz` drives: the parsers of what `container`, an archive and the inside say. No part of the API.
#![expect(clippy::unwrap_used, reason = "a target fails by a panic")]
use std::io::Write;

use crate::{
    error, images, info, json,
    sentinel::{Piece, Scanner},
    version::Version,
};

/// `list`, `inspect`, `image list`, `image inspect`, `volume list`, `stats` and `system status`.
pub fn answer(bytes: &[u8]) {
    for container in json::containers("fuzz", bytes).unwrap_or_default() {
        let id = container.id.clone();
        if let Ok(Some(found)) = info::read(container) {
            let info = found.info();
            assert_eq!(info.id, id);
            serde_json::to_string(&info).unwrap();
        }
    }
    for image in json::images("fuzz", bytes).unwrap_or_default() {
        assert!(image.name.ends_with(image.short_name()));
        let _variant = image.variant("arm64");
    }
    let _volumes = json::volumes("fuzz", bytes);
    let _stats = json::stats("fuzz", bytes, "agentkernel-demo");
    let _status = json::status(bytes);
}

/// `--version`, a line of a pull, and what a failed call says.
pub fn words(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some(version) = Version::read(&text) {
        assert_eq!(Version::read(&format!("version {version}")), Some(version));
    }
    assert!(json::percent(&text).is_none_or(|percent| percent <= 100));
    let error = error::failed("fuzz", Some(1), bytes);
    assert!(error.to_string().len() < 1 << 16);
}

/// The archive of an image: what comes out is read again as what it is.
pub fn archive(bytes: &[u8]) {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    if let Ok(made) = images::layout::from_archive(file, "docker.io/library/a:b", "arm64") {
        images::layout::from_archive(made, "docker.io/library/a:b", "arm64").unwrap();
    }
}

/// The stderr of a command: however it is cut, the same is taken out and the same stays. The first byte says where.
pub fn inside(bytes: &[u8]) {
    let Some((at, stream)) = bytes.split_first() else { return };
    let (head, tail) = stream.split_at(usize::from(*at).min(stream.len()));
    assert_eq!(split(&[head, tail]), split(&[stream]));
}

fn split(chunks: &[&[u8]]) -> (Vec<u8>, usize) {
    let mut scanner = Scanner::new("0123456789abcdef");
    let (mut rest, mut told) = (Vec::new(), 0);
    for piece in chunks.iter().flat_map(|chunk| scanner.push(chunk)).collect::<Vec<_>>() {
        match piece {
            Piece::Output(bytes) => rest.extend_from_slice(&bytes),
            Piece::Told(_) => told += 1,
        }
    }
    rest.extend_from_slice(&scanner.finish());
    (rest, told)
}
