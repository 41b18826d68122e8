//! What `tests/fuzz` drives: the parsers of what an engine and the docker command's files say. No part of the API.
#![expect(clippy::unwrap_used, reason = "a target fails by a panic")]
use std::{fs, path::Path};

use agentkernel_core::Isolation;
use bollard::models::{CreateImageInfo, ImageInspect, SystemInfo};

use crate::{accounts, context, endpoint, health, id::ContainerId, images, import, info, pull, verify};

/// `GET /containers/ID/json`.
pub fn container(answer: &[u8]) {
    let Ok(inspect) = serde_json::from_slice(answer) else { return };
    let _differences = verify::made(&Default::default(), &inspect);
    let _targets = info::targets(&inspect);
    if let Ok(Some(found)) = info::read(inspect) {
        let info = found.info(agentkernel_core::BackendType::Docker, Isolation::Process);
        assert_eq!(info.id, found.id.as_str());
        serde_json::to_string(&info).unwrap();
    }
}

/// `GET /info`.
pub fn system(answer: &[u8]) {
    let Ok(info) = serde_json::from_slice::<SystemInfo>(answer) else { return };
    if let Ok(health) = health::read(
        &info,
        crate::EngineKind::Docker,
        crate::place::Place::Here,
        &crate::address::Address::Unix("/s".into()),
    ) {
        assert!(health.warnings.len() < 32 && health.version.chars().count() <= 300);
        let _recursive = health::recursive_read_only(&health);
    }
}

/// `GET /images/NAME/json`.
pub fn image(answer: &[u8]) {
    let Ok(image) = serde_json::from_slice::<ImageInspect>(answer) else { return };
    images::fuzz(image);
}

/// `POST /images/create`: one line after the other.
pub fn progress(answer: &[u8]) {
    let lines = answer.split(|byte| *byte == b'\n');
    let lines = lines.filter_map(|line| serde_json::from_slice::<CreateImageInfo>(line).ok());
    pull::fuzz(lines);
}

/// `POST /images/load`: what was loaded, and the archive that went there.
pub fn load(bytes: &[u8]) {
    import::fuzz(bytes);
}

/// `HEAD` and `GET` of `/containers/ID/archive`: the mode and size of the header, the first block of the archive.
pub fn archive(bytes: &[u8]) {
    accounts::fuzz(bytes);
}

/// An id, wherever it stands.
pub fn id(text: &str) {
    if let Ok(id) = ContainerId::read(text) {
        assert_eq!(id.as_str(), text);
        assert!(text.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}

/// `DOCKER_HOST`, and the address of a context.
pub fn address(text: &str) {
    endpoint::fuzz(text);
}

/// `config.json` and `meta.json` of the docker command, in a directory of the caller's.
pub fn context_files(directory: &Path, bytes: &[u8]) {
    fs::write(directory.join("config.json"), bytes).unwrap();
    let _current = context::current(directory);
    context::fuzz(directory, bytes);
}
