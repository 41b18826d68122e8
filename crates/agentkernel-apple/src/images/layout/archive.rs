//! A tar that is read by the names of its entries.
use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom, Take},
};

use agentkernel_core::Result;
use serde::de::DeserializeOwned;

use super::{bad, unreadable};

/// The most entries that are remembered; a layout has one for each blob, and only a root file system has more.
const MAX_ENTRIES: usize = 10_000;
/// The longest JSON that is read.
const MAX_JSON: u64 = 16 << 20;
/// How many links may lead to a layer.
const MAX_LINKS: usize = 4;

/// Where an entry's content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub start: u64,
    pub length: u64,
}

#[derive(Debug)]
enum Entry {
    File(Part),
    Link(String),
}

/// An archive in a file.
#[derive(Debug)]
pub(crate) struct Archive {
    file: File,
    entries: HashMap<String, Entry>,
}

impl Archive {
    /// Reads where everything is.
    pub(crate) fn open(file: File) -> Result<Self> {
        let mut archive = Self { file, entries: HashMap::new() };
        archive.file.rewind().map_err(unreadable)?;
        let mut tar = tar::Archive::new(&archive.file);
        for entry in tar.entries_with_seek().map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            if archive.entries.len() >= MAX_ENTRIES {
                break;
            }
            let Ok(name) = String::from_utf8(entry.path_bytes().into_owned()) else { continue };
            let kind = entry.header().entry_type();
            let content = if kind.is_file() {
                Entry::File(Part { start: entry.raw_file_position(), length: entry.size() })
            } else if kind.is_symlink() || kind.is_hard_link() {
                let Some(Ok(target)) = entry.link_name_bytes().map(|it| String::from_utf8(it.into_owned()))
                else {
                    continue;
                };
                // A symbolic link counts from where it is, a hard one from the top.
                let base = if kind.is_symlink() { parent(&name) } else { "" };
                let Some(target) = joined(base, &target) else { continue };
                Entry::Link(target)
            } else {
                continue;
            };
            archive.entries.insert(name.trim_start_matches("./").to_owned(), content);
        }
        Ok(archive)
    }

    /// One whose content is all that counts.
    pub(crate) fn whole(file: File) -> io::Result<Self> {
        Ok(Self { file, entries: HashMap::new() })
    }

    pub(crate) fn into_file(self) -> File {
        self.file
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Finds a file, by links too.
    pub(crate) fn find(&self, name: &str) -> Option<Part> {
        let mut name = name;
        for _ in 0..MAX_LINKS {
            match self.entries.get(name)? {
                Entry::File(part) => return Some(*part),
                Entry::Link(target) => name = target,
            }
        }
        None
    }

    /// Returns all of the file.
    pub(crate) fn all(&mut self) -> io::Result<Part> {
        Ok(Part { start: 0, length: self.file.seek(SeekFrom::End(0))? })
    }

    pub(crate) fn read(&mut self, part: Part) -> io::Result<Take<&File>> {
        self.file.seek(SeekFrom::Start(part.start))?;
        Ok((&self.file).take(part.length))
    }

    /// Reads a small file whole.
    pub(crate) fn bytes(&mut self, name: &str) -> Result<Vec<u8>> {
        let missing = || bad("the archive lacks a part of its image", "save it anew");
        let part = self.find(name).ok_or_else(|| missing().with_context("part", name))?;
        if part.length > MAX_JSON {
            return Err(bad("the archive has a description that is too long", "save it anew"));
        }
        let mut bytes = Vec::new();
        self.read(part).and_then(|mut part| part.read_to_end(&mut bytes)).map_err(unreadable)?;
        Ok(bytes)
    }

    pub(crate) fn json<T: DeserializeOwned>(&mut self, name: &str) -> Result<T> {
        let bytes = self.bytes(name)?;
        serde_json::from_slice(&bytes).map_err(|source| {
            bad("the archive has a description that cannot be read", "save it anew")
                .with_context("part", name)
                .with_source(source)
        })
    }
}

fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// A path below the top of the archive; `None` for one that leads out of it.
fn joined(base: &str, target: &str) -> Option<String> {
    let mut parts = base.split('/').filter(|part| !part.is_empty() && *part != ".").collect::<Vec<_>>();
    for part in target.split('/').filter(|part| !part.is_empty() && *part != ".") {
        match part {
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}
