//! What a plan promises.

use agentkernel_core::{
    Capabilities, Capability, Cpus, HostContext, Mount, Owner, SandboxConfig, SandboxSpec, Tmpfs,
};

use super::*;
use crate::UPPER_BOUND;

fn machine(uid: u32, cgroups: Cgroups) -> Machine {
    Machine { uid, gid: uid, cgroups, open_files: 1024, kernel: "6.18".to_owned() }
}

fn spec(config: &SandboxConfig, capabilities: Capabilities) -> SandboxSpec {
    let owner = Owner::new("host", "boot", 1, 2, 3, 0);
    let host = HostContext { cwd: "/w".into(), home: Some("/home/u".into()), owner };
    config.resolve(capabilities, &host).unwrap()
}

fn place(path: &str, uid: u32) -> Place {
    Place { path: path.into(), device: 1, inode: 2, uid, gid: uid }
}

struct Asked {
    config: SandboxConfig,
    capabilities: Capabilities,
    machine: Machine,
    image: Option<&'static Path>,
    mounts: Vec<Place>,
}

impl Asked {
    fn of(machine: Machine) -> Self {
        let (config, mounts) = (SandboxConfig::default(), Vec::new());
        Self { config, capabilities: UPPER_BOUND, machine, image: None, mounts }
    }

    fn with<T>(&self, read: impl FnOnce(&Parts<'_>) -> T) -> T {
        let home = Home {
            path: Some("/home/u".into()),
            tools: vec![("/home/u/.cargo/bin".into(), place("/home/u/.cargo/bin", 5))],
        };
        read(&Parts {
            spec: &spec(&self.config, self.capabilities),
            machine: &self.machine,
            run_id: "0123456789abcdef",
            name: "demo",
            state: Path::new("/state/demo"),
            run: Path::new("/run/demo"),
            image: self.image,
            home: &home,
            resolver: None,
            mounts: &self.mounts,
            volumes: &[],
        })
    }

    fn setup(&self) -> Setup {
        self.with(|parts| parts.setup())
    }
}

fn root() -> Asked {
    Asked::of(machine(0, Cgroups::V1 { swap: true }))
}

fn ordinary() -> Asked {
    Asked::of(machine(1000, Cgroups::None))
}

#[test]
fn no_id_of_roots_sandbox_is_one_that_people_have() {
    let setup = root().setup();
    assert!(setup.shifted);
    for map in [setup.uids, setup.gids] {
        assert_eq!((map.inside, map.outside, map.count), (0, BASE, COUNT));
    }
}

#[test]
fn others_have_their_own_id_and_no_other() {
    let mut asked = ordinary();
    let of = |asked: &Asked| {
        let map = asked.setup().uids;
        (map.inside, map.outside, map.count)
    };
    assert_eq!(of(&asked), (1000, 1000, 1));
    asked.image = Some(Path::new("/images/i/root"));
    assert_eq!(of(&asked), (0, 1000, 1));
}

#[test]
fn all_of_the_machine_is_read_only() {
    for asked in [root(), ordinary()] {
        let setup = asked.setup();
        let shown = setup.mounts.iter().filter(|mount| !matches!(mount.source, MountSource::Memory(..)));
        assert!(shown.clone().count() > SYSTEM.len());
        assert!(shown.into_iter().all(|mount| mount.read_only));
    }
}

#[test]
fn nothing_of_the_home_directory_is_shown_but_tools() {
    let setup = ordinary().setup();
    let targets = setup.mounts.iter().map(|mount| String::from_utf8_lossy(&mount.target).into_owned());
    assert_eq!(
        targets.filter(|target| target.starts_with("/home")).collect::<Vec<_>>(),
        ["/home/u/.cargo/bin"]
    );
}

#[test]
fn the_workspace_keeps_its_owner_where_the_caller_is_root() {
    let mut asked = root();
    asked.config.mounts =
        vec![Mount { source: "/src".into(), target: "/workspace".into(), read_only: false }];
    asked.mounts = vec![place("/src", 7)];
    let setup = asked.setup();
    let MountSource::Path { owner: Some(owner), .. } = setup.mounts.last().unwrap().source else {
        unreachable!()
    };
    assert_eq!(owner, OwnerMap { uid: 7, gid: 7, as_uid: BASE + USER, as_gid: BASE + USER });
}

#[test]
fn outer_mounts_come_before_inner_ones() {
    let mut asked = ordinary();
    let tmpfs = |target: &str| Tmpfs { target: target.to_owned(), size_mb: 1 };
    asked.config.tmpfs = vec![tmpfs("/a/b/c"), tmpfs("/a")];
    let setup = asked.setup();
    let targets = setup.mounts.iter().rev().take(2).map(|mount| mount.target.clone()).collect::<Vec<_>>();
    assert_eq!(targets, [b"/a/b/c".to_vec(), b"/a".to_vec()]);
}

fn limits(setup: &Setup) -> Vec<String> {
    let of = |group: &CgroupPlan| {
        let path = String::from_utf8_lossy(&group.path).into_owned();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        group
            .limits
            .iter()
            .map(|(file, value)| format!("{path}/{}={}", text(file), text(value)))
            .collect::<Vec<_>>()
    };
    setup.cgroups.iter().flat_map(of).collect()
}

fn limited(asked: &mut Asked) {
    asked.config.memory_mb = Some(64);
    asked.config.vcpus = Some(Cpus::from_milli(1500).unwrap());
    asked.config.pids = Some(16);
}

#[test]
fn limits_are_files_of_each_hierarchy_of_version_1() {
    let mut asked = root();
    limited(&mut asked);
    let below = |controller: &str| format!("/sys/fs/cgroup/{controller}/agentkernel/0123456789abcdef");
    let expected = [
        format!("{}/memory.limit_in_bytes=67108864", below("memory")),
        format!("{}/memory.memsw.limit_in_bytes=67108864", below("memory")),
        format!("{}/cpu.cfs_period_us=100000", below("cpu")),
        format!("{}/cpu.cfs_quota_us=150000", below("cpu")),
        format!("{}/pids.max=16", below("pids")),
    ];
    assert_eq!(limits(&asked.setup()), expected);
}

#[test]
fn limits_are_files_of_one_group_of_version_2() {
    let mut asked = Asked::of(machine(0, Cgroups::V2));
    limited(&mut asked);
    let group = "/sys/fs/cgroup/agentkernel/0123456789abcdef";
    let expected = ["memory.max=67108864", "memory.swap.max=0", "cpu.max=150000 100000", "pids.max=16"];
    assert_eq!(limits(&asked.setup()), expected.map(|limit| format!("{group}/{limit}")));
}

#[test]
fn processes_are_counted_by_user_where_there_are_no_groups() {
    let mut asked = ordinary();
    asked.config.pids = Some(16);
    let setup = asked.setup();
    assert_eq!((setup.processes, setup.cgroups.len()), (Some(16), 0));
}

#[test]
fn what_may_go_unenforced_and_does_is_not_planned() {
    let mut asked = root();
    asked.config.pids = Some(16);
    asked.config.allow_weaker = vec![Capability::PidsLimit];
    asked.capabilities = UPPER_BOUND.without(Capability::PidsLimit);
    assert_eq!((limits(&asked.setup()), asked.setup().processes), (Vec::new(), None));
}

#[test]
fn only_an_owned_sandbox_is_removed_by_its_helper() {
    let mut asked = root();
    assert_eq!(asked.setup().remove, [b"/run/demo".to_vec(), b"/state/demo".to_vec()]);
    asked.config.lifetime = Lifetime::Detached;
    assert!(asked.setup().remove.is_empty());
}

#[test]
fn commands_of_an_ordinary_caller_have_no_capability_and_no_guest_has() {
    let asked = ordinary();
    let (setup, commands) = (asked.setup(), asked.with(|parts| parts.commands()));
    assert_eq!((setup.capabilities, commands.capabilities, commands.own_user), (0, 0, false));
    assert_eq!(commands.user.as_deref(), Some("1000:1000"));
}
