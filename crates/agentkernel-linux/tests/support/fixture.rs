//! The image of the tests: busybox, its applets, root and an ordinary user.
use std::process::Command;

use agentkernel_core::{Backend, ImageRef, Result};
use agentkernel_linux::LinuxConfig;

use crate::program;
use tar::{Builder, EntryType, Header};

/// Returns the configuration of the tests.
pub(crate) fn config() -> LinuxConfig {
    // Beside the user's own sandboxes and images, not among them.
    let data =
        std::env::temp_dir().join(format!("agentkernel-linux-test-{}", rustix::process::geteuid().as_raw()));
    LinuxConfig::default().with_guest(program::built().join("agentkernel-guest")).with_data(data)
}

/// Makes the image `agentkernel-test`.
pub(crate) async fn import(backend: &dyn Backend) -> Result<()> {
    let name: ImageRef = "agentkernel-test".parse()?;
    let images = backend.images().unwrap();
    if images.inspect(&name).await?.is_none() {
        images.import(&mut root().as_slice(), &name).await?;
    }
    Ok(())
}

fn root() -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    for (path, mode) in [
        ("bin", 0o755),
        ("etc", 0o755),
        ("home", 0o755),
        ("home/user", 0o777),
        ("root", 0o700),
        ("run", 0o755),
        ("tmp", 0o1777),
        ("usr", 0o755),
        ("var", 0o755),
        ("var/tmp", 0o1777),
    ] {
        append(&mut archive, path, EntryType::Directory, mode, b"");
    }
    let busybox = "/bin/busybox";
    let program = std::fs::read(busybox).expect("busybox-static is installed");
    append(&mut archive, "bin/busybox", EntryType::Regular, 0o755, &program);
    let applets = Command::new(busybox).arg("--list").output().unwrap().stdout;
    for applet in String::from_utf8(applets).unwrap().lines().filter(|applet| *applet != "busybox") {
        let mut link = header(EntryType::Symlink, 0o777);
        archive.append_link(&mut link, format!("bin/{applet}"), "busybox").unwrap();
    }
    let passwd = b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n";
    append(&mut archive, "etc/passwd", EntryType::Regular, 0o644, passwd);
    append(&mut archive, "etc/group", EntryType::Regular, 0o644, b"root:x:0:\nuser:x:1000:\n");
    archive.into_inner().unwrap()
}

fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header
}

fn append(archive: &mut Builder<Vec<u8>>, path: &str, kind: EntryType, mode: u32, content: &[u8]) {
    let mut header = header(kind, mode);
    header.set_size(content.len() as u64);
    archive.append_data(&mut header, path, content).unwrap();
}
