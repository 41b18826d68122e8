//! `copy` and `export` (reference 1.6): on the root filesystem from outside, so that mounts are not seen.
#![expect(clippy::print_stdout, reason = "a command prints")]

use std::{
    fs::{self, File},
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::call::{
    Host,
    control::Version,
    failure::{Outcome, failed, gap},
    grammar::Call,
};

enum Side {
    Local(PathBuf),
    Inside { id: String, path: String },
}

fn side(text: &str) -> Outcome<Side> {
    match text.split(':').collect::<Vec<_>>().as_slice() {
        [path] => Ok(Side::Local(std::env::current_dir()?.join(path.trim_end_matches('/')))),
        [id, path] if !id.is_empty() && path.starts_with('/') => {
            Ok(Side::Inside { id: (*id).to_owned(), path: (*path).to_owned() })
        }
        _ => failed(format!("invalid path given: {text}")),
    }
}

/// The tree of a running container.
fn tree(host: &Host, id: &str, direction: &str) -> Outcome<PathBuf> {
    if host.record(id)?.is_none() {
        return failed(format!("get failed: container {id} not found"));
    }
    if host.running(id)?.is_none() {
        return failed(format!(
            "failed to copy {direction} container {id} (cause: \"invalidState: \"container {id} is not running\"\")"
        ));
    }
    Ok(host.directory(id).join("rootfs"))
}

/// Below the tree, whatever `..` says.
fn below(tree: &Path, path: &str) -> PathBuf {
    let mut whole = tree.to_owned();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            if whole != tree {
                whole.pop();
            }
        } else {
            whole.push(part);
        }
    }
    whole
}

fn place(source: &Path, destination: PathBuf) -> Outcome<PathBuf> {
    if destination.is_dir() {
        return Ok(destination.join(source.file_name().unwrap_or_default()));
    }
    if let Some(parent) = destination.parent() {
        fs::create_dir_all(parent)?;
    }
    Ok(destination)
}

/// A single file gets 0644; a directory keeps what it has.
fn transfer(source: &Path, destination: &Path) -> Outcome<()> {
    if source.is_dir() {
        let status = Command::new("cp").arg("-a").arg(source).arg(destination).status()?;
        return if status.success() { Ok(()) } else { gap(format!("cp -a ended with {status}")) };
    }
    fs::copy(source, destination)?;
    Ok(fs::set_permissions(destination, fs::Permissions::from_mode(0o644))?)
}

pub(crate) fn copy(host: &Host, call: &Call) -> Outcome {
    let [source, destination] = call.positionals.as_slice() else { return gap("other than two paths") };
    match (side(source)?, side(destination)?) {
        (Side::Local(_), Side::Local(_)) => {
            failed("one of source or destination must be a container reference (container_id:path)")
        }
        (Side::Inside { .. }, Side::Inside { .. }) => failed("copying between containers is not supported"),
        (Side::Local(local), Side::Inside { id, path }) => {
            let tree = tree(host, &id, "into")?;
            if !local.exists() {
                return failed(format!("source path does not exist: {source}"));
            }
            if source.ends_with('/') && !local.is_dir() {
                return failed(format!("source path is not a directory: {source}"));
            }
            let inside = below(&tree, &path);
            if inside.is_file() && local.is_dir() {
                return failed(format!("cannot copy directory over existing file: {path}"));
            }
            let inside = place(&local, inside)?;
            transfer(&local, &inside)?;
            chown(&inside, Some(0), Some(0))?;
            if host.version() >= Version::V1_2 {
                let shown = inside.strip_prefix(&tree).unwrap_or(&inside);
                println!("{id}:/{}", shown.display());
            }
            Ok(0)
        }
        (Side::Inside { id, path }, Side::Local(local)) => {
            let inside = below(&tree(host, &id, "from")?, &path);
            // A missing source hangs and wedges the container (#1927).
            while !inside.exists() {
                std::thread::sleep(std::time::Duration::from_secs(3600));
            }
            let local = place(&inside, local)?;
            transfer(&inside, &local)?;
            if host.version() >= Version::V1_2 {
                println!("{}", local.display());
            }
            Ok(0)
        }
    }
}

pub(crate) fn export(host: &Host, call: &Call) -> Outcome {
    let id = call.first();
    if host.record(id)?.is_none() {
        return failed(format!("get failed: container {id} not found"));
    }
    let is_new = host.version() >= Version::V1_2;
    if !is_new && host.running(id)?.is_some() {
        return failed("failed to export container (cause: \"invalidState: \"container is not stopped\"\")");
    }
    let out = match call.get("--output") {
        Some(path) if !is_new && Path::new(path).exists() => {
            return failed(format!("failed to export container: file already exists at {path}"));
        }
        Some(path) => match File::create(path) {
            Ok(file) => Stdio::from(file),
            Err(error) => return failed(format!("failed to export container: {path}: {error}")),
        },
        None => Stdio::inherit(),
    };
    let rootfs = host.directory(id).join("rootfs");
    let status = Command::new("tar")
        .args(["--numeric-owner", "-cf", "-", "."])
        .current_dir(rootfs)
        .stdout(out)
        .status()?;
    if status.success() { Ok(0) } else { gap(format!("tar ended with {status}")) }
}
