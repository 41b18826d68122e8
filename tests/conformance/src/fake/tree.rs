//! A file tree in memory: files, directories, links, FIFOs and devices, with owners, modes and a quota.
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use agentkernel_core::{Error, ErrorKind, FileType, Metadata};

/// Why a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Errno {
    NotFound,
    NotDirectory,
    IsDirectory,
    Exists,
    NotEmpty,
    Permission,
    ReadOnly,
    NoSpace,
    Loop,
    Special,
}

impl Errno {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::NotFound => "there is no such file or directory",
            Self::NotDirectory => "it is not a directory",
            Self::IsDirectory => "it is a directory",
            Self::Exists => "it exists already",
            Self::NotEmpty => "the directory is not empty",
            Self::Permission => "permission denied",
            Self::ReadOnly => "the file system is read-only",
            Self::NoSpace => "no space is left",
            Self::Loop => "too many links",
            Self::Special => "it is not a regular file",
        }
    }

    pub(super) fn error(self, operation: &'static str, path: &[u8]) -> Error {
        let kind = match self {
            Self::NotFound => ErrorKind::NotFound,
            Self::Exists => ErrorKind::AlreadyExists,
            Self::Permission | Self::ReadOnly => ErrorKind::PermissionDenied,
            Self::NoSpace => ErrorKind::ResourceExhausted,
            Self::NotDirectory | Self::IsDirectory | Self::NotEmpty | Self::Loop | Self::Special => {
                ErrorKind::Conflict
            }
        };
        Error::new(kind, operation, self.text()).with_context("path", String::from_utf8_lossy(path))
    }
}

/// Who does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Person {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

pub(super) const ROOT: Person = Person { uid: 0, gid: 0 };

/// What an inode is.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    File(Arc<Vec<u8>>),
    Directory(BTreeMap<Vec<u8>, Id>),
    Link(Vec<u8>),
    Fifo,
    Null,
    Zero,
}

/// The number of an inode.
pub(super) type Id = u64;

#[derive(Debug, Clone)]
pub(super) struct Inode {
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) owner: Person,
    pub(super) modified: i64,
    /// In memory: writable under a read-only root.
    memory: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Tree {
    inodes: HashMap<Id, Inode>,
    next: Id,
    used: u64,
    pub(super) quota: Option<u64>,
    /// Nothing grows any more, whatever the quota.
    pub(super) full: bool,
    pub(super) read_only: bool,
}

const TOP: Id = 1;
pub(super) const READ: u32 = 4;
pub(super) const WRITE: u32 = 2;

impl Tree {
    pub(super) fn new() -> Self {
        let mut tree =
            Self { inodes: HashMap::new(), next: TOP, used: 0, quota: None, full: false, read_only: false };
        tree.insert(Kind::Directory(BTreeMap::new()), 0o755, ROOT, false);
        tree
    }

    fn insert(&mut self, kind: Kind, mode: u32, owner: Person, memory: bool) -> Id {
        let id = self.next;
        self.next += 1;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let modified = i64::try_from(now).unwrap_or(i64::MAX);
        self.inodes.insert(id, Inode { kind, mode, owner, modified, memory });
        id
    }

    pub(super) fn get(&self, id: Id) -> Result<&Inode, Errno> {
        self.inodes.get(&id).ok_or(Errno::NotFound)
    }

    /// Makes everything below this directory writable under a read-only root.
    pub(super) fn set_memory(&mut self, id: Id) {
        if let Some(inode) = self.inodes.get_mut(&id) {
            inode.memory = true;
        }
    }

    pub(super) fn set_mode(&mut self, id: Id, mode: u32) {
        if let Some(inode) = self.inodes.get_mut(&id) {
            inode.mode = mode;
        }
    }

    pub(super) fn set_owner(&mut self, id: Id, owner: Person) {
        if let Some(inode) = self.inodes.get_mut(&id) {
            inode.owner = owner;
        }
    }

    fn directory(&self, id: Id) -> Result<&BTreeMap<Vec<u8>, Id>, Errno> {
        match &self.get(id)?.kind {
            Kind::Directory(entries) => Ok(entries),
            _ => Err(Errno::NotDirectory),
        }
    }

    /// Walks an absolute path. The last component is followed if it is a link and `follow` says so.
    pub(super) fn find(&self, path: &[u8], follow: Follow) -> Result<Id, Errno> {
        self.walk(path, follow, 0)
    }

    fn walk(&self, path: &[u8], follow: Follow, depth: u32) -> Result<Id, Errno> {
        if depth > 20 {
            return Err(Errno::Loop);
        }
        let mut way: Vec<Id> = vec![TOP];
        let mut names: Vec<&[u8]> = Vec::new();
        let parts = parts(path);
        for (index, part) in parts.iter().enumerate() {
            if *part == b".." {
                if way.len() > 1 {
                    way.pop();
                    names.pop();
                }
                continue;
            }
            let here = *way.last().unwrap_or(&TOP);
            let next = *self.directory(here)?.get(*part).ok_or(Errno::NotFound)?;
            let last = index + 1 == parts.len();
            if let Kind::Link(target) = &self.get(next)?.kind
                && (!last || follow == Follow::Yes)
            {
                let mut onward = if target.first() == Some(&b'/') { Vec::new() } else { join(&names) };
                onward.push(b'/');
                onward.extend_from_slice(target);
                onward.push(b'/');
                onward.extend_from_slice(&parts[index + 1..].join(&b'/'));
                return self.walk(&onward, follow, depth + 1);
            }
            way.push(next);
            names.push(part);
        }
        Ok(*way.last().unwrap_or(&TOP))
    }

    /// Returns the directory that a path's last component is in, and that component.
    fn parent<'a>(&self, path: &'a [u8]) -> Result<(Id, &'a [u8]), Errno> {
        let end = path.len() - path.iter().rev().take_while(|byte| **byte == b'/').count();
        let path = &path[..end];
        let at = path.iter().rposition(|byte| *byte == b'/').ok_or(Errno::Exists)?;
        let parent = self.find(&path[..at], Follow::Yes)?;
        self.directory(parent)?;
        Ok((parent, &path[at + 1..]))
    }

    pub(super) fn check(&self, id: Id, person: Person, wanted: u32) -> Result<(), Errno> {
        let inode = self.get(id)?;
        let shift = match () {
            () if person.uid == 0 => return self.check_read_only(inode, wanted),
            () if inode.owner.uid == person.uid => 6,
            () if inode.owner.gid == person.gid => 3,
            () => 0,
        };
        if inode.mode >> shift & wanted != wanted {
            return Err(Errno::Permission);
        }
        self.check_read_only(inode, wanted)
    }

    fn check_read_only(&self, inode: &Inode, wanted: u32) -> Result<(), Errno> {
        let refused = wanted & WRITE != 0 && self.read_only && !inode.memory;
        if refused && !matches!(inode.kind, Kind::Null | Kind::Zero) { Err(Errno::ReadOnly) } else { Ok(()) }
    }

    /// Puts something new into a directory.
    pub(super) fn make(&mut self, path: &[u8], kind: Kind, mode: u32, person: Person) -> Result<Id, Errno> {
        let (parent, name) = self.parent(path)?;
        if self.directory(parent)?.contains_key(name) {
            return Err(Errno::Exists);
        }
        self.check(parent, person, WRITE)?;
        let memory = self.get(parent)?.memory;
        let id = self.insert(kind, mode, person, memory);
        self.link(parent, name, id);
        Ok(id)
    }

    fn link(&mut self, parent: Id, name: &[u8], id: Id) {
        if let Some(Inode { kind: Kind::Directory(entries), .. }) = self.inodes.get_mut(&parent) {
            entries.insert(name.to_vec(), id);
        }
    }

    /// Puts a file with this content where the path is; what was there goes, a link is not followed.
    pub(super) fn replace(
        &mut self,
        path: &[u8],
        content: Vec<u8>,
        mode: Option<u32>,
        person: Person,
    ) -> Result<Id, Errno> {
        let (parent, name) = self.parent(path)?;
        let old = self.directory(parent)?.get(name).copied();
        let mut kept = None;
        if let Some(old) = old {
            let inode = self.get(old)?;
            match inode.kind {
                Kind::Directory(_) => return Err(Errno::IsDirectory),
                Kind::File(_) => kept = Some(inode.mode & 0o777),
                _ => {}
            }
        }
        self.check(parent, person, WRITE)?;
        self.take_space(content.len() as u64)?;
        let memory = self.get(parent)?.memory;
        let mode = mode.or(kept).unwrap_or(0o644);
        let id = self.insert(Kind::File(Arc::new(content)), mode, person, memory);
        if let Some(old) = old {
            self.forget(old);
        }
        self.link(parent, name, id);
        Ok(id)
    }

    fn take_space(&mut self, bytes: u64) -> Result<(), Errno> {
        let full = self.full && bytes > 0;
        if full || self.quota.is_some_and(|quota| self.used + bytes > quota) {
            return Err(Errno::NoSpace);
        }
        self.used += bytes;
        Ok(())
    }

    fn forget(&mut self, id: Id) {
        if let Some(Inode { kind: Kind::File(content), .. }) = self.inodes.remove(&id) {
            self.used = self.used.saturating_sub(content.len() as u64);
        }
    }

    /// Changes a file's content in place.
    pub(super) fn write_at(&mut self, id: Id, offset: Option<usize>, bytes: &[u8]) -> Result<usize, Errno> {
        let length = match &self.get(id)?.kind {
            Kind::File(content) => content.len(),
            _ => return Err(Errno::Special),
        };
        let offset = offset.unwrap_or(length);
        let end = offset + bytes.len();
        self.take_space(end.saturating_sub(length) as u64)?;
        if let Some(Inode { kind: Kind::File(content), .. }) = self.inodes.get_mut(&id) {
            let content = Arc::make_mut(content);
            content.resize(end.max(length), 0);
            content[offset..end].copy_from_slice(bytes);
        }
        Ok(end)
    }

    pub(super) fn truncate(&mut self, id: Id) {
        if let Some(Inode { kind: Kind::File(content), .. }) = self.inodes.get_mut(&id) {
            self.used = self.used.saturating_sub(content.len() as u64);
            *content = Arc::default();
        }
    }

    /// Returns a regular file's content.
    pub(super) fn content(&self, path: &[u8], person: Person) -> Result<Arc<Vec<u8>>, Errno> {
        let id = self.find(path, Follow::Yes)?;
        let content = match &self.get(id)?.kind {
            Kind::File(content) => Arc::clone(content),
            Kind::Directory(_) => return Err(Errno::IsDirectory),
            _ => return Err(Errno::Special),
        };
        self.check(id, person, READ)?;
        Ok(content)
    }

    /// Makes a directory and, if told so, those above it; then an existing one succeeds.
    pub(super) fn make_directories(&mut self, path: &[u8], person: Person) -> Result<(), Errno> {
        let mut at = Vec::new();
        for part in parts(path) {
            at.push(b'/');
            at.extend_from_slice(part);
            match self.find(&at, Follow::Yes) {
                Ok(id) => drop(self.directory(id)?),
                Err(Errno::NotFound) => {
                    self.make(&at, Kind::Directory(BTreeMap::new()), 0o755, person)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Removes what the path names, a link itself; a directory only if it is empty or `all` says so.
    pub(super) fn remove(&mut self, path: &[u8], all: All, person: Person) -> Result<(), Errno> {
        let (parent, name) = self.parent(path)?;
        let id = *self.directory(parent)?.get(name).ok_or(Errno::NotFound)?;
        self.check(parent, person, WRITE)?;
        if let Kind::Directory(entries) = &self.get(id)?.kind
            && all == All::No
            && !entries.is_empty()
        {
            return Err(Errno::NotEmpty);
        }
        self.forget_below(id);
        if let Some(Inode { kind: Kind::Directory(entries), .. }) = self.inodes.get_mut(&parent) {
            entries.remove(name);
        }
        Ok(())
    }

    fn forget_below(&mut self, id: Id) {
        if let Some(Inode { kind: Kind::Directory(entries), .. }) = self.inodes.get(&id) {
            entries.clone().into_values().for_each(|below| self.forget_below(below));
        }
        self.forget(id);
    }

    /// Moves a file over another.
    pub(super) fn rename(&mut self, from: &[u8], to: &[u8], person: Person) -> Result<(), Errno> {
        let (parent, name) = self.parent(from)?;
        let id = *self.directory(parent)?.get(name).ok_or(Errno::NotFound)?;
        let (target, new_name) = self.parent(to)?;
        self.check(parent, person, WRITE)?;
        self.check(target, person, WRITE)?;
        if let Some(Inode { kind: Kind::Directory(entries), .. }) = self.inodes.get_mut(&parent) {
            entries.remove(name);
        }
        if let Some(old) = self.directory(target)?.get(new_name).copied() {
            self.forget_below(old);
        }
        self.link(target, new_name, id);
        Ok(())
    }

    pub(super) fn metadata(&self, id: Id) -> Result<Metadata, Errno> {
        let inode = self.get(id)?;
        let size = match &inode.kind {
            Kind::File(content) => content.len() as u64,
            Kind::Link(target) => target.len() as u64,
            _ => 0,
        };
        Ok(Metadata {
            file_type: file_type(&inode.kind),
            size,
            mode: inode.mode,
            uid: inode.owner.uid,
            gid: inode.owner.gid,
            modified: inode.modified,
        })
    }

    /// Returns names and inodes of a directory.
    pub(super) fn entries(&self, id: Id) -> Result<Vec<(Vec<u8>, Id)>, Errno> {
        Ok(self.directory(id)?.iter().map(|(name, id)| (name.clone(), *id)).collect())
    }
}

/// Whether a link at the end of a path is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Follow {
    Yes,
    No,
}

/// Whether what is below goes too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum All {
    Yes,
    No,
}

pub(super) fn file_type(kind: &Kind) -> FileType {
    match kind {
        Kind::File(_) => FileType::File,
        Kind::Directory(_) => FileType::Directory,
        Kind::Link(_) => FileType::Symlink,
        Kind::Fifo | Kind::Null | Kind::Zero => FileType::Other,
    }
}

fn parts(path: &[u8]) -> Vec<&[u8]> {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect()
}

fn join(names: &[&[u8]]) -> Vec<u8> {
    names.iter().flat_map(|name| [b"/", *name].concat()).collect()
}

/// Returns a path as the process in this directory means it.
pub(super) fn absolute(directory: &[u8], path: &[u8]) -> Vec<u8> {
    if path.first() == Some(&b'/') { path.to_vec() } else { [directory, b"/", path].concat() }
}
