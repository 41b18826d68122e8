//! Files inside: one `container exec` each, around a fixed script. Nothing that it answers is believed.
mod archive;
mod fault;
mod give;
mod list;
mod read;
mod script;
mod take;
mod talk;

use std::sync::Arc;

use agentkernel_core::{
    Depth, Error, ErrorKind, FileType, Metadata, Reader, Result, SandboxPath, Source, WriteOptions,
};
pub(crate) use list::read_dir;
pub(crate) use read::open;

use crate::{argv, backend::Shared, info::Found};
use talk::Talk;

/// The container whose files they are.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    shared: Arc<Shared>,
    id: String,
}

impl Place {
    pub(crate) fn new(shared: &Arc<Shared>, found: &Found) -> Self {
        Self { shared: Arc::clone(shared), id: found.container.id.clone() }
    }
}

/// Tells what a path is.
pub(crate) async fn metadata(place: &Place, path: &SandboxPath) -> Result<Metadata> {
    let operation = "read metadata";
    let told = ask(place, operation, path, script::METADATA, &[&text(path)?]).await?;
    stat(&told).ok_or_else(|| fault::garbled(operation, path))
}

/// Reads type and mode as hexadecimal digits, size, owner, group and time.
fn stat(told: &str) -> Option<Metadata> {
    let mut words = told.split(' ');
    let mode = u32::from_str_radix(words.next()?, 16).ok()?;
    let file_type = match mode & 0o170_000 {
        0o100_000 => FileType::File,
        0o040_000 => FileType::Directory,
        0o120_000 => FileType::Symlink,
        _ => FileType::Other,
    };
    let size = words.next()?.parse().ok()?;
    let (uid, gid) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let modified = words.next()?.parse().ok()?;
    words.next().is_none().then_some(Metadata { file_type, size, mode: mode & 0o7777, uid, gid, modified })
}

/// Makes a directory.
pub(crate) async fn create_dir(place: &Place, path: &SandboxPath, depth: Depth) -> Result<()> {
    let arguments = [&*text(path)?, flag(depth == Depth::Recursive)];
    ask(place, "make directory", path, script::MAKE, &arguments).await.map(drop)
}

/// Removes a file, a link, a directory or a tree.
pub(crate) async fn remove_path(place: &Place, path: &SandboxPath, depth: Depth) -> Result<()> {
    let operation = "remove path";
    let (parent, name) = split(path)?;
    if name.is_empty() {
        return Err(Error::new(ErrorKind::Conflict, operation, "the root cannot be removed")
            .with_context("backend", "apple")
            .with_hint("remove the sandbox"));
    }
    let arguments = [parent.as_str(), &name, flag(depth == Depth::Recursive)];
    ask(place, operation, path, script::REMOVE, &arguments).await.map(drop)
}

/// Writes a file.
pub(crate) async fn write(
    place: &Place,
    path: &SandboxPath,
    options: &WriteOptions,
    content: Source<'_>,
) -> Result<()> {
    take::write(place, path, options, content).await
}

/// Unpacks a tree.
pub(crate) async fn unpack(place: &Place, path: &SandboxPath, tar: Source<'_>) -> Result<()> {
    take::unpack(place, path, tar).await
}

/// Packs a tree.
pub(crate) async fn pack(place: &Place, path: &SandboxPath) -> Result<Reader> {
    give::pack(place, path).await
}

/// Runs a script that only answers.
async fn ask(
    place: &Place,
    operation: &'static str,
    path: &SandboxPath,
    script: &'static str,
    arguments: &[&str],
) -> Result<String> {
    let mut talk = Talk::start(place, operation, path, script, arguments)?;
    let told = talk.begin().await?;
    talk.over();
    Ok(told)
}

fn text(path: &SandboxPath) -> Result<String> {
    argv::text(path.as_bytes(), "path")
}

fn flag(is_set: bool) -> &'static str {
    if is_set { "1" } else { "0" }
}

/// Cuts a path into the directory and the name, which is empty for the root.
fn split(path: &SandboxPath) -> Result<(String, String)> {
    let whole = text(path)?;
    let (parent, name) = whole.rsplit_once('/').unwrap_or_default();
    let parent = if parent.is_empty() { "/" } else { parent };
    Ok((parent.to_owned(), name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_directory_and_a_name() {
        let of = |path: &str| split(&path.parse().unwrap()).unwrap();
        assert_eq!(of("/a b/-c"), ("/a b".to_owned(), "-c".to_owned()));
        assert_eq!(of("/a"), ("/".to_owned(), "a".to_owned()));
        assert_eq!(of("/"), ("/".to_owned(), String::new()));
    }

    #[test]
    fn what_is_no_answer_is_no_metadata() {
        let told = stat("81a4 5 0 1000 -3").unwrap();
        let Metadata { file_type, size, mode, uid, gid, modified } = told;
        assert_eq!((file_type, size, mode, uid, gid, modified), (FileType::File, 5, 0o644, 0, 1000, -3));
        for garbled in ["", "81a4", "81a4 5 0 0 0 0", "x 5 0 0 0", "81a4 -5 0 0 0"] {
            assert!(stat(garbled).is_none(), "{garbled}");
        }
    }
}
