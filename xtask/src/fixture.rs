//! The images that the suites use, made from this machine's static busybox: no network is needed for them.
use std::fs;

use anyhow::{Context, Result};
use tar::{Builder, EntryType, Header};

use crate::process::{command, feed, read, run, say, succeeds};

/// Raised when what is in the images changes, so that old ones are built anew.
const RECIPE: u32 = 1;
/// What is built.
pub(crate) const IMAGES: [&str; 3] = ["agentkernel-test", "busybox", "agentkernel-empty"];
const BUSYBOX: &str = "/bin/busybox";
const LABEL: &str = "fixture";
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Builds in an engine what is missing or old: `agentkernel-test`, `busybox` (unless someone else's is there), `agentkernel-empty`.
pub(crate) fn build(engine: &str) -> Result<()> {
    let program = fs::read(BUSYBOX).with_context(|| format!("there is no {BUSYBOX}"))?;
    let version = format!("{RECIPE}-{}", program.len());
    if label(engine, "agentkernel-test").as_deref() != Some(&version) {
        import(
            engine,
            "agentkernel-test",
            &version,
            &[&format!("ENV {PATH}"), r#"CMD ["sh"]"#],
            busybox_root(&program)?,
        )?;
    }
    // A tag over a real busybox would take it away from whoever pulled it.
    if label(engine, "busybox").is_none_or(|old| !old.is_empty() && old != version) {
        run(&mut command(engine, ["tag", "agentkernel-test", "busybox"]))?;
    }
    if label(engine, "agentkernel-empty").as_deref() != Some(&version) {
        import(engine, "agentkernel-empty", &version, &[], Builder::new(Vec::new()).into_inner()?)?;
    }
    say(&format!("{engine}: fixture images are there: {}", IMAGES.join(", ")));
    Ok(())
}

/// Returns our label of an image, empty for an image of someone else's, `None` if there is no such image.
fn label(engine: &str, image: &str) -> Option<String> {
    if !succeeds(&mut command(engine, ["image", "inspect", image])) {
        return None;
    }
    let format = format!("{{{{index .Config.Labels \"{LABEL}\"}}}}");
    Some(
        read(&mut command(engine, ["image", "inspect", "--format", &format, image]))
            .unwrap_or_default()
            .trim()
            .to_owned(),
    )
}

fn import(engine: &str, name: &str, version: &str, changes: &[&str], archive: Vec<u8>) -> Result<()> {
    let label = format!("LABEL {LABEL}={version}");
    let mut args = vec!["import", "--change", &label];
    for change in changes {
        args.extend(["--change", change]);
    }
    args.extend(["-", name]);
    feed(&mut command(engine, args), archive).map(drop)
}

/// A root file system with busybox, its applets, root and an ordinary user.
fn busybox_root(program: &[u8]) -> Result<Vec<u8>> {
    let mut archive = Builder::new(Vec::new());
    for (path, mode) in [
        ("bin", 0o755),
        ("dev", 0o755),
        ("etc", 0o755),
        ("home", 0o755),
        ("proc", 0o555),
        ("root", 0o700),
        ("run", 0o755),
        ("sys", 0o555),
        ("tmp", 0o1777),
        ("usr", 0o755),
        ("var", 0o755),
        ("var/tmp", 0o1777),
    ] {
        append(&mut archive, path, EntryType::Directory, mode, 0, b"")?;
    }
    append(&mut archive, "home/user", EntryType::Directory, 0o755, 1000, b"")?;
    append(&mut archive, "bin/busybox", EntryType::Regular, 0o755, 0, program)?;
    for applet in read(&mut command(BUSYBOX, ["--list"]))?.lines().filter(|applet| *applet != "busybox") {
        let mut link = header(EntryType::Symlink, 0o777, 0);
        archive.append_link(&mut link, format!("bin/{applet}"), "busybox")?;
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n";
    let group = "root:x:0:\nuser:x:1000:\n";
    append(&mut archive, "etc/passwd", EntryType::Regular, 0o644, 0, passwd.as_bytes())?;
    append(&mut archive, "etc/group", EntryType::Regular, 0o644, 0, group.as_bytes())?;
    Ok(archive.into_inner()?)
}

fn header(kind: EntryType, mode: u32, owner: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(owner);
    header.set_gid(owner);
    header.set_mtime(0);
    header.set_size(0);
    header
}

fn append(
    archive: &mut Builder<Vec<u8>>,
    path: &str,
    kind: EntryType,
    mode: u32,
    owner: u64,
    content: &[u8],
) -> Result<()> {
    let mut header = header(kind, mode, owner);
    header.set_size(content.len() as u64);
    Ok(archive.append_data(&mut header, path, content)?)
}
