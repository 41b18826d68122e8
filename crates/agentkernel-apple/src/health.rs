//! What `container` can do here: by its version, since it has no other way to tell.
use agentkernel_core::{Capabilities, Capability, Error, ErrorKind, Health, Isolation, Result};

use crate::version::Version;

/// What the backend does with the newest version.
pub(crate) const UPPER_BOUND: Capabilities = Capabilities::new(Isolation::Vm).with_all(&[
    Capability::ExecStdin,
    Capability::ExecTty,
    Capability::ExecSignal,
    Capability::ExecUser,
    Capability::Files,
    Capability::BindMount,
    Capability::Volume,
    Capability::Tmpfs,
    Capability::PortMapping,
    Capability::NetworkNone,
    Capability::NetworkFull,
    Capability::CpuLimit,
    Capability::MemoryLimit,
    Capability::OpenFilesLimit,
    Capability::ReadOnlyRoot,
    Capability::DropCapabilities,
    Capability::Persistence,
    Capability::Snapshot,
    Capability::Stats,
]);

/// Says what a version can do.
///
/// # Errors
/// `Unavailable` for one that is too old to isolate commands.
pub(crate) fn of(version: Version) -> Result<Health> {
    if version < Version::LEAST {
        return Err(Error::new(
            ErrorKind::Unavailable,
            "use Apple's containers",
            "this version of `container` is too old",
        )
        .with_context("backend", "apple")
        .with_context("version", version)
        .with_hint(format!("update it to {} or newer, better {}", Version::LEAST, Version::STABLE)));
    }
    let mut warnings = Vec::new();
    if version < Version::STABLE {
        warnings.push(format!(
            "`container` {version} is older than {}: update it, its calls fail less clearly.",
            Version::STABLE
        ));
    }
    let mut capabilities = UPPER_BOUND;
    if version < Version::EXPORTS_RUNNING {
        capabilities = capabilities.without(Capability::Snapshot);
    }
    Ok(Health { version: version.to_string(), capabilities, warnings })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_cannot_drop_capabilities_is_refused_by_its_number() {
        let error = of(Version::new(0, 11, 0)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.hint().unwrap().contains("0.12.0"));
    }

    #[test]
    fn snapshots_are_there_from_the_version_on_that_exports_what_runs() {
        let has = |version| of(version).unwrap().capabilities.has(Capability::Snapshot);
        assert!(!has(Version::new(0, 12, 3)) && !has(Version::new(1, 2, 0)));
        assert!(has(Version::new(1, 2, 1)) && has(Version::new(1, 10, 0)) && has(Version::new(2, 0, 0)));
    }

    #[test]
    fn an_old_version_is_warned_of() {
        assert_eq!(of(Version::new(0, 12, 3)).unwrap().warnings.len(), 1);
        assert!(of(Version::new(1, 2, 2)).unwrap().warnings.is_empty());
    }
}
