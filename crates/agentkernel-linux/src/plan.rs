//! From what is asked for to what the helper makes: no I/O, so that a plan can be tested anywhere.
use std::{
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use agentkernel_core::{Capability, Lifetime, Network, SandboxSpec, User};
use agentkernel_host::setup::{CgroupPlan, IdMap, MountPlan, MountSource, OwnerMap, Root, Setup};

use crate::{
    host_image::{Home, Place, SYSTEM},
    machine::{Cgroups, Machine},
    state::Commands,
};

/// Where the ids of a sandbox of root's begin outside: above what systemd gives to containers and users.
pub(crate) const BASE: u32 = 0x7100_0000;
/// How many ids it has.
pub(crate) const COUNT: u32 = 1 << 16;
/// Who commands of the image `host` are, where the caller is root.
const USER: u32 = 1000;
/// The size of the root of `host`, in bytes.
const ROOT_SIZE: u64 = 1 << 30;
/// The size of what stays writable in a read-only root, in bytes.
const SCRATCH_SIZE: u64 = 64 << 20;
/// The capabilities that the guest needs to be a user of its own: KILL, SETGID, SETUID.
pub(crate) const GUEST: u64 = 0b1110_0000;
/// To narrow what set-user-id programs could gain.
const SETPCAP: u64 = 1 << 8;
const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// What a plan is made of.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub spec: &'a SandboxSpec,
    pub machine: &'a Machine,
    pub run_id: &'a str,
    pub name: &'a str,
    /// The sandbox's directory.
    pub state: &'a Path,
    /// The sandbox's directory of sockets.
    pub run: &'a Path,
    /// The image's root; `None` is `host`.
    pub image: Option<&'a Path>,
    pub home: &'a Home,
    /// The file that says who resolves names, where there is a network.
    pub resolver: Option<&'a Place>,
    /// The sources of the spec's mounts and volumes, in their order.
    pub mounts: &'a [Place],
    pub volumes: &'a [Place],
}

impl Parts<'_> {
    fn is_host(&self) -> bool {
        self.image.is_none()
    }

    /// Uid and gid of commands, as far as numbers say it.
    fn user(&self) -> (u32, u32) {
        let default = match (self.is_host(), self.machine.is_root()) {
            (true, true) => (USER, USER),
            (true, false) => (self.machine.uid, self.machine.gid),
            (false, _) => (0, 0),
        };
        let Some(user) = &self.spec.user else { return default };
        let mut parts = user.as_str().split(':').map(|part| part.parse::<u32>().ok());
        match (parts.next().flatten(), parts.next().flatten()) {
            (Some(uid), gid) => (uid, gid.unwrap_or(if uid == default.0 { default.1 } else { 0 })),
            (None, _) => default,
        }
    }

    fn strict(&self) -> bool {
        self.machine.is_root()
    }

    fn keep(&self) -> u64 {
        self.spec.cap_add.iter().fold(0, |mask, capability| mask | 1 << capability.number())
    }

    pub(crate) fn commands(&self) -> Commands {
        let (uid, gid) = self.user();
        let mut env = if self.is_host() { self.home.env() } else { Vec::new() };
        env.extend(self.spec.env.iter().map(|it| [it.name().as_bytes(), b"=", it.value()].concat()));
        let user = self.spec.user.as_ref().map(User::as_str).map(ToOwned::to_owned);
        Commands {
            user: Some(
                user.unwrap_or_else(|| if self.is_host() { format!("{uid}:{gid}") } else { "0".to_owned() }),
            ),
            cwd: self.spec.cwd.as_ref().map(|cwd| cwd.as_bytes().to_vec()).or_else(|| self.home_directory()),
            env,
            capabilities: self.keep(),
            no_new_privileges: self.spec.no_new_privileges,
            own_user: self.strict(),
        }
    }

    /// Where commands of `host` begin.
    fn home_directory(&self) -> Option<Vec<u8>> {
        let home = self.home.path.as_ref().filter(|_| self.is_host())?;
        Some(bytes(home))
    }

    pub(crate) fn setup(&self) -> Setup {
        let map = |own: u32| match self.strict() {
            true => IdMap { inside: 0, outside: BASE, count: COUNT },
            false => IdMap { inside: if self.is_host() { own } else { 0 }, outside: own, count: 1 },
        };
        let root = match self.image {
            None => Root::Memory(ROOT_SIZE),
            Some(image) => Root::Overlay { lower: bytes(image), changes: bytes(&self.state.join("changes")) },
        };
        let mut capabilities = self.keep();
        if self.strict() {
            capabilities |= GUEST | if self.spec.no_new_privileges { 0 } else { SETPCAP };
        }
        let limited = |capability| !self.spec.is_weaker(capability);
        let pids = self.spec.pids.filter(|_| limited(Capability::PidsLimit));
        let owned = self.spec.lifetime == Lifetime::Owned;
        Setup {
            hostname: self.name.as_bytes().to_vec(),
            uids: map(self.machine.uid),
            gids: map(self.machine.gid),
            shifted: self.strict(),
            host_network: self.spec.network == Network::Full,
            root,
            read_only: self.spec.read_only,
            mounts: self.mounts(),
            directories: self.directories(),
            links: self.links(),
            owner: self.user(),
            open_files: Some(self.spec.open_files.unwrap_or(self.machine.open_files)),
            processes: pids.filter(|_| self.machine.cgroups == Cgroups::None).map(u64::from),
            filter: self.spec.syscall_filter,
            capabilities,
            no_new_privileges: self.spec.no_new_privileges,
            cgroups: self.cgroups(pids),
            lock: bytes(&self.state.join("lock")),
            exit: Some(bytes(&self.state.join("exit"))),
            remove: if owned { vec![bytes(self.run), bytes(self.state)] } else { Vec::new() },
        }
    }

    fn directories(&self) -> Vec<(Vec<u8>, u32)> {
        if !self.is_host() {
            return Vec::new();
        }
        let mut all =
            vec![(b"/tmp".to_vec(), 0o1777), (b"/var/tmp".to_vec(), 0o1777), (b"/run".to_vec(), 0o1777)];
        if let Some(home) = &self.home.path {
            all.push((bytes(home), 0o700));
            // What tools keep their own things in is the user's.
            let mut parents: Vec<&Path> = self
                .home
                .tools
                .iter()
                .filter_map(|(at, _)| at.parent())
                .flat_map(|parent| parent.ancestors().take_while(|above| *above != home.as_path()))
                .collect();
            parents.sort_unstable();
            parents.dedup();
            all.extend(parents.into_iter().map(|parent| (bytes(parent), 0o700)));
        }
        all
    }

    fn links(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        if !self.is_host() {
            return Vec::new();
        }
        vec![(b"/var/run".to_vec(), b"/run".to_vec())]
    }

    fn mounts(&self) -> Vec<MountPlan> {
        let mut all = Vec::new();
        if self.is_host() {
            all.extend(SYSTEM.iter().map(|at| MountPlan {
                source: MountSource::System(at.as_bytes().to_vec()),
                target: at.as_bytes().to_vec(),
                read_only: true,
            }));
        }
        if self.spec.read_only {
            let scratch = MountSource::Memory(SCRATCH_SIZE, 0o1777);
            let places: &[&str] =
                if self.is_host() { &["/tmp", "/run", "/var/tmp"] } else { &["/tmp", "/run"] };
            all.extend(places.iter().map(|at| MountPlan {
                source: scratch.clone(),
                target: at.as_bytes().to_vec(),
                read_only: false,
            }));
        }
        if self.is_host() {
            all.extend(self.home.tools.iter().map(|(at, place)| MountPlan {
                source: source(place, None),
                target: bytes(at),
                read_only: true,
            }));
        }
        if let Some(place) = self.resolver {
            let target = if self.is_host() { bytes(&place.path) } else { b"/etc/resolv.conf".to_vec() };
            // On `host` it is there with `/etc`, unless that has only a link to it.
            if !(self.is_host() && target.starts_with(b"/etc/")) {
                all.push(MountPlan { source: source(place, None), target, read_only: true });
            }
        }
        let asked = self.asked();
        all.retain(|mount| !asked.iter().any(|other| other.target == mount.target));
        all.extend(asked);
        all
    }

    /// What the caller wants shown, outer before inner.
    fn asked(&self) -> Vec<MountPlan> {
        let (uid, gid) = self.user();
        let owner = |place: &Place| {
            self.strict().then_some(OwnerMap {
                uid: place.uid,
                gid: place.gid,
                as_uid: BASE + uid.min(COUNT - 1),
                as_gid: BASE + gid.min(COUNT - 1),
            })
        };
        let mut asked = Vec::new();
        for (mount, place) in self.spec.mounts.iter().zip(self.mounts) {
            asked.push(MountPlan {
                source: source(place, owner(place)),
                target: mount.target.as_bytes().to_vec(),
                read_only: mount.read_only,
            });
        }
        for (volume, place) in self.spec.volumes.iter().zip(self.volumes) {
            asked.push(MountPlan {
                source: source(place, None),
                target: volume.target.as_bytes().to_vec(),
                read_only: volume.read_only,
            });
        }
        asked.extend(self.spec.tmpfs.iter().map(|tmpfs| MountPlan {
            source: MountSource::Memory(tmpfs.size_mb << 20, 0o1777),
            target: tmpfs.target.as_bytes().to_vec(),
            read_only: false,
        }));
        asked.sort_by_key(|mount| mount.target.split(|byte| *byte == b'/').count());
        asked
    }

    fn cgroups(&self, pids: Option<u32>) -> Vec<CgroupPlan> {
        let limited = |capability| !self.spec.is_weaker(capability);
        let memory = self.spec.memory_mb.filter(|_| limited(Capability::MemoryLimit)).map(|mb| mb << 20);
        let cpus = self.spec.vcpus.filter(|_| limited(Capability::CpuLimit)).map(|cpus| cpus.milli());
        if memory.is_none() && cpus.is_none() && pids.is_none() {
            return Vec::new();
        }
        let line = |file: &str, value: String| (file.as_bytes().to_vec(), value.into_bytes());
        let pids = pids.map(|pids| line("pids.max", pids.to_string()));
        match self.machine.cgroups {
            Cgroups::None => Vec::new(),
            Cgroups::V1 { swap } => {
                let group = |controller: &str, limits: Vec<_>| CgroupPlan {
                    path: bytes(&PathBuf::from(format!(
                        "{CGROUP_ROOT}/{controller}/agentkernel/{}",
                        self.run_id
                    ))),
                    limits,
                    shown: format!("{CGROUP_ROOT}/{controller}").into_bytes(),
                };
                let mut groups = Vec::new();
                if let Some(memory) = memory {
                    let mut limits = vec![line("memory.limit_in_bytes", memory.to_string())];
                    if swap {
                        limits.push(line("memory.memsw.limit_in_bytes", memory.to_string()));
                    }
                    groups.push(group("memory", limits));
                }
                if let Some(milli) = cpus {
                    let quota = u64::from(milli) * 100;
                    let limits = vec![
                        line("cpu.cfs_period_us", "100000".to_owned()),
                        line("cpu.cfs_quota_us", quota.to_string()),
                    ];
                    groups.push(group("cpu", limits));
                }
                if let Some(pids) = pids {
                    groups.push(group("pids", vec![pids]));
                }
                groups
            }
            Cgroups::V2 => {
                let mut limits = Vec::new();
                if let Some(memory) = memory {
                    limits.push(line("memory.max", memory.to_string()));
                    limits.push(line("memory.swap.max", "0".to_owned()));
                }
                limits
                    .extend(cpus.map(|milli| line("cpu.max", format!("{} 100000", u64::from(milli) * 100))));
                limits.extend(pids);
                vec![CgroupPlan {
                    path: format!("{CGROUP_ROOT}/agentkernel/{}", self.run_id).into_bytes(),
                    limits,
                    shown: CGROUP_ROOT.as_bytes().to_vec(),
                }]
            }
        }
    }
}

fn source(place: &Place, owner: Option<OwnerMap>) -> MountSource {
    MountSource::Path { path: bytes(&place.path), device: place.device, inode: place.inode, owner }
}

fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

#[cfg(test)]
mod tests;
