//! What appears inside, as options of `create` (reference 3).
//!
//! `--volume` cannot name a path with a colon, `--mount` none with a comma or an equals sign, and no file.
use std::path::Path;

use agentkernel_core::{Capability, Error, ErrorKind, Mount, Result, SandboxSpec, Tmpfs, Volume, VolumeName};

/// Stay writable under a read-only root; `/dev/shm` is anyway.
const SCRATCH: [&str; 2] = ["/tmp", "/run"];

/// Returns what a volume is called by `container`.
pub(crate) fn volume_name(name: &VolumeName) -> String {
    format!("{}{name}", crate::argv::PREFIX)
}

/// Returns all options.
///
/// # Errors
/// `Unsupported` for a path that no option can say.
pub(crate) fn options(spec: &SandboxSpec) -> Result<Vec<String>> {
    let enforced = |capability| !spec.is_weaker(capability);
    let mut options = Vec::new();
    for mount in spec.mounts.iter().filter(|_| enforced(Capability::BindMount)) {
        options.push(bind(mount)?);
    }
    for volume in spec.volumes.iter().filter(|_| enforced(Capability::Volume)) {
        options.push(named(volume)?);
    }
    for memory in spec.tmpfs.iter().filter(|_| enforced(Capability::Tmpfs)) {
        options.push(tmpfs(memory)?);
    }
    if spec.read_only && enforced(Capability::ReadOnlyRoot) {
        let taken = |target: &str| {
            spec.mounts.iter().any(|mount| mount.target == target)
                || spec.volumes.iter().any(|volume| volume.target == target)
                || spec.tmpfs.iter().any(|memory| memory.target == target)
        };
        let free = SCRATCH.iter().filter(|target| !taken(target));
        options.extend(free.map(|target| format!("--tmpfs={target}")));
    }
    Ok(options)
}

fn bind(mount: &Mount) -> Result<String> {
    let (source, target) = (path(&mount.source)?, mount.target.as_str());
    if !source.contains(':') && !target.contains(':') {
        let options = if mount.read_only { ":ro" } else { "" };
        return Ok(format!("--volume={source}:{target}{options}"));
    }
    check(source, "mounts")?;
    check(target, "mounts")?;
    let options = if mount.read_only { ",readonly" } else { "" };
    Ok(format!("--mount=type=bind,source={source},target={target}{options}"))
}

fn named(volume: &Volume) -> Result<String> {
    let (name, target) = (volume_name(&volume.name), volume.target.as_str());
    check(target, "volumes")?;
    let options = if volume.read_only { ",readonly" } else { "" };
    Ok(format!("--mount=type=volume,source={name},target={target}{options}"))
}

/// `--tmpfs` takes no size.
fn tmpfs(memory: &Tmpfs) -> Result<String> {
    check(&memory.target, "tmpfs")?;
    Ok(format!("--mount=type=tmpfs,target={},size={}M", memory.target, memory.size_mb))
}

/// Refuses what `--mount` cannot say.
fn check(path: &str, field: &'static str) -> Result<()> {
    if !path.contains([',', '=', '"']) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Unsupported,
        "create sandbox",
        "`container` takes no such path with a comma or an equals sign",
    )
    .with_context("backend", "apple")
    .with_context("field", field)
    .with_context("path", path)
    .with_hint("rename it"))
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, "create sandbox", "`container` takes only paths that are UTF-8")
            .with_context("backend", "apple")
            .with_context("field", "mounts")
            .with_context("path", path.display())
            .with_hint("rename it")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(source: &str, target: &str) -> Result<String> {
        bind(&Mount { source: source.into(), target: target.into(), read_only: true })
    }

    #[test]
    fn a_path_goes_by_the_option_that_can_say_it() {
        assert_eq!(mount("/a b,=", "/t").unwrap(), "--volume=/a b,=:/t:ro");
        assert_eq!(mount("/c:d", "/t").unwrap(), "--mount=type=bind,source=/c:d,target=/t,readonly");
        assert_eq!(mount("/c:d,e", "/t").unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn a_volume_has_our_prefix() {
        let volume = Volume { name: "v1".parse().unwrap(), target: "/d".into(), read_only: true };
        assert_eq!(named(&volume).unwrap(), "--mount=type=volume,source=agentkernel-v1,target=/d,readonly");
    }

    #[test]
    fn a_memory_file_system_has_its_size() {
        let memory = Tmpfs { target: "/m".into(), size_mb: 4 };
        assert_eq!(tmpfs(&memory).unwrap(), "--mount=type=tmpfs,target=/m,size=4M");
        assert!(tmpfs(&Tmpfs { target: "/m,mode=0".into(), size_mb: 4 }).is_err());
    }
}
