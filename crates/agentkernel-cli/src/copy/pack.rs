//! Packs a directory of the host: ustar with pax headers, names relative to the directory.
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use agentkernel_core::{Error, Result};
use rustix::fs::OFlags;
use tar::{Builder, EntryType, Header};

use super::Skipped;

/// The longest name and the largest size that a ustar header holds by itself.
const NAME: usize = 100;
const SIZE: u64 = 0o77_777_777_777;

/// Packs all below `root`; links as links, and what is neither file, directory nor link is left out.
pub(crate) fn pack<W: Write>(root: &Path, out: W) -> Result<(W, Skipped)> {
    let (mut archive, mut skipped) = (Builder::new(out), Skipped::default());
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        let entries =
            fs::read_dir(root.join(&directory)).map_err(|error| failed(error, &root.join(&directory)))?;
        for entry in entries {
            let entry = entry.map_err(|error| failed(error, root))?;
            let path = directory.join(entry.file_name());
            append(&mut archive, &entry.path(), &path, &mut skipped)
                .map_err(|error| failed(error, &entry.path()))?;
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                directories.push(path);
            }
        }
    }
    let out = archive.into_inner().map_err(|error| failed(error, root))?;
    Ok((out, skipped))
}

fn append<W: Write>(
    archive: &mut Builder<W>,
    source: &Path,
    name: &Path,
    skipped: &mut Skipped,
) -> io::Result<()> {
    let metadata = fs::symlink_metadata(source)?;
    let mut header = Header::new_ustar();
    header.set_mode(metadata.mode() & 0o777);
    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    let name = name.as_os_str().as_bytes();
    if metadata.is_dir() {
        header.set_entry_type(EntryType::Directory);
        return entry(archive, header, name, None, io::empty());
    }
    if metadata.is_symlink() {
        header.set_entry_type(EntryType::Symlink);
        let target = fs::read_link(source)?;
        return entry(archive, header, name, Some(target.as_os_str().as_bytes()), io::empty());
    }
    if !metadata.is_file() {
        skipped.add(name, "neither file, directory nor link");
        return Ok(());
    }
    // Between the look and the open it may have become something else.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    let file: File = fs::OpenOptions::new().read(true).custom_flags(flags).open(source)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it changed while it was packed"));
    }
    header.set_entry_type(EntryType::Regular);
    header.set_size(metadata.len());
    // A file that grows or shrinks meanwhile must not break the archive.
    let content = file.take(metadata.len()).chain(io::repeat(0)).take(metadata.len());
    entry(archive, header, name, None, content)
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
    use std::os::unix::{fs::symlink, net::UnixListener};

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
}
