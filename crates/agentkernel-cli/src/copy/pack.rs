//! Packs a directory of the host: ustar with pax headers, names relative to the directory.
use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use agentkernel_core::{Error, Result};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fstat, openat, readlinkat, statat};
use tar::{Builder, EntryType, Header};

use super::Skipped;

/// The longest name and the largest size that a ustar header holds by itself.
const NAME: usize = 100;
const SIZE: u64 = 0o77_777_777_777;

/// Packs all below `root`; links as links, and what is neither file, directory nor link is left out. Others may change
/// the tree meanwhile, from inside a sandbox even: nothing below `root` is reached through a link.
pub(crate) fn pack<W: Write>(root: &Path, out: W) -> Result<(W, Skipped)> {
    let (mut archive, mut skipped) = (Builder::new(out), Skipped::default());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = openat(CWD, root, flags, Mode::empty()).map_err(|error| failed(error.into(), root))?;
    let mut directories = vec![PathBuf::new()];
    while let Some(below) = directories.pop() {
        let at = |error: rustix::io::Errno| failed(error.into(), &root.join(&below));
        let directory = walk(&top, &below).map_err(at)?;
        for entry in Dir::read_from(&directory).map_err(at)? {
            let entry = entry.map_err(at)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let path = below.join(name);
            let kind = append(&mut archive, &directory, name, &path, &mut skipped)
                .map_err(|error| failed(error, &root.join(&path)))?;
            if kind == FileType::Directory {
                directories.push(path);
            }
        }
    }
    let out = archive.into_inner().map_err(|error| failed(error, root))?;
    Ok((out, skipped))
}

/// Opens a directory below another, step by step.
fn walk(top: &OwnedFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = openat(top, ".", flags, Mode::empty())?;
    path.iter().try_fold(top, |parent, step| openat(&parent, step, flags, Mode::empty()))
}

/// Appends what is in the directory under `source` and returns what that is.
fn append<W: Write>(
    archive: &mut Builder<W>,
    directory: impl AsFd,
    source: &OsStr,
    path: &Path,
    skipped: &mut Skipped,
) -> io::Result<FileType> {
    let stat = statat(&directory, source, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let mut header = Header::new_ustar();
    header.set_mode((stat.st_mode & 0o777) as _);
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    let name = path.as_os_str().as_bytes();
    match kind {
        FileType::Directory => {
            header.set_entry_type(EntryType::Directory);
            entry(archive, header, name, None, io::empty())?;
        }
        FileType::Symlink => {
            header.set_entry_type(EntryType::Symlink);
            let target = readlinkat(&directory, source, Vec::new())?;
            entry(archive, header, name, Some(target.to_bytes()), io::empty())?;
        }
        FileType::RegularFile => {
            // Between the look and the open it may have become something else.
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = openat(&directory, source, flags, Mode::empty())?;
            let stat = fstat(&file)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                return Err(io::Error::other("it changed while it was packed"));
            }
            let size = u64::try_from(stat.st_size).unwrap_or(0);
            header.set_entry_type(EntryType::Regular);
            header.set_size(size);
            // A file that grows or shrinks meanwhile must not break the archive.
            let content = File::from(file).take(size).chain(io::repeat(0)).take(size);
            entry(archive, header, name, None, content)?;
        }
        _ => skipped.add(name, "neither file, directory nor link"),
    }
    Ok(kind)
}

/// Appends an entry; what does not fit its header goes into a pax header before it.
fn entry<W: Write>(
    archive: &mut Builder<W>,
    mut header: Header,
    name: &[u8],
    link: Option<&[u8]>,
    content: impl Read,
) -> io::Result<()> {
    let size = header.size()?;
    let decimal = size.to_string();
    let mut pax = Vec::new();
    if name.len() > NAME {
        pax.push(("path", name));
    }
    if let Some(link) = link.filter(|link| link.len() > NAME) {
        pax.push(("linkpath", link));
    }
    if size > SIZE {
        pax.push(("size", decimal.as_bytes()));
    }
    if !pax.is_empty() {
        archive.append_pax_extensions(pax)?;
    }
    let fit = |bytes: &[u8], field: &mut [u8; NAME]| {
        let length = bytes.len().min(NAME);
        field[..length].copy_from_slice(&bytes[..length]);
    };
    fit(name, &mut header.as_old_mut().name);
    fit(link.unwrap_or_default(), &mut header.as_old_mut().linkname);
    header.set_cksum();
    archive.append(&header, content)
}

fn failed(error: io::Error, path: &Path) -> Error {
    Error::unexpected("pack tree", "the host's files cannot be read", error)
        .with_context("path", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        os::unix::{fs::symlink, net::UnixListener},
    };

    #[test]
    fn long_names_links_and_bytes_arrive_and_sockets_are_left_out() {
        let directory = tempfile::TempDir::new().unwrap();
        let at = |name: &str| directory.path().join(name);
        let long = "n".repeat(150);
        fs::write(at(&long), "content").unwrap();
        fs::create_dir(at("d")).unwrap();
        symlink("l".repeat(150), at("d/link")).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        let (archive, skipped) = pack(directory.path(), Vec::new()).unwrap();
        let mut archive = tar::Archive::new(archive.as_slice());
        let mut entries = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let link = entry.link_name_bytes().map(|link| link.len());
                (String::from_utf8(entry.path_bytes().into_owned()).unwrap(), entry.size(), link)
            })
            .collect::<Vec<_>>();
        entries.sort();
        assert_eq!(entries, [("d".into(), 0, None), ("d/link".into(), 0, Some(150)), (long, 7, None)]);
        assert_eq!(skipped.named.len(), 1);
    }

    #[test]
    fn a_directory_that_becomes_a_link_does_not_lead_out() {
        let outer = tempfile::TempDir::new().unwrap();
        let (tree, outside) = (outer.path().join("tree"), outer.path().join("outside"));
        fs::create_dir_all(tree.join("way/below")).unwrap();
        fs::create_dir_all(outside.join("below")).unwrap();
        for secret in ["secret", "below/secret"] {
            fs::write(outside.join(secret), "x").unwrap();
        }
        let packed = crate::copy::swapping::while_swapped(&tree, &outside, || {
            // What changed under its hands may end it.
            pack(&tree, Vec::new()).map_or_else(|_| Vec::new(), |(archive, _)| archive)
        });
        for archive in packed {
            for entry in tar::Archive::new(archive.as_slice()).entries().unwrap() {
                let entry = entry.unwrap();
                let name = entry.path_bytes().into_owned();
                assert!(!name.ends_with(b"secret"), "{}", String::from_utf8_lossy(&name));
            }
        }
    }
}
