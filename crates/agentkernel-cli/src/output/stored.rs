//! What backends keep: images, snapshots and volumes.
use agentkernel_core::{BackendType, ImageInfo, Pruned, SandboxName, VolumeName};
use serde_json::{Value, json};

use super::{age, bytes, table};

/// A snapshot, and the image that it is.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) name: SandboxName,
    pub(crate) backend: BackendType,
    pub(crate) image: ImageInfo,
}

pub(super) fn snapshots(snapshots: &[Snapshot]) -> String {
    table(
        &["NAME", "BACKEND", "SIZE", "AGE"],
        snapshots.iter().map(|one| {
            vec![one.name.to_string(), one.backend.to_string(), bytes(one.image.size), since(&one.image)]
        }),
    )
}

pub(super) fn images(images: &[(BackendType, ImageInfo)]) -> String {
    table(
        &["NAME", "BACKEND", "ID", "SIZE", "AGE"],
        images.iter().map(|(backend, image)| {
            let id = image.id.strip_prefix("sha256:").unwrap_or(&image.id);
            let id = id.chars().take(12).collect();
            vec![image.name.clone(), backend.to_string(), id, bytes(image.size), since(image)]
        }),
    )
}

pub(super) fn volumes(volumes: &[(BackendType, VolumeName)]) -> String {
    table(
        &["NAME", "BACKEND"],
        volumes.iter().map(|(backend, name)| vec![name.to_string(), backend.to_string()]),
    )
}

pub(super) fn pruned(pruned: &Pruned) -> String {
    let mut text = pruned.images.iter().map(|image| format!("{image}\n")).collect::<String>();
    text += &format!("{} freed\n", bytes(pruned.bytes));
    text
}

pub(super) fn snapshot_object(snapshot: &Snapshot) -> Value {
    let mut object = json!(snapshot.image);
    object["image"] = object["name"].take();
    object["name"] = json!(snapshot.name);
    object["backend"] = json!(snapshot.backend);
    object
}

pub(super) fn image_object((backend, image): &(BackendType, ImageInfo)) -> Value {
    let mut object = json!(image);
    object["backend"] = json!(backend);
    object
}

pub(super) fn volume_object((backend, name): &(BackendType, VolumeName)) -> Value {
    json!({"name": name, "backend": backend})
}

fn since(image: &ImageInfo) -> String {
    match u64::try_from(image.created) {
        Ok(created) if created > 0 => age(created),
        _ => "-".to_owned(),
    }
}
