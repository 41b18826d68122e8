//! `image load`: the tar of an OCI layout, and nothing else (reference 1.7).
use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::{Component, Path},
};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::call::{
    Host,
    failure::{Outcome, failed},
    state::uuid,
};

/// Which annotation names an image: the first of these that is there.
const NAMES: [&str; 3] = [
    "com.apple.containerization.image.name",
    "io.containerd.image.name",
    "org.opencontainers.image.ref.name",
];

/// Loads it and returns the references in the order of the index.
pub(crate) fn load(host: &Host, tar: impl Read, force: bool) -> Outcome<Vec<String>> {
    let directory = host.root.join("images").join(format!("load-{}", uuid()));
    fs::create_dir_all(&directory)?;
    let loaded = load_in(host, tar, force, &directory);
    fs::remove_dir_all(&directory)?;
    loaded
}

fn load_in(host: &Host, tar: impl Read, force: bool, directory: &Path) -> Outcome<Vec<String>> {
    let rejected = unpack(tar, directory)?;
    if !rejected.is_empty() && !force {
        return failed(format!("cannot load tar image with rejected paths: {rejected:?}"));
    }
    if !directory.join("oci-layout").is_file() {
        return failed(format!("notFound: \"{}/oci-layout\"", directory.display()));
    }
    let Some(index) = json(&directory.join("index.json")) else {
        return failed(format!("notFound: \"{}/index.json\"", directory.display()));
    };
    let entries = index.get("manifests").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut images = BTreeMap::new();
    let mut order = Vec::new();
    for entry in entries {
        let digest = entry.get("digest").and_then(Value::as_str).unwrap_or_default().to_owned();
        check(directory, &digest)?;
        let annotation = |name: &&str| entry.get("annotations")?.get(*name)?.as_str().map(str::to_owned);
        let name = NAMES.iter().find_map(annotation).unwrap_or_else(|| format!("untagged@{digest}"));
        order.push(name.clone());
        images.insert(name, entry);
    }
    let _lock = host.lock()?;
    copy_blobs(host, &directory.join("blobs/sha256"))?;
    let mut all = host.images()?;
    all.extend(images);
    host.set_images(&all)?;
    Ok(order)
}

/// Every blob that hangs on this digest is there and is what its name says.
fn check(directory: &Path, digest: &str) -> Outcome<()> {
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    let path = directory.join("blobs/sha256").join(hex);
    let Some(bytes) = (hex.len() == 64).then(|| fs::read(&path).ok()).flatten() else {
        return failed(format!("notFound: \"content with digest {digest}\""));
    };
    let found = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    if found != hex {
        return failed(format!("digest mismatch: expected {digest}, got sha256:{found}"));
    }
    let document = serde_json::from_slice::<Value>(&bytes).unwrap_or_default();
    if !document.is_object() {
        return Ok(());
    }
    let lists = ["manifests", "layers"].into_iter().filter_map(|key| document.get(key)?.as_array());
    for inner in lists.flatten().chain(document.get("config").filter(|config| config.get("digest").is_some()))
    {
        check(directory, inner.get("digest").and_then(Value::as_str).unwrap_or_default())?;
    }
    Ok(())
}

fn json(path: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn copy_blobs(host: &Host, from: &Path) -> Outcome<()> {
    for blob in fs::read_dir(from).into_iter().flatten() {
        let blob = blob?;
        let to = host.blob(&format!("sha256:{}", blob.file_name().to_string_lossy()));
        fs::create_dir_all(to.parent().unwrap_or(&host.root))?;
        fs::rename(blob.path(), to)?;
    }
    Ok(())
}

/// Unpacks plain files and directories; the paths of all others, and of those that leave the directory.
fn unpack(tar: impl Read, directory: &Path) -> Outcome<Vec<String>> {
    let mut rejected = Vec::new();
    let mut archive = tar::Archive::new(tar);
    let Ok(entries) = archive.entries() else {
        return failed("failed to read the archive");
    };
    for entry in entries {
        let Ok(mut entry) = entry else {
            return failed("failed to read the archive");
        };
        let path = entry.path()?.into_owned();
        let is_inside =
            path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        let kind = entry.header().entry_type();
        if kind.is_dir() && is_inside {
            fs::create_dir_all(directory.join(path))?;
        } else if kind.is_file() && is_inside {
            let to = directory.join(path);
            fs::create_dir_all(to.parent().unwrap_or(directory))?;
            std::io::copy(&mut entry, &mut fs::File::create(to)?)?;
        } else if !kind.is_pax_global_extensions() {
            rejected.push(path.display().to_string());
        }
    }
    Ok(rejected)
}
