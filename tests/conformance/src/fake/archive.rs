//! Trees as tar streams, out and in; what comes in is hostile.
use std::{
    collections::BTreeMap,
    io::{Cursor, Read},
};

use agentkernel_core::{Error, ErrorKind};
use tar::{Archive, Builder, EntryType, Header};

use super::tree::{Errno, Follow, Id, Kind, Person, Tree};

/// Packs what is at the path, names relative to its parent.
pub(super) fn pack(tree: &Tree, path: &[u8]) -> Result<Vec<u8>, Error> {
    let operation = "pack files";
    let id = tree.find(path, Follow::No).map_err(|errno| errno.error(operation, path))?;
    let name = path.rsplit(|byte| *byte == b'/').next().filter(|name| !name.is_empty()).unwrap_or(b".");
    let mut builder = Builder::new(Vec::new());
    add(tree, &mut builder, name, id)
        .map_err(|error| Error::unexpected(operation, "packing failed", error))?;
    builder.into_inner().map_err(|error| Error::unexpected(operation, "packing failed", error))
}

fn add(tree: &Tree, builder: &mut Builder<Vec<u8>>, name: &[u8], id: Id) -> std::io::Result<()> {
    let broken = |errno: Errno| std::io::Error::other(errno.text());
    let inode = tree.get(id).map_err(broken)?;
    let mut header = Header::new_ustar();
    header.set_mode(inode.mode);
    header.set_uid(inode.owner.uid.into());
    header.set_gid(inode.owner.gid.into());
    header.set_mtime(u64::try_from(inode.modified).unwrap_or(0));
    header.set_size(0);
    let (entry_type, target, content) = match &inode.kind {
        Kind::File(content) => (EntryType::Regular, &[][..], content.as_slice()),
        Kind::Directory(_) => (EntryType::Directory, &[][..], &[][..]),
        Kind::Link(target) => (EntryType::Symlink, target.as_slice(), &[][..]),
        Kind::Fifo | Kind::Null | Kind::Zero => (EntryType::Fifo, &[][..], &[][..]),
    };
    header.set_entry_type(entry_type);
    header.set_size(content.len() as u64);
    let long = [("path", name), ("linkpath", target)].into_iter().filter(|(_, text)| text.len() > 99);
    let long = long.collect::<Vec<_>>();
    if !long.is_empty() {
        builder.append_pax_extensions(long)?;
    }
    let old = header.as_old_mut();
    old.name[..name.len().min(99)].copy_from_slice(&name[..name.len().min(99)]);
    old.linkname[..target.len().min(99)].copy_from_slice(&target[..target.len().min(99)]);
    header.set_cksum();
    builder.append(&header, content)?;
    if let Kind::Directory(entries) = &inode.kind {
        for (below, id) in entries {
            add(tree, builder, &[name, b"/", below].concat(), *id)?;
        }
    }
    Ok(())
}

/// Unpacks below the directory, which is made if missing.
pub(super) fn unpack(
    tree: &mut Tree,
    directory: &[u8],
    archive: &[u8],
    person: Person,
    lax: bool,
) -> Result<(), Error> {
    let operation = "unpack files";
    let broken = |error| Error::unexpected(operation, "the archive is broken", error);
    let at = |errno: Errno| errno.error(operation, directory);
    tree.make_directories(directory, person).map_err(at)?;
    let mut archive = Archive::new(Cursor::new(archive));
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let name = entry.path_bytes().into_owned();
        let parts = name.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
        let parts = parts.collect::<Vec<_>>();
        let outside = name.first() == Some(&b'/') || parts.contains(&b"..".as_slice());
        let path = if lax && name.first() == Some(&b'/') {
            name.clone()
        } else {
            [directory, b"/", &parts.join(&b'/')].concat()
        };
        if !lax && (outside || through_link(tree, directory, &parts)) {
            return Err(Error::new(ErrorKind::InvalidConfig, operation, "a name leads out of the directory")
                .with_context("name", String::from_utf8_lossy(&name)));
        }
        if let Some(end) = path.iter().rposition(|byte| *byte == b'/') {
            tree.make_directories(&path[..end], person).map_err(at)?;
        }
        let mode = entry.header().mode().unwrap_or(0o644) & 0o777;
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => {
                let mut content = Vec::new();
                entry.read_to_end(&mut content).map_err(broken)?;
                if content.len() as u64 != entry.header().size().unwrap_or(0) {
                    return Err(Error::new(ErrorKind::InvalidConfig, operation, "the archive is cut"));
                }
                tree.replace(&path, content, Some(mode), person).map_err(at)?;
            }
            EntryType::Directory if parts.is_empty() => {}
            EntryType::Directory => match tree.make(&path, Kind::Directory(BTreeMap::new()), mode, person) {
                Ok(_) | Err(Errno::Exists) => {}
                Err(errno) => return Err(at(errno)),
            },
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                let _replaced = tree.remove(&path, super::tree::All::No, person);
                tree.make(&path, Kind::Link(target), 0o777, person).map_err(at)?;
            }
            // Hard links, devices and FIFOs are left out.
            _ => {}
        }
    }
    Ok(())
}

/// Whether a directory on the way is a link.
fn through_link(tree: &Tree, directory: &[u8], parts: &[&[u8]]) -> bool {
    let mut path = directory.to_vec();
    parts.iter().take(parts.len().saturating_sub(1)).any(|part| {
        path.push(b'/');
        path.extend_from_slice(part);
        let found = tree.find(&path, Follow::No).and_then(|id| tree.get(id));
        found.is_ok_and(|inode| matches!(inode.kind, Kind::Link(_)))
    })
}
