//! From what a caller asks for to what a backend creates: every value checked, every requirement enforceable.
use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use crate::{
    Capabilities, Capability, Cpus, EnvVar, Error, ErrorKind, HostContext, ImageRef, Isolation, Lifetime,
    LinuxCapability, Mount, Network, Owner, PortMapping, PullPolicy, Result, SandboxConfig, SandboxPath,
    Tmpfs, User, Volume,
};

/// Where `work_dir` appears inside.
pub const WORKSPACE: &str = "/workspace";
/// Where the caller's home directory appears inside.
pub const HOME_TARGET: &str = "/home/user";

/// What a backend creates. Made by [`SandboxConfig::resolve`] only.
#[non_exhaustive]
#[derive(Debug, Clone)]
pub struct SandboxSpec {
    /// The config that it was made of, the profile applied; what is kept with the sandbox.
    pub config: SandboxConfig,
    /// The image, if one was named.
    pub image: Option<ImageRef>,
    /// When it is pulled.
    pub pull: PullPolicy,
    /// Processors.
    pub vcpus: Option<Cpus>,
    /// Memory in MiB, swap included.
    pub memory_mb: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// Disk space in MiB.
    pub disk_mb: Option<u64>,
    /// Open files of a process.
    pub open_files: Option<u64>,
    /// Host paths shown inside, workspace and home included; sources absolute, targets distinct.
    pub mounts: Vec<Mount>,
    /// Volumes shown inside.
    pub volumes: Vec<Volume>,
    /// Memory file systems shown inside.
    pub tmpfs: Vec<Tmpfs>,
    /// Variables of every command.
    pub env: Vec<EnvVar>,
    /// Working directory of every command.
    pub cwd: Option<SandboxPath>,
    /// User of every command.
    pub user: Option<User>,
    /// What commands can reach.
    pub network: Network,
    /// Ports of the host.
    pub ports: Vec<PortMapping>,
    /// Whether the root file system is read-only.
    pub read_only: bool,
    /// Linux capabilities that commands keep.
    pub cap_add: Vec<LinuxCapability>,
    /// Whether set-user-id programs gain nothing.
    pub no_new_privileges: bool,
    /// Whether dangerous system calls are refused.
    pub syscall_filter: bool,
    /// Files written before the first command.
    pub files: Vec<InjectedFile>,
    /// The caller's labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it ends with its owner.
    pub lifetime: Lifetime,
    /// Deadline, counted from creation.
    pub time_to_live: Option<Duration>,
    /// What the backend must enforce, each with whether it may be weaker.
    pub requirements: Vec<Requirement>,
    /// This process.
    pub owner: Owner,
}

/// A checked file injection.
#[derive(Clone, PartialEq, Eq)]
pub struct InjectedFile {
    /// Path inside.
    pub target: SandboxPath,
    /// Content.
    pub content: Vec<u8>,
    /// Permission bits.
    pub mode: Option<u32>,
}

/// Content may be secret: only its length is shown.
impl fmt::Debug for InjectedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InjectedFile")
            .field("target", &self.target)
            .field("length", &self.content.len())
            .field("mode", &self.mode)
            .finish()
    }
}

/// Something that must be enforced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// What the backend must have.
    pub capability: Capability,
    /// What was asked for, for people.
    pub asked: String,
    /// Whether the caller allowed it to go unenforced, and it does here.
    pub weaker: bool,
}

impl SandboxSpec {
    /// Returns whether a requirement goes unenforced with the caller's leave.
    pub fn is_weaker(&self, capability: Capability) -> bool {
        self.requirements.iter().any(|requirement| requirement.capability == capability && requirement.weaker)
    }
}

fn invalid(field: &'static str, message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidConfig, "check the sandbox's config", message).with_context("field", field)
}

fn in_field<T>(field: &'static str, result: Result<T>) -> Result<T> {
    result.map_err(|error| error.with_context("field", field))
}

impl SandboxConfig {
    /// Returns what a backend must have for this config, and what was asked for.
    pub fn requirements(&self) -> Vec<(Capability, String)> {
        let mut all = Vec::new();
        let mut ask = |asked: Option<String>, capability| all.extend(asked.map(|asked| (capability, asked)));
        ask(self.vcpus.map(|cpus| cpus.to_string()), Capability::CpuLimit);
        ask(self.memory_mb.map(|mb| format!("{mb} MiB")), Capability::MemoryLimit);
        ask(self.pids.map(|pids| pids.to_string()), Capability::PidsLimit);
        ask(self.disk_mb.map(|mb| format!("{mb} MiB")), Capability::DiskLimit);
        ask(self.open_files.map(|files| files.to_string()), Capability::OpenFilesLimit);
        let mounts = self.mounts.len() + usize::from(self.mount_cwd) + usize::from(self.mount_home);
        ask((mounts > 0).then(|| mounts.to_string()), Capability::BindMount);
        ask((!self.volumes.is_empty()).then(|| self.volumes.len().to_string()), Capability::Volume);
        ask((!self.tmpfs.is_empty()).then(|| self.tmpfs.len().to_string()), Capability::Tmpfs);
        ask(self.user.clone(), Capability::ExecUser);
        ask((!self.ports.is_empty()).then(|| self.ports.len().to_string()), Capability::PortMapping);
        ask((!self.files.is_empty()).then(|| self.files.len().to_string()), Capability::Files);
        let network = match &self.network {
            None | Some(Network::None) => (Capability::NetworkNone, "none".to_owned()),
            Some(Network::Allow(hosts)) => {
                let hosts = hosts.iter().map(|host| host.as_str()).collect::<Vec<_>>();
                (Capability::NetworkAllow, hosts.join(","))
            }
            Some(Network::Full) => (Capability::NetworkFull, "full".to_owned()),
        };
        ask(Some(network.1), network.0);
        let yes = |flag: Option<bool>| (flag == Some(true)).then(|| "true".to_owned());
        ask(yes(self.read_only), Capability::ReadOnlyRoot);
        ask(yes(self.no_new_privileges), Capability::NoNewPrivileges);
        ask(yes(self.syscall_filter), Capability::SyscallFilter);
        let kept = self.cap_add.iter().map(|capability| capability.name()).collect::<Vec<_>>();
        ask((!kept.is_empty()).then(|| kept.join(",")), Capability::DropCapabilities);
        ask((self.lifetime == Lifetime::Detached).then(|| "detached".to_owned()), Capability::Persistence);
        all
    }

    /// Checks the config against what a backend can enforce here and now.
    ///
    /// # Errors
    /// `InvalidConfig` for what would be wrong everywhere; `Unsupported`, naming the field, for what this backend cannot
    /// enforce and [`allow_weaker`](Self::allow_weaker) does not name. Nothing has been started then.
    pub fn resolve(&self, capabilities: Capabilities, host: &HostContext) -> Result<SandboxSpec> {
        let mut config = self.clone();
        if let Some(profile) = config.profile {
            profile.apply(&mut config);
        }
        let requirements = check_requirements(&config, capabilities)?;
        let mounts = resolve_mounts(&config, host)?;
        check_targets(&config, &mounts)?;
        check_numbers(&config)?;
        check_labels(&config)?;
        let image = config.image.as_deref().map(|image| in_field("image", image.parse())).transpose()?;
        let user = config.user.as_deref().map(|user| in_field("user", user.parse())).transpose()?;
        let env =
            config.env.iter().map(|(name, value)| EnvVar::new(name, value.as_bytes())).collect::<Result<_>>();
        let cwd = match (&config.cwd, config.mount_cwd) {
            (Some(cwd), _) => Some(check_cwd(cwd)?),
            (None, true) => Some(WORKSPACE.parse()?),
            (None, false) => None,
        };
        let files = config.files.iter().map(|file| {
            if file.mode.is_some_and(|mode| mode > 0o777) {
                return Err(invalid("files", "the mode has bits other than permissions"));
            }
            let target = in_field("files", SandboxPath::new(&file.dest))?;
            Ok(InjectedFile { target, content: file.content.clone(), mode: file.mode })
        });
        Ok(SandboxSpec {
            image,
            pull: config.pull,
            vcpus: config.vcpus,
            memory_mb: config.memory_mb,
            pids: config.pids,
            disk_mb: config.disk_mb,
            open_files: config.open_files,
            mounts,
            volumes: config.volumes.clone(),
            tmpfs: config.tmpfs.clone(),
            env: in_field("env", env)?,
            cwd,
            user,
            network: config.network.clone().unwrap_or_default(),
            ports: config.ports.clone(),
            read_only: config.read_only.unwrap_or(false),
            cap_add: config.cap_add.clone(),
            no_new_privileges: config.no_new_privileges.unwrap_or(true),
            syscall_filter: config.syscall_filter.unwrap_or(true),
            files: files.collect::<Result<_>>()?,
            labels: config.labels.clone(),
            lifetime: config.lifetime,
            time_to_live: config.time_to_live,
            requirements,
            owner: host.owner.clone(),
            config,
        })
    }
}

fn check_requirements(config: &SandboxConfig, capabilities: Capabilities) -> Result<Vec<Requirement>> {
    if let Some(least) = config.isolation
        && capabilities.isolation() < least
    {
        return Err(unsupported("isolation", least.as_str())
            .with_context("has", capabilities.isolation())
            .with_hint(stronger_hint(least)));
    }
    config
        .requirements()
        .into_iter()
        .map(|(capability, asked)| {
            let weaker = !capabilities.has(capability);
            if weaker && !config.allow_weaker.contains(&capability) {
                let hint = format!(
                    "choose another backend, or give way on purpose with `--allow-weaker {capability}`"
                );
                return Err(unsupported(capability.as_str(), &asked).with_hint(hint));
            }
            Ok(Requirement { capability, asked, weaker })
        })
        .collect()
}

fn unsupported(field: &'static str, asked: &str) -> Error {
    Error::new(ErrorKind::Unsupported, "start sandbox", format!("this backend cannot enforce `{field}` here"))
        .with_context("asked", asked)
}

fn stronger_hint(least: Isolation) -> &'static str {
    match least {
        Isolation::Vm => {
            "a kernel of its own needs a backend with virtual machines: see `agentkernel backends`"
        }
        Isolation::UsernsContainer => {
            "use a rootless engine, or the linux backend: see `agentkernel backends`"
        }
        Isolation::RootContainer | Isolation::Process => "see `agentkernel backends`",
    }
}

fn resolve_mounts(config: &SandboxConfig, host: &HostContext) -> Result<Vec<Mount>> {
    let absolute = |path: &PathBuf| host.cwd.join(path);
    let mut mounts = Vec::new();
    if config.mount_cwd {
        let source = config.work_dir.as_ref().map_or_else(|| host.cwd.clone(), absolute);
        mounts.push(Mount { source, target: WORKSPACE.to_owned(), read_only: false });
    }
    if config.mount_home {
        let source =
            host.home.clone().ok_or_else(|| invalid("mount_home", "the home directory is not known"))?;
        mounts.push(Mount { source, target: HOME_TARGET.to_owned(), read_only: true });
    }
    for mount in &config.mounts {
        mounts.push(Mount { source: absolute(&mount.source), ..mount.clone() });
    }
    Ok(mounts)
}

/// Targets are absolute, distinct, and do not hide the kernel's own file systems or our own directory.
fn check_targets(config: &SandboxConfig, mounts: &[Mount]) -> Result<()> {
    let targets = mounts
        .iter()
        .map(|mount| ("mounts", &mount.target))
        .chain(config.volumes.iter().map(|volume| ("volumes", &volume.target)))
        .chain(config.tmpfs.iter().map(|tmpfs| ("tmpfs", &tmpfs.target)));
    let mut seen: Vec<SandboxPath> = Vec::new();
    for (field, target) in targets {
        let path = in_field(field, SandboxPath::new(target))?;
        let reserved = ["/proc", "/sys", "/dev", "/.agentkernel"]
            .iter()
            .any(|reserved| SandboxPath::new(reserved).is_ok_and(|reserved| path.starts_with(&reserved)));
        if path.as_bytes() == b"/" || (reserved && path.as_bytes() != b"/dev/shm") {
            return Err(invalid(field, "nothing can be shown at this path").with_context("target", target));
        }
        if seen.contains(&path) {
            return Err(invalid(field, "two things are shown at one path").with_context("target", target));
        }
        seen.push(path);
    }
    Ok(())
}

/// `/proc/self/fd/N` as a working directory leads out of a container on engines with CVE-2024-21626.
fn check_cwd(cwd: &str) -> Result<SandboxPath> {
    let path = in_field("cwd", SandboxPath::new(cwd))?;
    if path.starts_with(&"/proc".parse()?) {
        return Err(invalid("cwd", "the working directory is below /proc").with_context("cwd", cwd));
    }
    Ok(path)
}

fn check_numbers(config: &SandboxConfig) -> Result<()> {
    let mb_max = u64::MAX >> 21;
    let zero_or_huge = |mb: Option<u64>| mb.is_some_and(|mb| mb == 0 || mb > mb_max);
    let checks = [
        ("memory_mb", zero_or_huge(config.memory_mb)),
        ("disk_mb", zero_or_huge(config.disk_mb)),
        ("pids", config.pids == Some(0)),
        ("open_files", config.open_files.is_some_and(|files| files == 0 || files > 1 << 30)),
        ("tmpfs", config.tmpfs.iter().any(|tmpfs| zero_or_huge(Some(tmpfs.size_mb)))),
        (
            "time_to_live",
            config.time_to_live.is_some_and(|ttl| ttl.as_secs() == 0 || ttl.as_secs() > u32::MAX.into()),
        ),
        ("ports", config.ports.iter().any(|port| port.sandbox == 0)),
        ("network", matches!(&config.network, Some(Network::Allow(hosts)) if hosts.is_empty())),
    ];
    match checks.iter().find(|(_, wrong)| *wrong) {
        Some((field, _)) => Err(invalid(field, "the value is zero, empty or out of range")),
        None => Ok(()),
    }
}

fn check_labels(config: &SandboxConfig) -> Result<()> {
    for (name, value) in &config.labels {
        let well_formed = (1..=128).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/'));
        if !well_formed {
            return Err(invalid(
                "labels",
                "a name is not 1 to 128 of letters, digits, `.`, `_`, `-` and `/`",
            )
            .with_context("label", name.chars().take(64).collect::<String>()));
        }
        if name.starts_with("agentkernel") {
            return Err(invalid("labels", "names that begin with `agentkernel` are reserved")
                .with_context("label", name));
        }
        if value.len() > 4096 || value.contains('\0') {
            return Err(invalid("labels", "a value has a NUL or is longer than 4096 bytes")
                .with_context("label", name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FileInjection, Profile};
    use proptest::prelude::*;

    fn host() -> HostContext {
        let owner = Owner::new("host", "boot", 1, 2, 3, 0);
        HostContext { cwd: "/work".into(), home: Some("/home/me".into()), owner }
    }

    fn everything() -> Capabilities {
        Capabilities::new(Isolation::RootContainer).with_all(Capability::ALL)
    }

    fn resolve(config: &SandboxConfig) -> Result<SandboxSpec> {
        config.resolve(everything(), &host())
    }

    #[test]
    fn a_limit_that_cannot_be_enforced_is_refused_naming_the_field() {
        let config = SandboxConfig { pids: Some(5), ..SandboxConfig::default() };
        let error = config.resolve(everything().without(Capability::PidsLimit), &host()).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (
                ErrorKind::Unsupported,
                "failed to start sandbox: this backend cannot enforce `pids` here (asked: 5)"
            )
        );
    }

    #[test]
    fn giving_way_is_explicit_and_recorded() {
        let config = SandboxConfig {
            pids: Some(5),
            allow_weaker: vec![Capability::PidsLimit],
            ..SandboxConfig::default()
        };
        let spec = config.resolve(everything().without(Capability::PidsLimit), &host()).unwrap();
        assert!(spec.is_weaker(Capability::PidsLimit));
        assert!(!resolve(&config).unwrap().is_weaker(Capability::PidsLimit));
    }

    #[test]
    fn no_network_is_a_requirement_by_default() {
        let error = SandboxConfig::default()
            .resolve(everything().without(Capability::NetworkNone), &host())
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn a_weaker_isolation_class_is_refused() {
        let config = SandboxConfig { isolation: Some(Isolation::Vm), ..SandboxConfig::default() };
        assert_eq!(resolve(&config).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn defaults_that_a_backend_lacks_are_no_requirement() {
        let weak = everything().without(Capability::SyscallFilter).without(Capability::NoNewPrivileges);
        assert!(SandboxConfig::default().resolve(weak, &host()).is_ok());
    }

    #[test]
    fn a_profile_does_not_touch_what_is_given() {
        let config = SandboxConfig {
            profile: Some(Profile::Restrictive),
            pids: Some(7),
            network: Some(Network::Full),
            ..SandboxConfig::default()
        };
        let spec = resolve(&config).unwrap();
        assert_eq!(
            (spec.pids, spec.memory_mb, spec.read_only, spec.network),
            (Some(7), Some(512), true, Network::Full)
        );
    }

    #[test]
    fn the_workspace_becomes_the_working_directory() {
        let config =
            SandboxConfig { mount_cwd: true, work_dir: Some("sub".into()), ..SandboxConfig::default() };
        let spec = resolve(&config).unwrap();
        assert_eq!(spec.cwd.unwrap().to_string(), WORKSPACE);
        assert_eq!(
            spec.mounts,
            [Mount { source: "/work/sub".into(), target: WORKSPACE.into(), read_only: false }]
        );
    }

    #[test]
    fn nothing_can_be_shown_over_the_kernel_or_over_us() {
        for target in ["/", "/proc", "/proc/sys", "/sys", "/dev", "/.agentkernel/x", "relative", "/a/../b"] {
            let tmpfs = vec![Tmpfs { target: target.into(), size_mb: 1 }];
            let error = resolve(&SandboxConfig { tmpfs, ..SandboxConfig::default() }).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{target}");
        }
    }

    #[test]
    fn two_things_at_one_path_are_refused() {
        let tmpfs =
            vec![Tmpfs { target: "/a".into(), size_mb: 1 }, Tmpfs { target: "//a/".into(), size_mb: 1 }];
        assert!(resolve(&SandboxConfig { tmpfs, ..SandboxConfig::default() }).is_err());
    }

    #[test]
    fn a_working_directory_below_proc_is_refused() {
        let config = SandboxConfig { cwd: Some("/proc/self/fd/7".into()), ..SandboxConfig::default() };
        assert_eq!(resolve(&config).unwrap_err().kind(), ErrorKind::InvalidConfig);
    }

    #[test]
    fn our_labels_cannot_be_set_by_callers() {
        let labels = BTreeMap::from([("agentkernel.owner".to_owned(), "evil".to_owned())]);
        assert!(resolve(&SandboxConfig { labels, ..SandboxConfig::default() }).is_err());
    }

    #[test]
    fn set_user_id_files_cannot_be_injected() {
        let files = vec![FileInjection { dest: "/f".into(), content: vec![], mode: Some(0o4755) }];
        assert!(resolve(&SandboxConfig { files, ..SandboxConfig::default() }).is_err());
    }

    proptest! {
        #[test]
        fn what_resolves_is_enforced_or_given_way(
            pids in any::<Option<u32>>(),
            memory_mb in any::<Option<u64>>(),
            missing in proptest::collection::vec(0..Capability::ALL.len(), 0..8),
            weaker in proptest::collection::vec(0..Capability::ALL.len(), 0..8),
        ) {
            let has = missing.iter().fold(everything(), |set, index| set.without(Capability::ALL[*index]));
            let allow_weaker = weaker.iter().map(|index| Capability::ALL[*index]).collect::<Vec<_>>();
            let config = SandboxConfig { pids, memory_mb, allow_weaker: allow_weaker.clone(), ..SandboxConfig::default() };
            if let Ok(spec) = config.resolve(has, &host()) {
                for requirement in &spec.requirements {
                    prop_assert!(has.has(requirement.capability) || allow_weaker.contains(&requirement.capability));
                    prop_assert_eq!(requirement.weaker, !has.has(requirement.capability));
                }
            }
        }
    }
}
