//! From a spec to the body of the engine's create call: pure, and complete. Whatever restricts the sandbox is said here
//! explicitly, so that [`verify`](crate::verify) can compare it with what the engine says that it made.
use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use agentkernel_core::{
    Capability, Error, ErrorKind, Lifetime, Network, Result, SandboxConfig, SandboxName, SandboxSpec, Volume,
};
use agentkernel_host::{BOOT_TARGET, GUEST_BIN_DIR, GuestProgram, StateLabels};
use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountBindOptions, MountType,
    MountVolumeOptions, ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};

use crate::{engine::PREFIX, guest_volume::GuestVolume, volumes};

/// The image of a sandbox that names none.
pub(crate) const DEFAULT_IMAGE: &str = "busybox";
/// Processes and threads, unless the caller says otherwise: enough for a build, not for a fork bomb.
pub(crate) const DEFAULT_PIDS: u32 = 2048;
/// The most open files of a process, unless the caller says otherwise, and the most processes of a user; less where this
/// process may have less.
pub(crate) const MAX_LIMIT: u64 = 1 << 20;
/// The size of `/dev/shm`, and of each of `/tmp` and `/run` where the root is read-only. It counts as memory.
pub(crate) const MEMORY_FILES: i64 = 64 << 20;
/// Where our hosts file shows.
pub(crate) const HOSTS_TARGET: &str = "/etc/hosts";
/// What the guest itself needs: to become the command's user, and to kill what that user started.
const GUEST_CAPABILITIES: [&str; 3] = ["KILL", "SETGID", "SETUID"];

/// Where the guest's things are.
#[derive(Debug)]
pub(crate) enum Paths<'a> {
    /// On this machine, which is the engine's: the boot socket, and the hosts file of a sandbox without network.
    Ours { boot: &'a Path, hosts: &'a Path },
    /// Its program alone, in a volume of the engine's.
    Volume(GuestVolume),
}

/// Everything that the body depends on.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub name: &'a SandboxName,
    pub spec: &'a SandboxSpec,
    /// Our labels.
    pub state: BTreeMap<String, String>,
    pub guest: &'a GuestProgram,
    /// Where the guest's things are.
    pub paths: &'a Paths<'a>,
    /// The hard limit of open files that the engine can surely give.
    pub open_files: u64,
    /// The hard limit of processes of a user: Podman sets one above its own unless told, and then nothing starts.
    pub processes: Option<u64>,
    /// The directories that stay writable under a read-only root, with their modes.
    pub scratch: &'static [(&'static str, &'static str)],
    /// Whether the engine makes read-only mounts read-only all the way down.
    pub recursive_read_only: bool,
    /// Whether default limits can be set.
    pub has_pids_limit: bool,
}

impl Plan<'_> {
    /// Makes the body.
    ///
    /// # Errors
    /// `Unsupported` for a host path that is no UTF-8: the engine's API is JSON.
    pub(crate) fn body(&self) -> Result<ContainerCreateBody> {
        let config = &self.spec.config;
        let elsewhere = matches!(self.paths, Paths::Volume(_));
        let mut labels: HashMap<String, String> =
            self.spec.labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        labels.extend(self.state.iter().map(|(name, value)| (name.clone(), value.clone())));
        let env = self.spec.env.iter().map(|variable| {
            // Values of a config are text, so this loses nothing.
            format!("{}={}", variable.name(), String::from_utf8_lossy(variable.value()))
        });
        Ok(ContainerCreateBody {
            hostname: Some(self.name.to_string()),
            // The guest starts as root and gives every command the sandbox's own user.
            user: Some("0:0".to_owned()),
            working_dir: Some("/".to_owned()),
            env: Some(env.collect()),
            entrypoint: Some(match self.paths {
                Paths::Ours { .. } => self.guest.argv.clone(),
                Paths::Volume(_) => self.guest.with_verb("boot-stdin"),
            }),
            open_stdin: elsewhere.then_some(true),
            // The end of what is attached is then the end of stdin, and stdin is the lease.
            stdin_once: elsewhere.then_some(self.spec.lifetime == Lifetime::Owned),
            cmd: Some(Vec::new()),
            image: Some(image_of(config).to_owned()),
            labels: Some(labels),
            // Elsewhere the engine itself must make the hosts file.
            network_disabled: Some(network(self.spec) == "none" && !elsewhere),
            // An image's health check would run beside the commands, unasked.
            healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..Default::default() }),
            stop_signal: Some("SIGTERM".to_owned()),
            host_config: Some(self.host_config()?),
            ..Default::default()
        })
    }

    fn host_config(&self) -> Result<HostConfig> {
        let spec = self.spec;
        let enforced = |capability| !spec.is_weaker(capability);
        let memory = spec.memory_mb.filter(|_| enforced(Capability::MemoryLimit)).map(|mb| to_i64(mb << 20));
        let detached = spec.lifetime == Lifetime::Detached;
        let pids = match spec.pids {
            Some(pids) => Some(pids).filter(|_| enforced(Capability::PidsLimit)),
            None => Some(DEFAULT_PIDS).filter(|_| self.has_pids_limit),
        };
        let cpus = spec.vcpus.filter(|_| enforced(Capability::CpuLimit));
        let disk = spec.disk_mb.filter(|_| enforced(Capability::DiskLimit)).map(|mb| mb << 20);
        let open_files = to_i64(spec.open_files.unwrap_or(self.open_files));
        let mut ulimits = vec![ulimit("core", 0), ulimit("nofile", open_files)];
        ulimits.extend(self.processes.map(|most| ulimit("nproc", to_i64(most))));
        Ok(HostConfig {
            memory,
            memory_swap: memory,
            nano_cpus: cpus.map(|cpus| i64::from(cpus.milli()) * 1_000_000),
            pids_limit: pids.map(i64::from),
            ulimits: Some(ulimits),
            cap_drop: Some(vec!["ALL".to_owned()]),
            cap_add: Some(capabilities(spec)),
            security_opt: Some(security_options(spec)),
            privileged: Some(false),
            readonly_rootfs: Some(spec.read_only && enforced(Capability::ReadOnlyRoot)),
            tmpfs: Some(self.tmpfs()),
            shm_size: Some(MEMORY_FILES),
            mounts: Some(self.mounts()?),
            network_mode: Some(network(spec).to_owned()),
            publish_all_ports: Some(false),
            ipc_mode: Some("private".to_owned()),
            init: Some(false),
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::NO),
                maximum_retry_count: None,
            }),
            auto_remove: Some(!detached),
            log_config: Some(log_config(detached)),
            storage_opt: disk.map(|bytes| HashMap::from([("size".to_owned(), bytes.to_string())])),
            ..Default::default()
        })
    }

    /// With a read-only root, what programs need to write stays writable, in memory.
    fn tmpfs(&self) -> HashMap<String, String> {
        let options = |size: String, mode| format!("rw,exec,nosuid,nodev,size={size},mode={mode}");
        let spec = self.spec;
        let mut all = HashMap::new();
        if spec.read_only && !spec.is_weaker(Capability::ReadOnlyRoot) {
            for &(target, mode) in self.scratch {
                if !self.is_taken(target) {
                    all.insert(target.to_owned(), options(MEMORY_FILES.to_string(), mode));
                }
            }
        }
        if !spec.is_weaker(Capability::Tmpfs) {
            all.extend(
                spec.tmpfs
                    .iter()
                    .map(|tmpfs| (tmpfs.target.clone(), options(format!("{}m", tmpfs.size_mb), "1777"))),
            );
        }
        all
    }

    fn is_taken(&self, target: &str) -> bool {
        let spec = self.spec;
        let targets = spec
            .mounts
            .iter()
            .map(|mount| &mount.target)
            .chain(spec.volumes.iter().map(|volume| &volume.target))
            .chain(spec.tmpfs.iter().map(|tmpfs| &tmpfs.target));
        targets.into_iter().any(|taken| taken.trim_end_matches('/') == target)
    }

    fn mounts(&self) -> Result<Vec<Mount>> {
        let mut all = Vec::new();
        match self.paths {
            Paths::Ours { boot, hosts } => {
                all.push(self.bind(self.guest.directory.as_path(), GUEST_BIN_DIR, true)?);
                all.push(self.bind(boot, BOOT_TARGET, true)?);
                if network(self.spec) == "none" && !self.is_taken(HOSTS_TARGET) {
                    all.push(self.bind(hosts, HOSTS_TARGET, true)?);
                }
            }
            Paths::Volume(volume) => all.push(volume.mount(true)),
        }
        for mount in &self.spec.mounts {
            all.push(self.bind(&mount.source, &mount.target, mount.read_only)?);
        }
        all.extend(self.spec.volumes.iter().map(volume));
        Ok(all)
    }

    /// A mount by the `Mounts` field: `Binds` would make a missing source, as root, and cannot name a path with a colon.
    fn bind(&self, source: &Path, target: &str, read_only: bool) -> Result<Mount> {
        let source = source.to_str().ok_or_else(|| not_text(source))?;
        // An older engine leaves what is mounted below a read-only mount writable: there it is not shown at all.
        let shallow = read_only && !self.recursive_read_only;
        Ok(Mount {
            typ: Some(MountType::BIND),
            source: Some(source.to_owned()),
            target: Some(target.to_owned()),
            read_only: Some(read_only),
            bind_options: shallow
                .then(|| MountBindOptions { non_recursive: Some(true), ..Default::default() }),
            ..Default::default()
        })
    }
}

fn not_text(path: &Path) -> Error {
    Error::new(ErrorKind::Unsupported, "create sandbox", "the engine takes no path that is not UTF-8")
        .with_context("field", "mounts")
        .with_context("path", path.display())
        .with_hint("rename it, or use the linux backend")
}

fn volume(volume: &Volume) -> Mount {
    Mount {
        typ: Some(MountType::VOLUME),
        source: Some(format!("{PREFIX}{}", volume.name)),
        target: Some(volume.target.clone()),
        read_only: Some(volume.read_only),
        volume_options: Some(MountVolumeOptions {
            labels: Some(volumes::labels(&volume.name)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Returns the image of a config.
pub(crate) fn image_of(config: &SandboxConfig) -> &str {
    config.image.as_deref().unwrap_or(DEFAULT_IMAGE)
}

fn network(spec: &SandboxSpec) -> &'static str {
    match &spec.network {
        Network::None if !spec.is_weaker(Capability::NetworkNone) => "none",
        // Only who gave way on `network_allow` gets here with a list.
        _ => "bridge",
    }
}

fn capabilities(spec: &SandboxSpec) -> Vec<String> {
    let mut all = GUEST_CAPABILITIES.map(str::to_owned).to_vec();
    all.extend(spec.cap_add.iter().map(|capability| capability.name().to_owned()));
    if !spec.no_new_privileges {
        // Commands must lose the bounding set, since set-user-id programs could gain from it.
        all.push("SETPCAP".to_owned());
    }
    all.sort();
    all.dedup();
    all
}

fn security_options(spec: &SandboxSpec) -> Vec<String> {
    let mut all = Vec::new();
    if spec.no_new_privileges {
        all.push("no-new-privileges:true".to_owned());
    }
    if !spec.syscall_filter {
        all.push("seccomp=unconfined".to_owned());
    }
    all
}

/// The guest writes a detached main command's output to its own stdout; everything else needs no log.
fn log_config(detached: bool) -> HostConfigLogConfig {
    let options = [("max-size", "10m"), ("max-file", "1")];
    let options = options.map(|(name, value)| (name.to_owned(), value.to_owned()));
    HostConfigLogConfig {
        typ: Some(if detached { "json-file" } else { "none" }.to_owned()),
        config: Some(if detached { HashMap::from(options) } else { HashMap::new() }),
    }
}

fn ulimit(name: &str, limit: i64) -> ResourcesUlimits {
    ResourcesUlimits { name: Some(name.to_owned()), soft: Some(limit), hard: Some(limit) }
}

fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Returns the labels that find exactly our sandboxes.
pub(crate) fn list_labels(labels: &BTreeMap<String, String>) -> Vec<String> {
    let ours = format!("{}={}", StateLabels::VERSION_LABEL, StateLabels::VERSION);
    std::iter::once(ours).chain(labels.iter().map(|(name, value)| format!("{name}={value}"))).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{path::PathBuf, time::Duration};

    use agentkernel_core::{
        Capabilities, Cpus, HostContext, Isolation, Mount as HostMount, Owner, SandboxConfig, Tmpfs,
    };

    use super::*;

    /// Makes the body of a config on an engine that can do everything.
    pub(crate) fn body(config: &SandboxConfig) -> ContainerCreateBody {
        body_on(config, crate::health::UPPER_BOUND)
    }

    pub(crate) fn body_on(config: &SandboxConfig, has: Capabilities) -> ContainerCreateBody {
        let owner = Owner::new("host", "boot", 1, 2, 3, 0);
        let host = HostContext { cwd: "/work".into(), home: Some("/home/me".into()), owner };
        let spec = config.resolve(has, &host).unwrap();
        let argv = ["/.agentkernel/bin/guest", "__guest", "boot", BOOT_TARGET].map(str::to_owned).to_vec();
        Plan {
            name: &"demo".parse().unwrap(),
            spec: &spec,
            state: BTreeMap::from([("agentkernel.name".to_owned(), "demo".to_owned())]),
            guest: &GuestProgram { directory: PathBuf::from("/data/guest"), argv },
            paths: &Paths::Ours {
                boot: Path::new("/run/agentkernel/key/id/boot"),
                hosts: Path::new("/run/agentkernel/key/hosts"),
            },
            open_files: 4096,
            processes: None,
            scratch: crate::EngineKind::Docker.scratch(),
            recursive_read_only: false,
            has_pids_limit: has.has(Capability::PidsLimit),
        }
        .body()
        .unwrap()
    }

    /// Compares with a file; `UPDATE_GOLDEN=1` writes it.
    fn golden(case: &str, config: &SandboxConfig) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{case}.json"));
        let value = serde_json::to_value(body(config)).unwrap();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, format!("{}\n", serde_json::to_string_pretty(&value).unwrap())).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let expected: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value, expected, "{case}: see {}", path.display());
    }

    #[test]
    fn an_empty_config_has_the_strictest_defaults() {
        golden("default", &SandboxConfig::new("busybox"));
    }

    /// A config with every restriction.
    pub(crate) fn everything() -> SandboxConfig {
        let mut config = SandboxConfig::new("busybox");
        config.vcpus = Some(Cpus::from_milli(1500).unwrap());
        config.memory_mb = Some(64);
        config.pids = Some(16);
        config.open_files = Some(128);
        config.mount_cwd = true;
        let target = "/data".to_owned();
        config.mounts = vec![HostMount { source: "rel:ative".into(), target, read_only: true }];
        config.volumes =
            vec![Volume { name: "cache".parse().unwrap(), target: "/cache".into(), read_only: false }];
        config.tmpfs = vec![Tmpfs { target: "/run".into(), size_mb: 8 }];
        config.env.insert("A".into(), "é=1".into());
        config.user = Some("1000:1000".into());
        config.read_only = Some(true);
        config.cap_add = vec!["NET_RAW".parse().unwrap()];
        config.no_new_privileges = Some(true);
        config.syscall_filter = Some(true);
        config.isolation = Some(Isolation::UsernsContainer);
        config.labels.insert("team".into(), "x".into());
        config.time_to_live = Some(Duration::from_secs(60));
        config
    }

    #[test]
    fn every_restriction_is_in_the_request() {
        golden("everything", &everything());
    }

    #[test]
    fn a_detached_sandbox_with_a_network_and_less_protection() {
        let mut config = SandboxConfig::new("busybox");
        config.lifetime = Lifetime::Detached;
        config.network = Some(Network::Full);
        config.no_new_privileges = Some(false);
        config.syscall_filter = Some(false);
        golden("detached", &config);
    }

    #[test]
    fn what_may_go_unenforced_is_not_in_the_request() {
        let mut config = SandboxConfig::new("busybox");
        config.pids = Some(5);
        config.memory_mb = Some(64);
        config.allow_weaker = vec![Capability::PidsLimit, Capability::MemoryLimit];
        let has = crate::health::UPPER_BOUND.without(Capability::PidsLimit).without(Capability::MemoryLimit);
        let host = body_on(&config, has).host_config.unwrap();
        assert_eq!((host.pids_limit, host.memory, host.memory_swap), (None, None, None));
    }

    #[test]
    fn an_engine_that_is_recursive_shows_what_is_mounted_below() {
        let made = body(&everything()).host_config.unwrap().mounts.unwrap();
        let shallow = |mount: &Mount| mount.bind_options.as_ref().and_then(|options| options.non_recursive);
        let data = made.iter().find(|mount| mount.target.as_deref() == Some("/data")).unwrap();
        let workspace = made.iter().find(|mount| mount.target.as_deref() == Some("/workspace")).unwrap();
        assert_eq!((shallow(data), shallow(workspace)), (Some(true), None));
    }
}
