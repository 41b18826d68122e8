//! `agentkernel.toml`: found, read, and given as much say as it has been trusted with.
use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use agentkernel_core::{Error, ErrorKind, Lifetime, Result, SandboxConfig};

use super::{
    inputs::{bounded, unreadable},
    merge::{self, Merged},
    trust,
};
use crate::{
    report::{self, printable},
    values::nearest,
};

/// The file that is looked for in the working directory.
pub(crate) const NAME: &str = "agentkernel.toml";
/// The largest file, in bytes.
const MAX: u64 = 1 << 20;
const OPERATION: &str = "read config";

/// Merges the file of the flag, or else that of the working directory, into what the flags ask for.
pub(crate) async fn merged(flags: SandboxConfig, named: Option<&Path>) -> Result<SandboxConfig> {
    let path = named.map(Path::to_owned);
    let found = tokio::task::spawn_blocking(move || find(path.as_deref()));
    let found =
        found.await.map_err(|error| Error::unexpected(OPERATION, "the reader ended early", error))??;
    let Some(found) = found else { return Ok(flags) };
    let shown = printable(&found.path.to_string_lossy());
    let counts = if found.is_trusted {
        found.config
    } else {
        let (narrow, ignored) = merge::narrowing(&flags, found.config);
        let rest = match ignored.as_slice() {
            [] => String::new(),
            ignored => format!(", not {}", ignored.join(", ")),
        };
        report::note(&format!(
            "agentkernel: {shown} is not trusted: only what restricts counts{rest}; read it, then `agentkernel trust`"
        ));
        narrow
    };
    let Merged { config, tightened } = merge::merge(flags, counts);
    if !tightened.is_empty() {
        report::note(&format!("agentkernel: {shown} is stricter than the flags: {}", tightened.join(", ")));
    }
    Ok(config)
}

/// A file that was read.
struct Found {
    path: PathBuf,
    config: SandboxConfig,
    is_trusted: bool,
}

/// A file that a flag names is trusted by that; the one that lies there only if a person said so.
fn find(named: Option<&Path>) -> Result<Option<Found>> {
    let path = named.unwrap_or(Path::new(NAME));
    match read(path) {
        Ok((path, content)) => {
            let config = parse(&path, &content)?;
            let is_trusted = named.is_some() || trust::is_trusted(&path, &content)?;
            Ok(Some(Found { path, config, is_trusted }))
        }
        Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(OPERATION, path, error)),
    }
}

/// Reads a file once, and tells where it really is.
pub(crate) fn read(path: &Path) -> io::Result<(PathBuf, Vec<u8>)> {
    let path = path.canonicalize()?;
    // Opening a pipe would wait for its other end; `/dev/null` is the file that says nothing.
    if !path.metadata()?.is_file() && path != Path::new("/dev/null") {
        return Err(io::Error::other("it is not a regular file"));
    }
    let content = bounded(File::open(&path)?, MAX)?;
    let content = content.ok_or_else(|| io::Error::other("it is larger than 1 MiB"))?;
    Ok((path, content))
}

/// Reads the content. Relative host paths are taken from the file's directory.
pub(crate) fn parse(path: &Path, content: &[u8]) -> Result<SandboxConfig> {
    let refused = |message: String| {
        Error::new(ErrorKind::InvalidConfig, OPERATION, message).with_context("file", path.display())
    };
    let text = str::from_utf8(content).map_err(|_| refused("it is not UTF-8".to_owned()))?;
    let mut config = toml::from_str::<SandboxConfig>(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
        let told = error.message().lines().next().unwrap_or_default();
        let (message, hint) = explained(told);
        refused(printable(&message)).with_context("line", line).with_hint(hint)
    })?;
    if config.lifetime != Lifetime::Owned {
        return Err(refused("`lifetime` is not for a file: the verb decides".to_owned())
            .with_hint("use `run`, `run --detach` or `create`"));
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    config.work_dir = config.work_dir.map(|work_dir| directory.join(work_dir));
    for mount in &mut config.mounts {
        mount.source = directory.join(&mount.source);
    }
    Ok(config)
}

/// What the parser says, in our words: of an unknown key the nearest, in place of all that there are.
fn explained(told: &str) -> (String, String) {
    let see = "`agentkernel init` writes a file with every key explained";
    let mut quoted = told.split('`').skip(1).step_by(2);
    if !told.starts_with("unknown ") {
        return (told.to_owned(), see.to_owned());
    }
    let Some(wrong) = quoted.next() else { return (told.to_owned(), see.to_owned()) };
    let what = if told.starts_with("unknown field") { "key" } else { "word" };
    let hint = match nearest(wrong, quoted) {
        Some(near) => format!("did you mean `{near}`? {see}"),
        None => see.to_owned(),
    };
    (format!("there is no {what} `{wrong}`"), hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> (String, String) {
        let error = parse(Path::new("/p/agentkernel.toml"), text.as_bytes()).unwrap_err();
        (error.to_string(), error.hint().unwrap().to_owned())
    }

    #[test]
    fn an_unknown_key_gets_its_line_and_the_nearest() {
        let (text, hint) = refused("image = \"a\"\nnetwrok = \"none\"\n");
        assert!(text.contains("there is no key `netwrok`") && text.contains("line: 2"), "{text}");
        assert!(hint.contains("did you mean `network`?"), "{hint}");
    }

    #[test]
    fn an_unknown_key_inside_a_table_gets_the_nearest_too() {
        let (text, hint) = refused("[[mounts]]\nsource = \".\"\ntarget = \"/m\"\nreadonly = false\n");
        assert!(text.contains("there is no key `readonly`"), "{text}");
        assert!(hint.contains("`read_only`"), "{hint}");
    }

    #[test]
    fn an_unknown_word_gets_the_nearest() {
        let (text, hint) = refused("profile = \"restrictiv\"\n");
        assert!(text.contains("`restrictiv`") && hint.contains("`restrictive`"), "{text} {hint}");
    }

    #[test]
    fn a_value_of_the_wrong_type_is_told_by_its_line() {
        let (text, _) = refused("\npids = \"many\"\n");
        assert!(text.contains("line: 2"), "{text}");
    }

    #[test]
    fn host_paths_are_taken_from_the_files_directory() {
        let text = "mount_cwd = true\nwork_dir = \"sub\"\n[[mounts]]\nsource = \"data\"\ntarget = \"/d\"\n";
        let config = parse(Path::new("/p/agentkernel.toml"), text.as_bytes()).unwrap();
        assert_eq!(config.work_dir.as_deref(), Some(Path::new("/p/sub")));
        assert_eq!(config.mounts[0].source, Path::new("/p/data"));
    }

    #[test]
    fn a_file_does_not_decide_how_long_a_sandbox_stays() {
        assert!(refused("lifetime = \"detached\"\n").0.contains("`lifetime`"));
    }
}
