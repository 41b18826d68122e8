//! What flags take from files of the host: variables and contents, each bounded.
use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use agentkernel_core::{EnvVar, Error, ErrorKind, FileInjection, Result};

use crate::{args::SandboxFlags, values::HostFile};

/// The largest file of variables, in bytes.
const VARIABLES_MAX: u64 = 1 << 20;
/// The most that all files put in may have together, in bytes: they are held in memory.
const FILES_MAX: u64 = 64 << 20;

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    pub(crate) variables: Vec<EnvVar>,
    pub(crate) files: Vec<FileInjection>,
}

/// Reads what the flags name. A pipe that stays silent holds up nothing but this.
pub(crate) async fn read(flags: &SandboxFlags) -> Result<Inputs> {
    if flags.env_files.is_empty() && flags.files.is_empty() {
        return Ok(Inputs::default());
    }
    let (env_files, files) = (flags.env_files.clone(), flags.files.clone());
    let read = tokio::task::spawn_blocking(move || {
        let mut inputs = Inputs::default();
        for path in &env_files {
            inputs.variables.extend(variables(path)?);
        }
        inputs.files = contents(&files)?;
        Ok(inputs)
    });
    read.await.map_err(|error| Error::unexpected("read files", "the reader ended early", error))?
}

fn variables(path: &Path) -> Result<Vec<EnvVar>> {
    let operation = "read variables";
    let file = File::open(path).map_err(|error| unreadable(operation, path, error))?;
    let text = bounded(file, VARIABLES_MAX).map_err(|error| unreadable(operation, path, error))?;
    let text = text.ok_or_else(|| too_large(operation, path, "1 MiB"))?;
    lines(&text)
        .map_err(|(number, error)| error.with_context("file", path.display()).with_context("line", number))
}

/// Reads lines of `NAME=VALUE`: no quotes, no expansion. Those that are empty or begin with `#` are passed over.
fn lines(text: &[u8]) -> std::result::Result<Vec<EnvVar>, (usize, Error)> {
    let mut all = Vec::new();
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let first = line.trim_ascii_start().first();
        if first.is_some_and(|byte| *byte != b'#') {
            all.push(EnvVar::parse(line).map_err(|error| (index + 1, error))?);
        }
    }
    Ok(all)
}

fn contents(files: &[HostFile]) -> Result<Vec<FileInjection>> {
    let operation = "read file";
    let mut left = FILES_MAX;
    let mut all = Vec::new();
    for HostFile { source, target } in files {
        let path: &PathBuf = source;
        let metadata = path.metadata().map_err(|error| unreadable(operation, path, error))?;
        if !metadata.is_file() {
            return Err(refused(operation, path, "it is not a regular file").with_hint(
                "show a directory inside with `--mount`, or copy it in with `agentkernel cp -r`",
            ));
        }
        let file = File::open(path).map_err(|error| unreadable(operation, path, error))?;
        let content = bounded(file, left).map_err(|error| unreadable(operation, path, error))?;
        let content = content.ok_or_else(|| too_large(operation, path, "64 MiB with the others"))?;
        left -= content.len() as u64;
        let mode = Some(metadata.permissions().mode() & 0o777);
        let mut injection = FileInjection::new(&target.parse()?, content);
        injection.mode = mode;
        all.push(injection);
    }
    Ok(all)
}

/// Reads to the end; nothing if there is more than the limit.
pub(crate) fn bounded(reader: impl Read, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut content = Vec::new();
    reader.take(limit + 1).read_to_end(&mut content)?;
    Ok((content.len() as u64 <= limit).then_some(content))
}

fn refused(operation: &'static str, path: &Path, message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidConfig, operation, message).with_context("file", path.display())
}

pub(crate) fn unreadable(operation: &'static str, path: &Path, source: io::Error) -> Error {
    refused(operation, path, "the file cannot be read").with_source(source)
}

fn too_large(operation: &'static str, path: &Path, limit: &str) -> Error {
    Error::new(ErrorKind::InvalidConfig, operation, format!("the file is larger than {limit}"))
        .with_context("file", path.display())
        .with_hint("give several smaller ones; a large file goes in with `agentkernel cp` or `--mount`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_empty_lines_are_no_variables() {
        let read = lines(b"# a\n\nA=1\r\n  # b\nB= x # y \xff\n").unwrap();
        let read = read.iter().map(|var| (var.name(), var.value())).collect::<Vec<_>>();
        assert_eq!(read, [("A", b"1".as_slice()), ("B", b" x # y \xff")]);
    }

    #[test]
    fn a_name_alone_is_refused_and_its_line_told() {
        let (line, error) = lines(b"A=1\nHOME\n").unwrap_err();
        assert_eq!((line, error.hint().unwrap().contains("NAME=value")), (2, true));
    }

    #[test]
    fn nothing_is_read_beyond_the_limit() {
        assert_eq!(bounded(b"abc".as_slice(), 3).unwrap().as_deref(), Some(b"abc".as_slice()));
        assert_eq!(bounded(io::repeat(0), 3).unwrap(), None);
    }
}
