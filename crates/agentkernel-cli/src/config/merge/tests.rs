//! Whatever flags and files say, neither weakens the other.
use agentkernel_core::{Cpus, Isolation, Mount, Profile};
use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;

fn hosts() -> impl Strategy<Value = Vec<HostName>> {
    vec(select(vec!["a.org", "b.org", "c.org"]).prop_map(|host| host.parse().unwrap()), 1..3)
}

fn networks() -> impl Strategy<Value = Option<Network>> {
    option::of(prop_oneof![Just(Network::None), Just(Network::Full), hosts().prop_map(Network::Allow),])
}

fn configs() -> impl Strategy<Value = SandboxConfig> {
    let limits = (
        option::of((10u32..9000).prop_map(|milli| Cpus::from_milli(milli).unwrap())),
        option::of(1u64..9000),
        option::of(1u32..9000),
        option::of(1u64..9000),
        option::of(1u64..9000),
        option::of(1u64..9000),
    );
    let switches = (any::<Option<bool>>(), any::<Option<bool>>(), any::<Option<bool>>());
    let rest = (
        networks(),
        option::of(select(Isolation::ALL.to_vec())),
        option::of(select(vec![Profile::Permissive, Profile::Moderate, Profile::Restrictive])),
        vec(select(Capability::ALL.to_vec()), 0..4),
        any::<Option<bool>>(),
        any::<bool>(),
    );
    (limits, switches, rest).prop_map(|(limits, switches, rest)| {
        let mut config = SandboxConfig::default();
        (config.vcpus, config.memory_mb, config.pids, config.disk_mb, config.open_files, _) = limits;
        config.time_to_live = limits.5.map(std::time::Duration::from_secs);
        (config.read_only, config.no_new_privileges, config.syscall_filter) = switches;
        (config.network, config.isolation, config.profile, config.allow_weaker, _, config.mount_home) = rest;
        config.mounts = rest
            .4
            .map(|read_only| Mount { source: "/etc".into(), target: "/m".to_owned(), read_only })
            .into_iter()
            .collect();
        config
    })
}

/// Everything that reaches out, as a set.
fn reaches(network: Option<&Network>, host: &str) -> bool {
    match network {
        Some(Network::Full) => true,
        Some(Network::Allow(hosts)) => hosts.iter().any(|allowed| allowed.as_str() == host),
        _ => false,
    }
}

fn within<T: Ord>(limit: Option<T>, effective: Option<T>) -> bool {
    limit.is_none_or(|limit| effective.is_some_and(|effective| effective <= limit))
}

/// Whether `effective` holds everything that `asked` restricts.
fn holds(asked: &SandboxConfig, effective: &SandboxConfig) -> Result<(), TestCaseError> {
    let asked = filled(asked.clone());
    prop_assert!(within(asked.vcpus, effective.vcpus));
    prop_assert!(within(asked.memory_mb, effective.memory_mb));
    prop_assert!(within(asked.pids, effective.pids));
    prop_assert!(within(asked.disk_mb, effective.disk_mb));
    prop_assert!(within(asked.open_files, effective.open_files));
    prop_assert!(within(asked.time_to_live, effective.time_to_live));
    prop_assert!(effective.isolation >= asked.isolation);
    prop_assert!(asked.read_only != Some(true) || effective.read_only == Some(true));
    prop_assert!(asked.no_new_privileges != Some(true) || effective.no_new_privileges == Some(true));
    prop_assert!(asked.syscall_filter != Some(true) || effective.syscall_filter == Some(true));
    if asked.network.is_some() {
        for host in ["a.org", "b.org", "c.org", "other.org"] {
            prop_assert!(reaches(asked.network.as_ref(), host) || !reaches(effective.network.as_ref(), host));
        }
    }
    for mount in asked.mounts.iter().filter(|mount| mount.read_only) {
        prop_assert!(effective.mounts.iter().any(|one| one.target == mount.target && one.read_only));
    }
    Ok(())
}

proptest! {
    #[test]
    fn what_either_denies_stays_denied(flags in configs(), file in configs()) {
        let merged = filled(merge(flags.clone(), file.clone()).config);
        holds(&flags, &merged)?;
        holds(&file, &merged)?;
    }

    #[test]
    fn a_file_gives_no_leave_for_what_the_flags_ask(flags in configs(), file in configs()) {
        let merged = merge(flags.clone(), file).config;
        let asked = filled(flags.clone()).requirements();
        for weaker in merged.allow_weaker {
            let is_asked = asked.iter().any(|(capability, _)| *capability == weaker);
            let is_by_default = weaker == Capability::NetworkNone && filled(flags.clone()).network.is_none();
            prop_assert!(flags.allow_weaker.contains(&weaker) || !is_asked || is_by_default);
        }
    }

    #[test]
    fn an_untrusted_file_only_narrows(flags in configs(), file in configs()) {
        let (narrow, _) = narrowing(&flags, file);
        let merged = filled(merge(flags.clone(), narrow).config);
        let flags = filled(flags);
        holds(&flags, &merged)?;
        // Without a word there is no network, and a file that nobody vouched for gives none.
        for host in ["a.org", "b.org", "c.org", "other.org"] {
            prop_assert!(reaches(flags.network.as_ref(), host) || !reaches(merged.network.as_ref(), host));
        }
        // A backend's own limits are replaced by smaller ones only.
        prop_assert!(flags.pids.is_some() || merged.pids.is_none_or(|pids| pids <= 512));
        prop_assert!(flags.memory_mb.is_some() || merged.memory_mb.is_none_or(|mb| mb <= 512));
        prop_assert_eq!(&merged.mounts, &flags.mounts);
        prop_assert_eq!(merged.mount_home, flags.mount_home);
        prop_assert_eq!(&merged.allow_weaker, &flags.allow_weaker);
        prop_assert!(merged.no_new_privileges != Some(false) || flags.no_new_privileges == Some(false));
        prop_assert!(merged.syscall_filter != Some(false) || flags.syscall_filter == Some(false));
    }
}

#[test]
fn flags_win_where_nothing_is_denied() {
    let mut flags = SandboxConfig::new("mine");
    flags.env.insert("A".into(), "mine".into());
    let mut file = SandboxConfig::new("theirs");
    file.env.extend([("A".into(), "theirs".into()), ("B".into(), "theirs".into())]);
    file.user = Some("app".into());
    let config = merge(flags, file).config;
    assert_eq!((config.image.as_deref(), config.user.as_deref()), (Some("mine"), Some("app")));
    assert_eq!(config.env.into_values().collect::<Vec<_>>(), ["mine", "theirs"]);
}

#[test]
fn what_the_file_takes_from_the_flags_is_told() {
    let mut flags = SandboxConfig::default();
    flags.network = Some(Network::Full);
    flags.pids = Some(9);
    let mut file = SandboxConfig::default();
    file.network = Some(Network::None);
    file.pids = Some(10);
    assert_eq!(merge(flags, file).tightened, ["network"]);
}

#[test]
fn what_does_not_count_of_an_untrusted_file_is_told() {
    let mut file = SandboxConfig::new("theirs");
    file.pids = Some(64);
    file.env.insert("A".into(), "1".into());
    file.network = Some(Network::Full);
    let (narrow, ignored) = narrowing(&SandboxConfig::default(), file);
    assert_eq!(
        (narrow.pids, ignored),
        (Some(64), vec!["image".to_owned(), "network".to_owned(), "env".to_owned()])
    );
}
