//! An engine's answers, and the files of the docker command.
#![expect(clippy::unwrap_used, reason = "a target fails by a panic")]
use std::sync::LazyLock;

use agentkernel_docker::fuzz;
pub(crate) use fuzz::{archive, container, image, load, progress, system};
use tempfile::TempDir;

pub(crate) fn context_files(bytes: &[u8]) {
    static DIRECTORY: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());
    fuzz::context_files(DIRECTORY.path(), bytes);
}

pub(crate) fn address(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    fuzz::address(&text);
    fuzz::id(&text);
}
