//! Whether what the guest found is what was planned: believed is only what was measured inside.
use agentkernel_core::{Error, ErrorKind, SandboxConfig};
use agentkernel_host::{Report, setup::Setup};

/// Returns the error for the first thing that is otherwise.
pub(crate) fn booted(config: &SandboxConfig, setup: &Setup, report: &Report) -> Option<Error> {
    let keep = config.cap_add.iter().fold(0u64, |mask, capability| mask | 1 << capability.number());
    let limit = |file: &str| {
        let limits = setup.cgroups.iter().flat_map(|group| &group.limits);
        let value = limits.filter(|(name, _)| name == file.as_bytes()).map(|(_, value)| value).next()?;
        std::str::from_utf8(value).ok()?.split(' ').next()?.parse::<u64>().ok()
    };
    let quota = limit("cpu.cfs_quota_us").or_else(|| limit("cpu.max"));
    let checks = [
        ("memory_mb", limit("memory.limit_in_bytes").or_else(|| limit("memory.max")), report.memory_bytes),
        ("pids", limit("pids.max"), report.pids),
        ("vcpus", quota.map(|quota| quota / 100), report.cpu_milli),
        ("open_files", setup.open_files, Some(report.open_files)),
        ("cap_add", Some(0), Some(report.capabilities & !keep)),
        ("cap_add", Some(0), Some(keep & !report.bounding)),
        ("no_new_privileges", setup.no_new_privileges.then_some(1), Some(report.no_new_privileges.into())),
        ("syscall_filter", setup.filter.then_some(2), Some(report.seccomp.into())),
        ("read_only", setup.read_only.then_some(1), Some(report.read_only.into())),
        ("network", (!setup.host_network).then_some(0), Some(report.network.into())),
        ("isolation", Some(1), Some(report.pid.into())),
    ];
    let (field, asked, found) =
        checks.into_iter().find(|(_, asked, found)| asked.is_some_and(|asked| *found != Some(asked)))?;
    let text = |value: Option<u64>| value.map_or_else(|| "none".to_owned(), |value| value.to_string());
    Some(
        Error::new(ErrorKind::Unsupported, "start sandbox", format!("the kernel does not enforce `{field}`"))
            .with_context("field", field)
            .with_context("asked", text(asked))
            .with_context("found", text(found))
            .with_hint("choose another backend: see `agentkernel backends`"),
    )
}
