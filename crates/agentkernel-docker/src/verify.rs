//! What was asked for against what was made: the request with the engine's own answer, and both with what the guest
//! finds in its own `/proc` and cgroup. Engines drop fields that they do not know, silently.
use std::collections::{BTreeMap, BTreeSet};

use agentkernel_core::{Capabilities, Capability, Error, ErrorKind, Network, SandboxConfig};
use agentkernel_host::Report;
use bollard::models::{ContainerCreateBody, ContainerInspectResponse, HostConfig, Mount};

/// A restriction that is not as asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    /// The config's field.
    pub field: &'static str,
    pub asked: String,
    pub found: String,
}

#[derive(Default)]
struct Differences(Vec<Difference>);

impl Differences {
    fn compare<T: PartialEq + std::fmt::Debug>(&mut self, field: &'static str, asked: &T, found: &T) {
        if asked != found {
            let shown = |value: &T| format!("{value:?}").chars().take(200).collect();
            self.0.push(Difference { field, asked: shown(asked), found: shown(found) });
        }
    }
}

/// Compares a create request with what the engine says that it made of it.
pub(crate) fn made(body: &ContainerCreateBody, found: &ContainerInspectResponse) -> Vec<Difference> {
    let nothing = HostConfig::default();
    let asked = body.host_config.as_ref().unwrap_or(&nothing);
    let host = found.host_config.as_ref().unwrap_or(&nothing);
    let config = found.config.clone().unwrap_or_default();
    let mut all = Differences::default();
    all.compare("memory_mb", &number(asked.memory), &number(host.memory));
    if asked.memory.is_some() {
        all.compare("memory_mb", &number(asked.memory_swap), &number(host.memory_swap));
    }
    all.compare("vcpus", &number(asked.nano_cpus), &number(host.nano_cpus));
    all.compare("pids", &number(asked.pids_limit), &number(host.pids_limit));
    all.compare("open_files", &ulimits(asked), &ulimits(host));
    all.compare("disk_mb", &disk(asked), &disk(host));
    all.compare("read_only", &asked.readonly_rootfs.unwrap_or(false), &host.readonly_rootfs.unwrap_or(false));
    all.compare("network", &asked.network_mode, &host.network_mode);
    // Podman does not keep it, and has it derived from the mode: more than was asked for is no weakness.
    if body.network_disabled == Some(true) {
        all.compare("network", &true, &config.network_disabled.unwrap_or(false));
    }
    let none = |map: &Option<_>| map.as_ref().is_none_or(bollard::models::PortMap::is_empty);
    all.compare("network", &true, &none(&host.port_bindings));
    all.compare("cap_add", &capabilities(asked.cap_drop.as_ref()), &capabilities(host.cap_drop.as_ref()));
    all.compare("cap_add", &capabilities(asked.cap_add.as_ref()), &capabilities(host.cap_add.as_ref()));
    all.compare("cap_add", &false, &host.privileged.unwrap_or(false));
    let (wanted, given) = (security_options(asked), security_options(host));
    let has = |set: &BTreeSet<String>, begin: &str| set.iter().any(|option| option.starts_with(begin));
    all.compare("no_new_privileges", &has(&wanted, "no-new-privileges"), &has(&given, "no-new-privileges"));
    all.compare("syscall_filter", &has(&wanted, "seccomp"), &has(&given, "seccomp"));
    all.compare("tmpfs", &tmpfs(asked), &tmpfs(host));
    all.compare("mounts", &mounts(asked), &mounts(host));
    all.compare("mounts", &0, &host.binds.as_ref().map_or(0, Vec::len));
    all.compare("lifetime", &asked.auto_remove.unwrap_or(false), &host.auto_remove.unwrap_or(false));
    all.compare("user", &body.user, &config.user);
    all.compare("isolation", &body.entrypoint, &config.entrypoint);
    all.compare("isolation", &asked.ipc_mode, &host.ipc_mode);
    all.compare("isolation", &"", &host.pid_mode.as_deref().unwrap_or_default());
    all.compare("isolation", &0, &host.devices.as_ref().map_or(0, Vec::len));
    let shared_users = host.userns_mode.as_deref() == Some("host");
    all.compare("isolation", &false, &shared_users);
    let labels = config.labels.unwrap_or_default();
    let kept = body.labels.iter().flatten().all(|(name, value)| labels.get(name) == Some(value));
    all.compare("labels", &true, &kept);
    all.0
}

/// Compares what the engine says, and what the caller asked for, with what the guest finds. A default that the backend
/// does not claim is no requirement.
pub(crate) fn booted(
    config: &SandboxConfig,
    host: &HostConfig,
    claimed: Capabilities,
    report: &Report,
) -> Vec<Difference> {
    let required = |asked: Option<bool>, capability| match asked {
        Some(asked) => asked,
        None => claimed.has(capability),
    };
    let mut all = Differences::default();
    if let Some(memory) = set(host.memory) {
        all.compare("memory_mb", &Some(memory), &report.memory_bytes);
        all.compare("memory_mb", &set(host.memory_swap), &report.memory_and_swap_bytes);
    }
    if let Some(pids) = set(host.pids_limit) {
        all.compare("pids", &Some(pids), &report.pids);
    }
    if let Some(cpus) = set(host.nano_cpus) {
        all.compare("vcpus", &Some(cpus / 1_000_000), &report.cpu_milli);
    }
    let nofile = ulimits(host).into_iter().find(|(name, ..)| name == "nofile");
    if let Some((_, _, hard)) = nofile {
        all.compare("open_files", &u64::try_from(hard).unwrap_or(u64::MAX), &report.open_files);
    }
    let keep = keep_mask(config);
    all.compare("cap_add", &0, &(report.capabilities & !keep));
    all.compare("cap_add", &0, &(keep & !report.bounding));
    if required(config.no_new_privileges, Capability::NoNewPrivileges) {
        all.compare("no_new_privileges", &true, &report.no_new_privileges);
    } else {
        // What set-user-id programs could gain is bounded by this set.
        all.compare("cap_add", &0, &(report.bounding & !keep));
    }
    if required(config.syscall_filter, Capability::SyscallFilter) {
        all.compare("syscall_filter", &2, &report.seccomp);
    }
    if config.read_only == Some(true) {
        all.compare("read_only", &true, &report.read_only);
    }
    if matches!(config.network, None | Some(Network::None)) {
        all.compare("network", &false, &report.network);
    }
    all.compare("isolation", &1, &report.pid);
    all.0
}

/// Returns the Linux capabilities that commands keep, as a mask.
pub(crate) fn keep_mask(config: &SandboxConfig) -> u64 {
    config.cap_add.iter().fold(0, |mask, capability| mask | 1 << capability.number())
}

/// Returns the error for the first difference that the caller did not give leave for.
pub(crate) fn refuse(config: &SandboxConfig, differences: &[Difference], by: &'static str) -> Option<Error> {
    let given = |field: &str| {
        let field = match field {
            "network" if matches!(config.network, None | Some(Network::None)) => {
                Capability::NetworkNone.as_str()
            }
            field => field,
        };
        config.allow_weaker.iter().any(|capability| capability.as_str() == field)
    };
    let first = differences.iter().find(|difference| !given(difference.field))?;
    let weaker = first.field.parse::<Capability>().is_ok();
    let hint = if weaker {
        format!("choose another backend, or give way on purpose with `--allow-weaker {}`", first.field)
    } else {
        "choose another backend: see `agentkernel backends`".to_owned()
    };
    let error = Error::new(
        ErrorKind::Unsupported,
        "start sandbox",
        format!("the engine does not enforce `{}`", first.field),
    )
    .with_context("field", first.field)
    .with_context("asked", &first.asked)
    .with_context("found", &first.found)
    .with_context("told by", by)
    .with_hint(hint);
    Some(error)
}

/// Returns the error for a create that the engine made with warnings: it discarded something.
pub(crate) fn refuse_warnings(warnings: &[String]) -> Option<Error> {
    let first = warnings.first()?;
    Some(
        Error::new(
            ErrorKind::Unsupported,
            "start sandbox",
            "the engine did not take over all that was asked for",
        )
        .with_context("warning", first.chars().take(500).collect::<String>())
        .with_hint("see what the engine can do: `docker info`, `podman info`"),
    )
}

/// Engines write "no limit" as nothing, 0 or -1.
fn number(value: Option<i64>) -> i64 {
    value.unwrap_or(0).max(0)
}

fn set(value: Option<i64>) -> Option<u64> {
    value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0)
}

fn ulimits(host: &HostConfig) -> BTreeSet<(String, i64, i64)> {
    let ulimits = host.ulimits.iter().flatten();
    ulimits
        .map(|limit| {
            (limit.name.clone().unwrap_or_default(), limit.soft.unwrap_or(0), limit.hard.unwrap_or(0))
        })
        .collect()
}

/// Newer engines answer with `CAP_` before each name.
fn capabilities(names: Option<&Vec<String>>) -> BTreeSet<String> {
    let names = names.into_iter().flatten().map(|name| name.to_ascii_uppercase());
    names.map(|name| name.strip_prefix("CAP_").unwrap_or(&name).to_owned()).collect()
}

fn security_options(host: &HostConfig) -> BTreeSet<String> {
    host.security_opt.iter().flatten().cloned().collect()
}

/// Podman adds words of its own: how the mount propagates, and that it begins with what the image has there.
fn tmpfs(host: &HostConfig) -> BTreeMap<String, Vec<String>> {
    let words = |options: &String| {
        let words = options.split(',').filter(|word| !matches!(*word, "rprivate" | "tmpcopyup"));
        words.map(str::to_owned).collect()
    };
    host.tmpfs.iter().flatten().map(|(target, options)| (target.clone(), words(options))).collect()
}

/// Returns the size of the writable layer, in bytes.
pub(crate) fn disk(host: &HostConfig) -> Option<&str> {
    host.storage_opt.as_ref()?.get("size").map(String::as_str)
}

fn mounts(host: &HostConfig) -> BTreeSet<(String, String, String, bool)> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let one = |mount: &Mount| {
        let kind = mount.typ.as_ref().map(|kind| format!("{kind:?}")).unwrap_or_default();
        (kind, text(&mount.source), text(&mount.target), mount.read_only.unwrap_or(false))
    };
    host.mounts.iter().flatten().map(one).collect()
}

#[cfg(test)]
mod tests {
    use agentkernel_core::Isolation;
    use bollard::models::ContainerConfig;

    use super::*;
    use crate::{
        health::UPPER_BOUND,
        request::tests::{body, everything},
    };

    /// What an honest engine answers.
    fn honest(body: &ContainerCreateBody) -> ContainerInspectResponse {
        ContainerInspectResponse {
            host_config: body.host_config.clone(),
            config: Some(ContainerConfig {
                user: body.user.clone(),
                entrypoint: body.entrypoint.clone(),
                network_disabled: body.network_disabled,
                labels: body.labels.clone(),
                ..ContainerConfig::default()
            }),
            ..ContainerInspectResponse::default()
        }
    }

    fn fields(differences: &[Difference]) -> Vec<&'static str> {
        differences.iter().map(|difference| difference.field).collect()
    }

    #[test]
    fn an_honest_engine_makes_no_difference() {
        let body = body(&everything());
        let mut found = honest(&body);
        // Newer engines write capabilities so, and nothing as 0.
        let host = found.host_config.as_mut().unwrap();
        host.cap_add = host.cap_add.take().map(|all| all.iter().map(|name| format!("CAP_{name}")).collect());
        host.port_bindings = Some(bollard::models::PortMap::new());
        host.binds = Some(Vec::new());
        assert_eq!(made(&body, &found), []);
    }

    #[test]
    fn every_field_that_an_engine_drops_is_named() {
        type Drop = fn(&mut HostConfig);
        let cases: [(&str, Drop); 16] = [
            ("memory_mb", |host| host.memory = None),
            ("memory_mb", |host| host.memory_swap = Some(-1)),
            ("vcpus", |host| host.nano_cpus = Some(0)),
            ("pids", |host| host.pids_limit = None),
            ("open_files", |host| host.ulimits = None),
            ("read_only", |host| host.readonly_rootfs = None),
            ("network", |host| host.network_mode = Some("bridge".into())),
            ("cap_add", |host| host.cap_drop = None),
            ("cap_add", |host| host.cap_add.get_or_insert_default().push("SYS_ADMIN".into())),
            ("cap_add", |host| host.privileged = Some(true)),
            ("no_new_privileges", |host| host.security_opt = None),
            ("syscall_filter", |host| {
                host.security_opt.get_or_insert_default().push("seccomp=unconfined".into());
            }),
            ("tmpfs", |host| host.tmpfs = None),
            ("mounts", |host| drop(host.mounts.as_mut().unwrap().pop())),
            ("lifetime", |host| host.auto_remove = Some(false)),
            ("isolation", |host| host.pid_mode = Some("host".into())),
        ];
        let body = body(&everything());
        for (field, break_it) in cases {
            let mut found = honest(&body);
            break_it(found.host_config.as_mut().unwrap());
            assert_eq!(fields(&made(&body, &found)), [field]);
        }
        let mut found = honest(&body);
        found.config.as_mut().unwrap().network_disabled = None;
        assert_eq!(fields(&made(&body, &found)), ["network"]);
        assert!(made(&body, &ContainerInspectResponse::default()).len() > 10);
    }

    fn report() -> Report {
        Report {
            memory_bytes: Some(64 << 20),
            memory_and_swap_bytes: Some(64 << 20),
            pids: Some(16),
            cpu_milli: Some(1500),
            open_files: 128,
            capabilities: 0,
            bounding: 0xe0 | 1 << 13,
            no_new_privileges: true,
            seccomp: 2,
            read_only: true,
            network: false,
            pid: 1,
            uid: 1000,
            gid: 1000,
        }
    }

    #[test]
    fn every_field_that_the_guest_finds_otherwise_is_named() {
        type Change = fn(&mut Report);
        let cases: [(&str, Change); 11] = [
            ("memory_mb", |report| report.memory_bytes = None),
            ("memory_mb", |report| report.memory_and_swap_bytes = Some(128 << 20)),
            ("pids", |report| report.pids = Some(17)),
            ("vcpus", |report| report.cpu_milli = None),
            ("open_files", |report| report.open_files = 1 << 20),
            ("cap_add", |report| report.capabilities = 1 << 21),
            ("no_new_privileges", |report| report.no_new_privileges = false),
            ("syscall_filter", |report| report.seccomp = 0),
            ("read_only", |report| report.read_only = false),
            ("network", |report| report.network = true),
            ("isolation", |report| report.pid = 2),
        ];
        let config = everything();
        let host = body(&config).host_config.unwrap();
        assert_eq!(booted(&config, &host, UPPER_BOUND, &report()), []);
        for (field, change) in cases {
            let mut report = report();
            change(&mut report);
            assert_eq!(fields(&booted(&config, &host, UPPER_BOUND, &report)), [field]);
        }
    }

    #[test]
    fn a_default_that_the_backend_does_not_claim_is_no_requirement() {
        let config = SandboxConfig::new("busybox");
        let host = HostConfig::default();
        let weak = Report { seccomp: 0, no_new_privileges: false, bounding: 0, ..report() };
        let nothing = Capabilities::new(Isolation::RootContainer);
        assert_eq!(booted(&config, &host, nothing, &weak), []);
        assert_eq!(
            fields(&booted(&config, &host, UPPER_BOUND, &weak)),
            ["no_new_privileges", "syscall_filter"]
        );
    }

    #[test]
    fn a_difference_is_unsupported_unless_the_caller_gave_way() {
        let pids = [Difference { field: "pids", asked: "16".into(), found: "0".into() }];
        let mut config = everything();
        let error = refuse(&config, &pids, "the engine").unwrap();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.message().contains("`pids`") && error.hint().unwrap().contains("--allow-weaker pids"));
        config.allow_weaker = vec![Capability::PidsLimit];
        assert!(refuse(&config, &pids, "the engine").is_none());
    }
}
