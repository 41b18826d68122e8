//! What is not claimed is refused, always with this kind.
use agentkernel_core::{Capability, Error, ErrorKind, Result};

use crate::version::Version;

/// Since which version a capability is there, if only newer ones have it.
fn since(capability: Capability) -> Option<Version> {
    (capability == Capability::Snapshot).then_some(Version::EXPORTS_RUNNING)
}

pub(crate) fn unsupported<T>(operation: &'static str, capability: Capability) -> Result<T> {
    let error = Error::new(ErrorKind::Unsupported, operation, format!("this backend has no `{capability}`"))
        .with_context("backend", "apple");
    Err(match since(capability) {
        Some(version) => error.with_hint(format!("update `container` to {version} or newer")),
        None => error.with_hint("choose another backend: see `agentkernel backends`"),
    })
}
