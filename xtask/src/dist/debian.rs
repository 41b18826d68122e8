//! The Debian package, built by dpkg-deb(1) of the same files below `/usr`.
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use super::{Tree, compress, files, mode};
use crate::process::{command, read, run};

/// Where what a Debian package says of itself is.
const DOC: &str = "usr/share/doc/agentkernel";

/// Returns who answers for the package.
pub(super) fn maintainer() -> Result<String> {
    match (std::env::var("DEBFULLNAME"), std::env::var("DEBEMAIL")) {
        (Ok(name), Ok(address)) => Ok(format!("{name} <{address}>")),
        _ => bail!("a Debian package has a maintainer: set DEBFULLNAME and DEBEMAIL"),
    }
}

pub(super) fn package(tree: &Tree, out: &Path, maintainer: &str) -> Result<PathBuf> {
    let machine = read(&mut command("dpkg", ["--print-architecture"])).context("dpkg is missing")?;
    let machine = machine.trim();
    let version = format!("{}-1", tree.version);
    let root = out.join("debian");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    copy(tree, &root.join("usr"))?;
    describe(tree, &root, maintainer, &version)?;
    let control = root.join("DEBIAN");
    fs::create_dir_all(&control)?;
    let size = files(&root)?.iter().map(|file| file.metadata().map_or(0, |data| data.len())).sum::<u64>();
    fs::write(
        control.join("control"),
        format!(
            "Package: agentkernel\n\
             Version: {version}\n\
             Architecture: {machine}\n\
             Maintainer: {maintainer}\n\
             Installed-Size: {}\n\
             Suggests: docker.io | podman\n\
             Section: admin\n\
             Priority: optional\n\
             Homepage: https://github.com/agentkernel/agentkernel\n\
             Description: run AI coding agents and untrusted commands in a sandbox\n \
             Runs any command isolated: without network, without capabilities and\n \
             without sight of the rest of the machine, unless that is asked for.\n \
             What is asked for is enforced or nothing starts; output, exit code and\n \
             signals are those of the command, and no sandbox outlives its owner.\n",
            size.div_ceil(1024)
        ),
    )?;
    let sums = read(command("md5sum", Vec::<PathBuf>::new()).current_dir(&root).args(below(&root)?))?;
    fs::write(control.join("md5sums"), sums)?;
    permit(&root, &root)?;
    let file = out.join(format!("agentkernel_{version}_{machine}.deb"));
    let time = tree.time.to_string();
    let mut build = command("dpkg-deb", ["--root-owner-group", "-Zxz", "--build"]);
    run(build.arg(&root).arg(&file).env("SOURCE_DATE_EPOCH", time))?;
    fs::remove_dir_all(&root)?;
    Ok(file)
}

/// Copies the tree, without what Debian has in its own form.
fn copy(tree: &Tree, usr: &Path) -> Result<()> {
    for file in files(&tree.root)? {
        let inside = file.strip_prefix(&tree.root)?;
        if inside
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("LICENSE-") || name == "CHANGELOG.md")
        {
            continue;
        }
        let to = usr.join(inside);
        fs::create_dir_all(to.parent().unwrap_or(usr))?;
        fs::copy(&file, &to)?;
    }
    Ok(())
}

/// Writes the copyright, the two changelogs, and why the programs are static.
fn describe(tree: &Tree, root: &Path, maintainer: &str, version: &str) -> Result<()> {
    let doc = root.join(DOC);
    fs::create_dir_all(&doc)?;
    let license = fs::read_to_string(tree.root.join("share/doc/agentkernel/LICENSE-MIT"))?;
    let paragraphs =
        license.lines().map(|line| if line.trim().is_empty() { " .".to_owned() } else { format!(" {line}") });
    let holder = license
        .lines()
        .find(|line| line.starts_with("Copyright"))
        .unwrap_or("Copyright the agentkernel authors");
    fs::write(
        doc.join("copyright"),
        format!(
            "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\
             Upstream-Name: agentkernel\n\
             Source: https://github.com/agentkernel/agentkernel\n\n\
             Files: *\n\
             Copyright: {}\n\
             License: MIT or Apache-2.0\n\n\
             License: MIT\n{}\n\n\
             License: Apache-2.0\n \
             On Debian systems the full text is in\n \
             /usr/share/common-licenses/Apache-2.0.\n",
            holder.trim_start_matches("Copyright").trim(),
            paragraphs.collect::<Vec<_>>().join("\n"),
        ),
    )?;
    compress(&fs::read(tree.root.join("share/doc/agentkernel/CHANGELOG.md"))?, &doc.join("changelog.gz"))?;
    let date = read(&mut command("date", ["--utc", "--rfc-email", "--date", &format!("@{}", tree.time)]))?;
    let entry = format!(
        "agentkernel ({version}) unstable; urgency=medium\n\n  * Made of the sources by `cargo xtask dist --deb`.\n\n -- {maintainer}  {date}"
    );
    compress(entry.as_bytes(), &doc.join("changelog.Debian.gz"))?;
    let overrides = root.join("usr/share/lintian/overrides");
    fs::create_dir_all(&overrides)?;
    fs::write(
        overrides.join("agentkernel"),
        "# One of them runs inside of sandboxes that may hold no library, and both start faster so.\n\
         agentkernel: statically-linked-binary\n\
         agentkernel: shared-library-lacks-prerequisites\n\
         # It is no package of the distribution, which has no number for it.\n\
         agentkernel: initial-upload-closes-no-bugs\n",
    )?;
    Ok(())
}

fn below(root: &Path) -> Result<Vec<PathBuf>> {
    let files = files(&root.join("usr"))?;
    files.iter().map(|file| Ok(file.strip_prefix(root)?.to_owned())).collect()
}

/// Whatever the umask was.
fn permit(directory: &Path, root: &Path) -> Result<()> {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            permit(&path, root)?;
        } else {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode(&root.join("usr"), &path)))?;
        }
    }
    Ok(())
}
