//! What a sandbox of the kernel's own means is made of: the plan that the host hands to its helper, as bounded bytes.
//!
//! The helper is this crate's program, started as `agentkernel-guest sandbox` with one end of a socket as its stdin.
//! The plan comes first on that socket; afterwards the socket is the boot connection.
use crate::protocol::{DecodeError, Decoder, Encoder, MAX_PATH};

/// What the socket begins with: nothing is set up for whoever does not know it.
pub const MAGIC: &[u8; 16] = b"agentkernel-lx1\n";
/// How many bytes come before the plan itself: [`MAGIC`] and its length.
pub const HEADER: usize = MAGIC.len() + 4;
/// The longest plan, in bytes.
pub const MAX_SETUP: usize = 1 << 20;
/// The most mounts, files of a control group and paths of one plan.
const MOST: usize = 4096;

/// The whole plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Setup {
    /// The host name inside.
    pub hostname: Vec<u8>,
    /// How user and group ids inside are those of the host.
    pub uids: IdMap,
    /// See [`uids`](Self::uids).
    pub gids: IdMap,
    /// Whether the caller is root: then the host's side opens what is shown, and none of its ids is the caller's.
    pub shifted: bool,
    /// Whether commands have the host's own network.
    pub host_network: bool,
    /// What the root is.
    pub root: Root,
    /// Whether the root is made read-only at last.
    pub read_only: bool,
    /// What is shown, in this order.
    pub mounts: Vec<MountPlan>,
    /// Directories that are made in the root before anything is shown: path and permission bits.
    pub directories: Vec<(Vec<u8>, u32)>,
    /// Links that are made in the root: path and what it names.
    pub links: Vec<(Vec<u8>, Vec<u8>)>,
    /// Owner inside of [`directories`](Self::directories) that everybody's are not.
    pub owner: (u32, u32),
    /// Most open files of a process.
    pub open_files: Option<u64>,
    /// Most processes, where no control group counts them.
    pub processes: Option<u64>,
    /// Whether system calls are filtered.
    pub filter: bool,
    /// The capabilities that init keeps within the sandbox.
    pub capabilities: u64,
    /// Whether nothing inside can gain privileges.
    pub no_new_privileges: bool,
    /// The control groups.
    pub cgroups: Vec<CgroupPlan>,
    /// Held by the helper for as long as the sandbox runs.
    pub lock: Vec<u8>,
    /// Where the exit code is written, if anywhere.
    pub exit: Option<Vec<u8>>,
    /// What is removed after the end.
    pub remove: Vec<Vec<u8>>,
}

/// A range of ids: `count` of them, from `inside` on, are those of the host from `outside` on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IdMap {
    /// First id inside.
    pub inside: u32,
    /// First id outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// The root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// An empty one in memory, of so many bytes.
    Memory(u64),
    /// A directory that stays as it is, under a directory that takes the changes; `work` is the kernel's.
    Overlay {
        /// The image.
        lower: Vec<u8>,
        /// The directory that holds `upper` and `work`.
        changes: Vec<u8>,
    },
}

impl Default for Root {
    fn default() -> Self {
        Self::Memory(1 << 20)
    }
}

/// Something shown inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPlan {
    /// What.
    pub source: MountSource,
    /// Where; made if it is missing.
    pub target: Vec<u8>,
    /// Whether writing is refused.
    pub read_only: bool,
}

/// What is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSource {
    /// A path of the host, which must be the same file as when the plan was made.
    Path {
        /// Where it is, without links.
        path: Vec<u8>,
        /// Its device.
        device: u64,
        /// Its inode.
        inode: u64,
        /// On-disk ids and the ids of the host that they are shown as.
        owner: Option<OwnerMap>,
    },
    /// One of the machine's own directories; nothing if it is missing, a link if it is one.
    System(Vec<u8>),
    /// Memory of so many bytes, with permission bits.
    Memory(u64, u32),
}

/// Whose files a mount shows as whose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnerMap {
    /// Uid on disk.
    pub uid: u32,
    /// Gid on disk.
    pub gid: u32,
    /// Uid of the host that it is shown as.
    pub as_uid: u32,
    /// Gid of the host that it is shown as.
    pub as_gid: u32,
}

/// A control group: made, given its limits, joined, shown read-only, and removed at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupPlan {
    /// Its directory.
    pub path: Vec<u8>,
    /// File names and what is written to them.
    pub limits: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where it is shown inside.
    pub shown: Vec<u8>,
}

impl IdMap {
    fn encode(self, to: &mut Encoder) {
        to.u32(self.inside).u32(self.outside).u32(self.count);
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { inside: from.u32()?, outside: from.u32()?, count: from.u32()? })
    }
}

impl Setup {
    /// Writes it, with what the socket begins with.
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Encoder::new();
        to.bytes(&self.hostname);
        self.uids.encode(&mut to);
        self.gids.encode(&mut to);
        to.flag(self.shifted).flag(self.host_network);
        match &self.root {
            Root::Memory(size) => to.u8(0).u64(*size),
            Root::Overlay { lower, changes } => to.u8(1).bytes(lower).bytes(changes),
        };
        to.flag(self.read_only);
        to.u32(count(&self.mounts));
        for mount in &self.mounts {
            match &mount.source {
                MountSource::Path { path, device, inode, owner } => {
                    to.u8(0).bytes(path).u64(*device).u64(*inode);
                    to.option(owner.as_ref(), |to, it| {
                        to.u32(it.uid).u32(it.gid).u32(it.as_uid).u32(it.as_gid);
                    });
                }
                MountSource::System(path) => {
                    to.u8(1).bytes(path);
                }
                MountSource::Memory(size, mode) => {
                    to.u8(2).u64(*size).u32(*mode);
                }
            }
            to.bytes(&mount.target).flag(mount.read_only);
        }
        to.u32(count(&self.directories));
        for (path, mode) in &self.directories {
            to.bytes(path).u32(*mode);
        }
        pairs(&mut to, &self.links);
        to.u32(self.owner.0).u32(self.owner.1);
        to.option(self.open_files, |to, it| {
            to.u64(it);
        });
        to.option(self.processes, |to, it| {
            to.u64(it);
        });
        to.flag(self.filter).u64(self.capabilities).flag(self.no_new_privileges);
        to.u32(count(&self.cgroups));
        for cgroup in &self.cgroups {
            to.bytes(&cgroup.path);
            pairs(&mut to, &cgroup.limits);
            to.bytes(&cgroup.shown);
        }
        to.bytes(&self.lock);
        to.option(self.exit.as_ref(), |to, it| {
            to.bytes(it);
        });
        to.list(&self.remove);
        let payload = to.finish();
        let mut whole = MAGIC.to_vec();
        whole.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
        whole.extend(payload);
        whole
    }

    /// Reads it, without what the socket begins with.
    ///
    /// # Errors
    /// Whatever is not exactly a plan.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Decoder::new(payload);
        let hostname = text(&mut from)?;
        let (uids, gids) = (IdMap::decode(&mut from)?, IdMap::decode(&mut from)?);
        let (shifted, host_network) = (from.flag()?, from.flag()?);
        let root = match from.u8()? {
            0 => Root::Memory(from.u64()?),
            1 => Root::Overlay { lower: text(&mut from)?, changes: text(&mut from)? },
            _ => return Err(DecodeError("there is no such root")),
        };
        let read_only = from.flag()?;
        let mounts = many(&mut from, |from| {
            let source = match from.u8()? {
                0 => MountSource::Path {
                    path: text(from)?,
                    device: from.u64()?,
                    inode: from.u64()?,
                    owner: from.option(|from| {
                        let (uid, gid) = (from.u32()?, from.u32()?);
                        Ok(OwnerMap { uid, gid, as_uid: from.u32()?, as_gid: from.u32()? })
                    })?,
                },
                1 => MountSource::System(text(from)?),
                2 => MountSource::Memory(from.u64()?, from.u32()?),
                _ => return Err(DecodeError("there is no such mount")),
            };
            Ok(MountPlan { source, target: text(from)?, read_only: from.flag()? })
        })?;
        let directories = many(&mut from, |from| Ok((text(from)?, from.u32()?)))?;
        let links = many(&mut from, |from| Ok((text(from)?, text(from)?)))?;
        let owner = (from.u32()?, from.u32()?);
        let open_files = from.option(Decoder::u64)?;
        let processes = from.option(Decoder::u64)?;
        let (filter, capabilities, no_new_privileges) = (from.flag()?, from.u64()?, from.flag()?);
        let cgroups = many(&mut from, |from| {
            let path = text(from)?;
            let limits = many(from, |from| Ok((text(from)?, text(from)?)))?;
            Ok(CgroupPlan { path, limits, shown: text(from)? })
        })?;
        let lock = text(&mut from)?;
        let exit = from.option(text)?;
        let remove = from.list(MOST, MAX_PATH)?;
        from.end()?;
        Ok(Self {
            hostname,
            uids,
            gids,
            shifted,
            host_network,
            root,
            read_only,
            mounts,
            directories,
            links,
            owner,
            open_files,
            processes,
            filter,
            capabilities,
            no_new_privileges,
            cgroups,
            lock,
            exit,
            remove,
        })
    }
}

fn count<T>(items: &[T]) -> u32 {
    u32::try_from(items.len()).unwrap_or(u32::MAX)
}

fn pairs(to: &mut Encoder, pairs: &[(Vec<u8>, Vec<u8>)]) {
    to.u32(count(pairs));
    for (first, second) in pairs {
        to.bytes(first).bytes(second);
    }
}

fn text(from: &mut Decoder<'_>) -> Result<Vec<u8>, DecodeError> {
    let text = from.bytes(MAX_PATH)?;
    if text.contains(&0) { Err(DecodeError("a string has a NUL")) } else { Ok(text.to_vec()) }
}

fn many<'a, T>(
    from: &mut Decoder<'a>,
    one: impl Fn(&mut Decoder<'a>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = from.u32()? as usize;
    if count > MOST {
        return Err(DecodeError("a list is too long"));
    }
    // Grown as it is read: what is only claimed to come costs nothing.
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(one(from)?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn everything() -> Setup {
        let path = |path: &str| path.as_bytes().to_vec();
        let owner = Some(OwnerMap { uid: 1, gid: 2, as_uid: 3, as_gid: 4 });
        let source = MountSource::Path { path: path("/a"), device: 1, inode: 2, owner };
        let mount = |source| MountPlan { source, target: path("/b"), read_only: true };
        Setup {
            hostname: path("demo"),
            uids: IdMap { inside: 0, outside: 7, count: 9 },
            root: Root::Overlay { lower: path("/l"), changes: path("/c") },
            mounts: vec![
                mount(source),
                mount(MountSource::System(path("/usr"))),
                mount(MountSource::Memory(5, 0o755)),
            ],
            directories: vec![(path("/tmp"), 0o1777)],
            links: vec![(path("/bin"), path("usr/bin"))],
            open_files: Some(64),
            cgroups: vec![CgroupPlan {
                path: path("/g"),
                limits: vec![(path("pids.max"), path("3"))],
                shown: path("/s"),
            }],
            exit: Some(path("/e")),
            remove: vec![path("/r")],
            ..Setup::default()
        }
    }

    #[test]
    fn a_plan_reads_back() {
        let bytes = everything().encode();
        assert_eq!(&bytes[..16], MAGIC);
        assert_eq!(Setup::decode(&bytes[20..]).unwrap(), everything());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(payload: Vec<u8>) {
            let _setup = Setup::decode(&payload);
        }

        #[test]
        fn a_cut_plan_is_refused(at in 0usize..100) {
            let bytes = everything().encode();
            let at = 20 + at % (bytes.len() - 20);
            prop_assert!(Setup::decode(&bytes[20..at]).is_err());
        }
    }
}
