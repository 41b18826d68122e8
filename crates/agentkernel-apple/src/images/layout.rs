//! From any archive of an image to the one form that `container` loads: the tar of an OCI layout with one named image.
//!
//! An archive is one of three: an OCI layout, what older `docker save` wrote (`manifest.json` and layers), or a root file
//! system. What is read is believed only as far as its digests go.
mod archive;
mod saved;
mod write;

use std::{
    fs::File,
    io::{self, Read, Seek},
    time::SystemTime,
};

use agentkernel_core::{Error, ErrorKind, Result};
use flate2::read::MultiGzDecoder;
use serde_json::{Value, json};

use super::load::no_room;
use archive::Archive;
use write::{Blob, Layout};

/// The most that an archive may inflate to.
const MAX_INFLATED: u64 = 256 << 30;

/// Makes a layout of an archive. `name` is whole.
pub(crate) fn from_archive(archive: File, name: &str, arch: &str) -> Result<File> {
    let mut archive = Archive::open(inflated(archive)?)?;
    if archive.has("oci-layout") && archive.has("index.json") {
        let manifests = saved::manifests_of_layout(&mut archive, arch)?;
        return manifests.write(&mut archive, name);
    }
    if archive.has("manifest.json") {
        let manifests = saved::manifests_of_docker(&mut archive, arch)?;
        return manifests.write(&mut archive, name);
    }
    from_root(archive.into_file(), name, arch, &json!({}), SystemTime::now())
}

/// Makes a layout of the tar of a root file system, with the part of its config that is for commands.
pub(crate) fn from_root(
    layer: File,
    name: &str,
    arch: &str,
    config: &Value,
    created: SystemTime,
) -> Result<File> {
    let mut archive = Archive::whole(layer).map_err(no_room)?;
    let layer = Blob::of_file(&mut archive, "application/vnd.oci.image.layer.v1.tar").map_err(unreadable)?;
    let config = json!({
        "architecture": arch,
        "os": "linux",
        "created": humantime::format_rfc3339_seconds(created).to_string(),
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [layer.digest()]},
        "history": [{"created_by": "agentkernel"}],
    });
    let config = Blob::of_bytes("application/vnd.oci.image.config.v1+json", config.to_string().into_bytes());
    let mut layout = Layout::default();
    layout.add_image(config, vec![layer], &json!({"os": "linux", "architecture": arch}));
    layout.write(&mut archive, name)
}

/// Inflates what gzip has made; the rest is refused by its first bytes.
fn inflated(mut file: File) -> Result<File> {
    file.rewind().map_err(unreadable)?;
    let mut head = Vec::new();
    file.by_ref().take(6).read_to_end(&mut head).map_err(unreadable)?;
    file.rewind().map_err(unreadable)?;
    match head.as_slice() {
        [] => Err(bad("the archive is empty", "give a tar archive")),
        [0x1f, 0x8b, ..] => {
            let mut plain = tempfile::tempfile().map_err(no_room)?;
            let mut inflater = MultiGzDecoder::new(io::BufReader::new(file)).take(MAX_INFLATED);
            io::copy(&mut inflater, &mut plain).map_err(unreadable)?;
            if inflater.limit() == 0 {
                return Err(bad("the archive inflates without end", "decompress it first"));
            }
            Ok(plain)
        }
        [b'B', b'Z', b'h', ..] | [0xfd, b'7', b'z', ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            Err(bad("only archives that are plain or gzip can be read", "decompress it first"))
        }
        _ => Ok(file),
    }
}

fn bad(message: &'static str, hint: &'static str) -> Error {
    Error::new(ErrorKind::InvalidConfig, "import image", message)
        .with_context("backend", "apple")
        .with_hint(hint)
}

fn unreadable(source: io::Error) -> Error {
    bad("the archive cannot be read", "it must be of `docker save`, or a tar of a root file system")
        .with_source(source)
}

#[cfg(test)]
mod tests;
