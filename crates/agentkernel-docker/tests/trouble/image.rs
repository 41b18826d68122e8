//! The image of these tests: this machine's static busybox and little else.
use tar::{Builder, EntryType, Header};

/// A name that is never pulled.
pub(crate) const NAME: &str = "agentkernel-trouble";

const APPLETS: [&str; 12] =
    ["cat", "dd", "echo", "ls", "rm", "seq", "sh", "sleep", "tail", "touch", "true", "yes"];

/// Returns the root file system as tar.
pub(crate) fn root() -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    for path in ["bin", "dev", "proc", "sys", "tmp"] {
        append(&mut archive, path, EntryType::Directory, &[]);
    }
    let program = std::fs::read("/bin/busybox").unwrap();
    append(&mut archive, "bin/busybox", EntryType::Regular, &program);
    for applet in APPLETS {
        archive.append_link(&mut header(EntryType::Symlink, 0), format!("bin/{applet}"), "busybox").unwrap();
    }
    archive.into_inner().unwrap()
}

/// Returns the root file system with a file of so many bytes that no disk of these tests has room for twice.
pub(crate) fn with_ballast(bytes: usize) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    append(&mut archive, "ballast", EntryType::Regular, &vec![b'x'; bytes]);
    archive.into_inner().unwrap()
}

fn append(archive: &mut Builder<Vec<u8>>, path: &str, kind: EntryType, content: &[u8]) {
    let mut header = header(kind, content.len());
    archive.append_data(&mut header, path, content).unwrap();
}

fn header(kind: EntryType, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size as u64);
    header
}
