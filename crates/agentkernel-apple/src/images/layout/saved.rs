//! What others have saved: OCI layouts, and the older form of `docker save`.
use agentkernel_core::{Error, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    archive::Archive,
    bad, unreadable,
    write::{Blob, Layout},
};

/// How deep an index may lie in another.
const MAX_DEPTH: usize = 3;
/// The most platforms that are looked at.
const MAX_MANIFESTS: usize = 200;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Document {
    /// Of an index.
    manifests: Vec<Descriptor>,
    /// Of a manifest.
    config: Option<Descriptor>,
    layers: Vec<Descriptor>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Config {
    os: String,
    architecture: String,
    variant: Option<String>,
    rootfs: RootFs,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RootFs {
    diff_ids: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    layers: Vec<String>,
}

fn path_of(digest: &str) -> Result<String> {
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    if hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Ok(format!("blobs/sha256/{hex}"));
    }
    Err(bad("the archive has a digest that is none", "save it anew")
        .with_context("digest", digest.chars().take(80).collect::<String>()))
}

fn several() -> Error {
    bad("the archive holds several images", "save one at a time")
}

fn without_arch(arch: &str) -> Error {
    bad("the archive has no image for this machine's architecture", "save it for it: docker save --platform")
        .with_context("architecture", arch)
}

fn platform(config: &Config) -> Value {
    let mut platform = json!({"os": config.os, "architecture": config.architecture});
    if let (Some(platform), Some(variant)) = (platform.as_object_mut(), &config.variant) {
        platform.insert("variant".to_owned(), json!(variant));
    }
    platform
}

/// Reads an OCI layout. Of several platforms only that of this machine is kept: others are often not whole.
pub(crate) fn manifests_of_layout(archive: &mut Archive, arch: &str) -> Result<Layout> {
    let top: Document = archive.json("index.json")?;
    let mut digests = top.manifests.iter().map(|it| it.digest.as_str()).collect::<Vec<_>>();
    digests.sort_unstable();
    digests.dedup();
    if digests.len() > 1 {
        return Err(several());
    }
    let mut next = top.manifests.into_iter().take(1).collect::<Vec<_>>();
    let mut layout = Layout::default();
    for _ in 0..MAX_DEPTH {
        let mut deeper = Vec::new();
        for descriptor in next.into_iter().take(MAX_MANIFESTS) {
            let path = path_of(&descriptor.digest)?;
            if !archive.has(&path) {
                continue;
            }
            let document: Document = archive.json(&path)?;
            match &document.config {
                None => deeper.extend(document.manifests),
                Some(config) if layout.is_empty() => {
                    add(archive, &mut layout, &descriptor, config, &document.layers, arch)?;
                }
                Some(_) => {}
            }
        }
        next = deeper;
    }
    if layout.is_empty() { Err(without_arch(arch)) } else { Ok(layout) }
}

/// Adds a manifest with all that hangs on it, if it is for this architecture.
fn add(
    archive: &mut Archive,
    layout: &mut Layout,
    manifest: &Descriptor,
    config: &Descriptor,
    layers: &[Descriptor],
    arch: &str,
) -> Result<()> {
    let built: Config = archive.json(&path_of(&config.digest)?)?;
    if built.os != "linux" || built.architecture != arch {
        return Ok(());
    }
    let mut blob = |descriptor: &Descriptor| {
        let path = path_of(&descriptor.digest)?;
        let lacks =
            || bad("the archive lacks a part of its image", "save it anew").with_context("part", &path);
        let part = archive.find(&path).ok_or_else(lacks)?;
        let blob = Blob::of_part(archive, part, &descriptor.media_type).map_err(unreadable)?;
        if blob.digest() != descriptor.digest {
            return Err(
                bad("the archive is damaged: a digest is wrong", "save it anew").with_context("part", path)
            );
        }
        Ok(blob)
    };
    let parts = layers.iter().chain([config]).map(&mut blob).collect::<Result<Vec<_>>>()?;
    let manifest = blob(manifest)?;
    layout.add_manifest(manifest, &platform(&built));
    parts.into_iter().for_each(|part| layout.add_blob(part));
    Ok(())
}

/// Reads what `docker save` wrote before Docker 25: one image, whose layers are files.
pub(crate) fn manifests_of_docker(archive: &mut Archive, arch: &str) -> Result<Layout> {
    let mut all: Vec<Saved> = archive.json("manifest.json")?;
    let (Some(saved), true) = (all.pop(), all.is_empty()) else { return Err(several()) };
    let bytes = archive.bytes(&saved.config)?;
    let built: Config = serde_json::from_slice(&bytes).map_err(|source| {
        bad("the archive has a description that cannot be read", "save it anew").with_source(source)
    })?;
    if built.os != "linux" || built.architecture != arch {
        return Err(without_arch(arch));
    }
    if built.rootfs.diff_ids.len() != saved.layers.len() {
        return Err(bad("the archive lacks a part of its image", "save it anew"));
    }
    let mut layers = Vec::new();
    for (path, expected) in saved.layers.iter().zip(&built.rootfs.diff_ids) {
        let lacks =
            || bad("the archive lacks a part of its image", "save it anew").with_context("part", path);
        let part = archive.find(path).ok_or_else(lacks)?;
        let layer =
            Blob::of_part(archive, part, "application/vnd.oci.image.layer.v1.tar").map_err(unreadable)?;
        if layer.digest() != *expected {
            return Err(
                bad("the archive is damaged: a digest is wrong", "save it anew").with_context("part", path)
            );
        }
        layers.push(layer);
    }
    let mut layout = Layout::default();
    let config = Blob::of_bytes("application/vnd.oci.image.config.v1+json", bytes);
    layout.add_image(config, layers, &platform(&built));
    Ok(layout)
}
