//! Writing an OCI layout.
use std::{
    fs::File,
    io::{self, Read},
};

use agentkernel_core::Result;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    archive::{Archive, Part},
    unreadable,
};
use crate::images::load::no_room;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Where `container` looks for a name first (reference 1.7).
const NAME: &str = "com.apple.containerization.image.name";

/// Something that is called by its digest.
#[derive(Debug)]
pub(crate) struct Blob {
    media: String,
    hex: String,
    size: u64,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Bytes(Vec<u8>),
    Part(Part),
}

fn hex(digest: impl AsRef<[u8]>) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Blob {
    pub(crate) fn of_bytes(media: &str, bytes: Vec<u8>) -> Self {
        let (hex, size) = (hex(Sha256::digest(&bytes)), bytes.len() as u64);
        Self { media: media.to_owned(), hex, size, content: Content::Bytes(bytes) }
    }

    /// All of a file.
    pub(crate) fn of_file(archive: &mut Archive, media: &str) -> io::Result<Self> {
        let part = archive.all()?;
        Self::of_part(archive, part, media)
    }

    pub(crate) fn of_part(archive: &mut Archive, part: Part, media: &str) -> io::Result<Self> {
        let mut content = archive.read(part)?;
        let (mut digest, mut size, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
        loop {
            let length = content.read(&mut buffer)?;
            let Some(chunk) = buffer.get(..length).filter(|chunk| !chunk.is_empty()) else { break };
            digest.update(chunk);
            size += length as u64;
        }
        if size != part.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Self { media: media.to_owned(), hex: hex(digest.finalize()), size, content: Content::Part(part) })
    }

    pub(crate) fn digest(&self) -> String {
        format!("sha256:{}", self.hex)
    }

    fn descriptor(&self) -> Value {
        json!({"mediaType": self.media, "digest": self.digest(), "size": self.size})
    }
}

/// An image on its way into an archive.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    blobs: Vec<Blob>,
    manifests: Vec<Value>,
}

impl Layout {
    pub(crate) fn is_empty(&self) -> bool {
        self.manifests.is_empty()
    }

    /// Adds the image for one platform.
    pub(crate) fn add_image(&mut self, config: Blob, layers: Vec<Blob>, platform: &Value) {
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor(),
            "layers": layers.iter().map(Blob::descriptor).collect::<Vec<_>>(),
        });
        let manifest = Blob::of_bytes(MANIFEST, manifest.to_string().into_bytes());
        self.add_manifest(manifest, platform);
        self.blobs.push(config);
        self.blobs.extend(layers);
    }

    /// Adds a manifest whose parts are added beside.
    pub(crate) fn add_manifest(&mut self, manifest: Blob, platform: &Value) {
        let mut descriptor = manifest.descriptor();
        if let Some(descriptor) = descriptor.as_object_mut() {
            descriptor.insert("platform".to_owned(), platform.clone());
        }
        self.manifests.push(descriptor);
        self.blobs.push(manifest);
    }

    pub(crate) fn add_blob(&mut self, blob: Blob) {
        self.blobs.push(blob);
    }

    /// Writes everything: an index over the platforms, in a layout that gives it its name.
    pub(crate) fn write(mut self, archive: &mut Archive, name: &str) -> Result<File> {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": self.manifests});
        let index = Blob::of_bytes(INDEX, index.to_string().into_bytes());
        let mut named = index.descriptor();
        if let Some(named) = named.as_object_mut() {
            named.insert("annotations".to_owned(), json!({NAME: name}));
        }
        let top = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [named]}).to_string();
        let layout = json!({"imageLayoutVersion": "1.0.0"}).to_string();
        self.blobs.push(index);
        self.blobs.sort_by(|a, b| a.hex.cmp(&b.hex));
        self.blobs.dedup_by(|a, b| a.hex == b.hex);
        let file = tempfile::tempfile().map_err(no_room)?;
        let mut tar = tar::Builder::new(io::BufWriter::new(file));
        for (path, text) in [("oci-layout", layout), ("index.json", top)] {
            append(&mut tar, path, text.len() as u64, text.as_bytes()).map_err(no_room)?;
        }
        for blob in &self.blobs {
            let path = format!("blobs/sha256/{}", blob.hex);
            match &blob.content {
                Content::Bytes(bytes) => {
                    append(&mut tar, &path, blob.size, bytes.as_slice()).map_err(no_room)?;
                }
                Content::Part(part) => {
                    let content = archive.read(*part).map_err(unreadable)?;
                    append(&mut tar, &path, blob.size, content).map_err(no_room)?;
                }
            }
        }
        let written = tar.into_inner().and_then(|buffered| buffered.into_inner().map_err(io::Error::from));
        written.map_err(no_room)
    }
}

fn append(
    tar: &mut tar::Builder<io::BufWriter<File>>,
    path: &str,
    size: u64,
    content: impl Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o644);
    tar.append_data(&mut header, path, content)
}
