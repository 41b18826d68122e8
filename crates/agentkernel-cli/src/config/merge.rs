//! Flags and a file made one config: flags win, and what either denies stays denied.
use agentkernel_core::{Capability, HostName, Network, PullPolicy, SandboxConfig};

/// The config that holds, and the fields in which the file is stricter than the flags.
#[derive(Debug)]
pub(crate) struct Merged {
    pub(crate) config: SandboxConfig,
    pub(crate) tightened: Vec<&'static str>,
}

/// Merges. Each profile fills its own side first, so that neither weakens the other.
pub(crate) fn merge(flags: SandboxConfig, file: SandboxConfig) -> Merged {
    let (flags, file) = (filled(flags), filled(file));
    let mut config = flags.clone();
    restrict(&mut config, &file);
    config.allow_weaker = allow_weaker(&flags, &file);
    let tightened = tightened(&flags, &config);
    add(&mut config, file);
    Merged { config, tightened }
}

/// Takes over what restricts.
fn restrict(config: &mut SandboxConfig, file: &SandboxConfig) {
    config.network = network(config.network.take(), file.network.clone());
    config.vcpus = least(config.vcpus, file.vcpus);
    config.memory_mb = least(config.memory_mb, file.memory_mb);
    config.pids = least(config.pids, file.pids);
    config.disk_mb = least(config.disk_mb, file.disk_mb);
    config.open_files = least(config.open_files, file.open_files);
    config.time_to_live = least(config.time_to_live, file.time_to_live);
    config.isolation = config.isolation.max(file.isolation);
    config.read_only = on(config.read_only, file.read_only);
    config.no_new_privileges = on(config.no_new_privileges, file.no_new_privileges);
    config.syscall_filter = on(config.syscall_filter, file.syscall_filter);
}

/// Takes over what the flags leave open. What both show at one path is the flags', writable only if both say so.
fn add(config: &mut SandboxConfig, file: SandboxConfig) {
    config.image = config.image.take().or(file.image);
    config.user = config.user.take().or(file.user);
    config.cwd = config.cwd.take().or(file.cwd);
    config.profile = config.profile.or(file.profile);
    if config.pull == PullPolicy::default() {
        config.pull = file.pull;
    }
    if !config.mount_cwd {
        config.mount_cwd = file.mount_cwd;
        config.work_dir = file.work_dir;
    }
    config.mount_home |= file.mount_home;
    if config.cap_add.is_empty() {
        config.cap_add = file.cap_add;
    }
    for (name, value) in file.env {
        config.env.entry(name).or_insert(value);
    }
    for (name, value) in file.labels {
        config.labels.entry(name).or_insert(value);
    }
    for mount in file.mounts {
        match config.mounts.iter_mut().find(|mine| mine.target == mount.target) {
            Some(mine) => mine.read_only |= mount.read_only,
            None => config.mounts.push(mount),
        }
    }
    for volume in file.volumes {
        match config.volumes.iter_mut().find(|mine| mine.target == volume.target) {
            Some(mine) => mine.read_only |= volume.read_only,
            None => config.volumes.push(volume),
        }
    }
    for tmpfs in file.tmpfs {
        match config.tmpfs.iter_mut().find(|mine| mine.target == tmpfs.target) {
            Some(mine) => mine.size_mb = mine.size_mb.min(tmpfs.size_mb),
            None => config.tmpfs.push(tmpfs),
        }
    }
    for port in file.ports {
        if !config.ports.iter().any(|mine| mine.sandbox == port.sandbox) {
            config.ports.push(port);
        }
    }
    for injection in file.files {
        if !config.files.iter().any(|mine| mine.dest == injection.dest) {
            config.files.push(injection);
        }
    }
}

/// Of a file that nobody vouched for, only what takes something away from what the flags and the defaults give. Returns
/// the names of the fields that do not count.
pub(crate) fn narrowing(flags: &SandboxConfig, file: SandboxConfig) -> (SandboxConfig, Vec<String>) {
    let profile = file.profile;
    let given = filled(file);
    let flags = filled(flags.clone());
    let mut narrow = SandboxConfig::default();
    // Without a word on the network there is none, so that any word of the file would only widen.
    narrow.network = given.network.clone().filter(|network| match network {
        Network::None => true,
        Network::Allow(_) => matches!(flags.network, Some(Network::Allow(_) | Network::Full)),
        _ => false,
    });
    let surely = surely_narrow();
    narrow.vcpus = below(given.vcpus, flags.vcpus, surely.vcpus);
    narrow.memory_mb = below(given.memory_mb, flags.memory_mb, surely.memory_mb);
    narrow.pids = below(given.pids, flags.pids, surely.pids);
    narrow.disk_mb = below(given.disk_mb, flags.disk_mb, surely.disk_mb);
    narrow.open_files = below(given.open_files, flags.open_files, surely.open_files);
    narrow.time_to_live = given.time_to_live;
    narrow.isolation = given.isolation;
    narrow.read_only = given.read_only.filter(|on| *on);
    narrow.no_new_privileges = given.no_new_privileges.filter(|on| *on);
    narrow.syscall_filter = given.syscall_filter.filter(|on| *on);
    let mut ignored = differing(&given, &narrow);
    // What the profile fills is judged field by field, above.
    ignored.retain(|field| field != "profile" || profile.is_none());
    (narrow, ignored)
}

/// Limits up to which an untrusted file's count where the flags give none: a backend may have a default of its own, which
/// is not known here and is not below these.
fn surely_narrow() -> SandboxConfig {
    let mut limits = SandboxConfig::default();
    limits.vcpus = agentkernel_core::Cpus::from_milli(1000).ok();
    limits.memory_mb = Some(512);
    limits.pids = Some(512);
    limits.disk_mb = Some(512);
    limits.open_files = Some(1024);
    limits
}

/// The names of the fields in which two configs differ.
pub(crate) fn differing(one: &SandboxConfig, other: &SandboxConfig) -> Vec<String> {
    let object = |config: &SandboxConfig| match serde_json::to_value(config) {
        Ok(serde_json::Value::Object(fields)) => fields,
        // A path that is not UTF-8 has no JSON; it cannot come from a file.
        _ => serde_json::Map::new(),
    };
    let (mine, others) = (object(one), object(other));
    let mut names =
        mine.keys().filter(|name| mine.get(*name) != others.get(*name)).cloned().collect::<Vec<_>>();
    // These are never serialized.
    names.extend((one.env != other.env).then(|| "env".to_owned()));
    names.extend((one.files != other.files).then(|| "files".to_owned()));
    names
}

fn filled(mut config: SandboxConfig) -> SandboxConfig {
    if let Some(profile) = config.profile {
        profile.apply(&mut config);
    }
    config
}

fn least<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// A switch that is on in either place stays on.
fn on(one: Option<bool>, other: Option<bool>) -> Option<bool> {
    if one == Some(true) || other == Some(true) { Some(true) } else { one.or(other) }
}

fn network(flags: Option<Network>, file: Option<Network>) -> Option<Network> {
    match (flags, file) {
        (Some(Network::Full), other @ Some(_)) | (other @ Some(_), Some(Network::Full)) => other,
        (Some(Network::Allow(mine)), Some(Network::Allow(others))) => {
            let both = mine.into_iter().filter(|host| others.contains(host)).collect::<Vec<HostName>>();
            Some(if both.is_empty() { Network::None } else { Network::Allow(both) })
        }
        (Some(_), Some(_)) => Some(Network::None),
        (flags, file) => flags.or(file),
    }
}

/// The flags give way on everything: a person wrote them now. A file gives way only on what it asks for by itself.
fn allow_weaker(flags: &SandboxConfig, file: &SandboxConfig) -> Vec<Capability> {
    let asked = flags.requirements().into_iter().map(|(capability, _)| capability);
    // No network is asked for without a word, too.
    let asked =
        asked.filter(|one| *one != Capability::NetworkNone || flags.network.is_some()).collect::<Vec<_>>();
    let mut all = flags.allow_weaker.clone();
    all.extend(
        file.allow_weaker.iter().filter(|one| !asked.contains(one) && !flags.allow_weaker.contains(one)),
    );
    all
}

fn tightened(flags: &SandboxConfig, config: &SandboxConfig) -> Vec<&'static str> {
    let changed = [
        ("network", flags.network.is_some() && flags.network != config.network),
        ("vcpus", flags.vcpus.is_some() && flags.vcpus != config.vcpus),
        ("memory_mb", flags.memory_mb.is_some() && flags.memory_mb != config.memory_mb),
        ("pids", flags.pids.is_some() && flags.pids != config.pids),
        ("disk_mb", flags.disk_mb.is_some() && flags.disk_mb != config.disk_mb),
        ("open_files", flags.open_files.is_some() && flags.open_files != config.open_files),
        ("time_to_live", flags.time_to_live.is_some() && flags.time_to_live != config.time_to_live),
        ("isolation", flags.isolation.is_some() && flags.isolation != config.isolation),
    ];
    changed.into_iter().filter(|(_, is_changed)| *is_changed).map(|(field, _)| field).collect()
}

/// The file's limit, if it takes something away.
fn below<T: Ord + Copy>(file: Option<T>, flags: Option<T>, surely: Option<T>) -> Option<T> {
    file.filter(|limit| flags.is_some() || Some(*limit) <= surely)
}

#[cfg(test)]
mod tests;
