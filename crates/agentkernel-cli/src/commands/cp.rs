//! `cp`: files and trees in and out.
use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::unix::{ffi::OsStrExt, fs::FileTypeExt, fs::MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use agentkernel_core::{Error, ErrorKind, FileType, Reader, Result, Sandbox, SandboxPath, WriteOptions};
use bytes::BytesMut;
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use tokio::io::AsyncReadExt;

use super::Outcome;
use crate::{
    args::CpArgs,
    context::Context,
    copy::{
        self, AsyncEnd, Endpoint, Limits, Part, Skipped, SyncReader, SyncWriter, Worker, channel, feed, pack,
        sides, unpack,
    },
    output::View,
    report,
    sink::{Sink, To},
};

const CHUNK: usize = 256 << 10;
const ENTRIES: u64 = 1_000_000;
const DEPTH: usize = 128;

pub(crate) async fn cp(context: &Context, args: &CpArgs) -> Result<Outcome> {
    let skipped = match sides(&args.source, &args.destination)? {
        (Endpoint::Sandbox { name, path, .. }, destination) => {
            let sandbox = context.sandbox(&name).await?;
            match destination {
                Endpoint::Host(to) => out(&sandbox, &path, &to, args).await?,
                _ => return to_stdout(&sandbox, &path).await,
            }
        }
        (source, Endpoint::Sandbox { name, path, is_directory }) => {
            let sandbox = context.sandbox(&name).await?;
            match source {
                Endpoint::Host(from) => into(&sandbox, &from, path, is_directory, args.recursive).await?,
                _ => {
                    sandbox.write(&path, &WriteOptions::default(), &mut tokio::io::stdin()).await?;
                    Skipped::default()
                }
            }
        }
        _ => Skipped::default(),
    };
    for (path, why) in &skipped.named {
        report::note(&format!("left out: {} ({why})", report::printable(path)));
    }
    if skipped.more > 0 {
        report::note(&format!("left out: {} more", skipped.more));
    }
    Ok(if context.json { Outcome::Show(View::Skipped(skipped.named), false) } else { Outcome::Code(0) })
}

/// Opens a regular file inside; what else it is, a link included, is said at once.
async fn open(sandbox: &Arc<dyn Sandbox>, path: &SandboxPath) -> Result<(Reader, u32)> {
    let (metadata, reader) = tokio::join!(sandbox.metadata(path), sandbox.open(path));
    let metadata = metadata?;
    let (message, hint) = match metadata.file_type {
        FileType::File => return Ok((reader?, metadata.mode)),
        FileType::Directory => ("it is a directory", "copy it with all below it: `--recursive`"),
        FileType::Symlink => ("it is a link", "name the file that it leads to"),
        _ => ("it is neither file nor directory", "only regular files can be copied"),
    };
    Err(Error::new(ErrorKind::Conflict, "copy file", message).with_context("path", path).with_hint(hint))
}

async fn to_stdout(sandbox: &Arc<dyn Sandbox>, path: &SandboxPath) -> Result<Outcome> {
    let (reader, _) = open(sandbox, path).await?;
    match pour(reader, To::Stdout).await? {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Outcome::Code(report::READER_GONE)),
        result => result
            .map(|()| Outcome::Code(0))
            .map_err(|error| Error::unexpected("copy file", "writing to stdout failed", error)),
    }
}

/// Writes all that a reader gives; the inner result is that of the writing.
async fn pour(mut reader: Reader, to: To) -> Result<io::Result<()>> {
    let mut sink = match Sink::start(vec![to]) {
        Ok(sink) => sink,
        Err(error) => return Ok(Err(error)),
    };
    let mut buffer = BytesMut::new();
    loop {
        if let Err(error) = sink.ready().await {
            return Ok(Err(error));
        }
        buffer.reserve(CHUNK);
        if reader.read_buf(&mut buffer).await.map_err(Error::from)? == 0 {
            return Ok(sink.finish().await);
        }
        sink.put(0, buffer.split().freeze());
    }
}

async fn out(sandbox: &Arc<dyn Sandbox>, path: &SandboxPath, to: &Path, args: &CpArgs) -> Result<Skipped> {
    let name = path.file_name().map(OsStr::from_bytes);
    // Into a directory that is there; else the last component is the new name.
    let to = match name {
        Some(name) if to.is_dir() => to.join(name),
        _ => to.to_owned(),
    };
    if args.recursive && sandbox.metadata(path).await?.file_type == FileType::Directory {
        return out_tree(sandbox, path, &to, args.max_size << 20).await;
    }
    let (reader, mode) = open(sandbox, path).await?;
    let failed = |error: io::Error| on_host(error, "write", &to);
    let special = std::fs::metadata(&to).is_ok_and(|metadata| {
        let kind = metadata.file_type();
        kind.is_char_device() || kind.is_fifo() || kind.is_block_device()
    });
    if special {
        // /dev/null and the like are written to, not replaced.
        let file = File::options().write(true).open(&to).map_err(failed)?;
        pour(reader, To::File(file)).await?.map_err(failed)?;
        return Ok(Skipped::default());
    }
    let (directory, name) = split(&to)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(CWD, &directory, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
    let (part, file) = Part::create(&directory, mode).map_err(|error| failed(error.into()))?;
    pour(reader, To::File(file)).await?.map_err(failed)?;
    part.commit(&name).map_err(|error| failed(error.into()))?;
    Ok(Skipped::default())
}

async fn out_tree(sandbox: &Arc<dyn Sandbox>, path: &SandboxPath, to: &Path, bytes: u64) -> Result<Skipped> {
    let failed = |error: rustix::io::Errno| on_host(error.into(), "write", to);
    match mkdirat(CWD, to, Mode::from_raw_mode(0o777)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(failed(error)),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, to, flags, Mode::empty()).map_err(failed)?;
    let reader = sandbox.pack(path).await?;
    let top = path.file_name().map(ToOwned::to_owned);
    let limits = Limits { bytes, entries: ENTRIES, depth: DEPTH };
    let (sender, queue) = channel();
    let worker = Worker::start(move || unpack(SyncReader::new(queue), &root, top.as_deref(), limits))?;
    // The reader's own error says more than that the archive broke off.
    let fed = feed(reader, sender).await;
    let unpacked = worker.finish().await;
    fed?;
    unpacked
}

async fn into(
    sandbox: &Arc<dyn Sandbox>,
    from: &Path,
    to: SandboxPath,
    is_directory: bool,
    recursive: bool,
) -> Result<Skipped> {
    let metadata = std::fs::metadata(from).map_err(|error| on_host(error, "read", from))?;
    if metadata.is_dir() && !recursive {
        return Err(Error::new(ErrorKind::Conflict, "copy file", "it is a directory")
            .with_context("path", from.display())
            .with_hint("copy it with all below it: `--recursive`"));
    }
    let is_there = match sandbox.metadata(&to).await {
        Ok(metadata) => metadata.file_type == FileType::Directory,
        Err(error) if error.kind() == ErrorKind::NotFound && !is_directory => false,
        Err(error) => return Err(error),
    };
    let to = if is_there || is_directory { below(&to, from)? } else { to };
    if metadata.is_dir() {
        return into_tree(sandbox, from, &to).await;
    }
    let options = WriteOptions { mode: Some(metadata.mode() & 0o777), parents: false };
    if !metadata.is_file() {
        // A pipe may have nothing to read for ever, and a thread in such a read cannot be waited for.
        let mut pipe = tokio::fs::File::open(from).await.map_err(|error| on_host(error, "read", from))?;
        sandbox.write(&to, &options, &mut pipe).await?;
        return Ok(Skipped::default());
    }
    let file = File::open(from).map_err(|error| on_host(error, "read", from))?;
    let from = from.to_owned();
    let (sender, queue) = channel();
    let worker = Worker::start(move || {
        copy::send(file, &SyncWriter(sender)).map_err(|error| on_host(error, "read", &from))
    })?;
    let mut content = AsyncEnd::new(queue);
    let sent = sandbox.write(&to, &options, &mut content).await;
    drop(content);
    // What the host could not read is why the content broke off.
    worker.finish().await?;
    sent.map(|()| Skipped::default())
}

async fn into_tree(sandbox: &Arc<dyn Sandbox>, from: &Path, to: &SandboxPath) -> Result<Skipped> {
    let from = from.to_owned();
    let (sender, queue) = channel();
    let worker = Worker::start(move || {
        let out = io::BufWriter::with_capacity(CHUNK, SyncWriter(sender));
        let (out, skipped) = pack(&from, out)?;
        let ended = out.into_inner().map_err(io::IntoInnerError::into_error).and_then(SyncWriter::end);
        // A sandbox that reads no further has its own reason to tell.
        ended.map_or_else(|_| Ok(Skipped::default()), |()| Ok(skipped))
    })?;
    let mut content = AsyncEnd::new(queue);
    let sent = sandbox.unpack(to, &mut content).await;
    drop(content);
    match (sent, worker.finish().await) {
        (Ok(()), packed) => packed,
        // The host's own trouble is what broke the stream off, unless it is that the sandbox stopped reading.
        (Err(sent), Err(packed)) if !is_broken_pipe(&packed) => {
            Err(packed.with_context("sandbox", sent.message()))
        }
        (Err(sent), _) => Err(sent),
    }
}

fn is_broken_pipe(error: &Error) -> bool {
    std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<io::Error>())
        .is_some_and(|source| source.kind() == io::ErrorKind::BrokenPipe)
}

/// The path of `from`'s name in the directory.
fn below(directory: &SandboxPath, from: &Path) -> Result<SandboxPath> {
    let real = from
        .file_name()
        .map(OsString::from)
        .or_else(|| from.canonicalize().ok()?.file_name().map(OsString::from));
    let name = real.ok_or_else(|| on_host(io::ErrorKind::InvalidInput.into(), "name", from))?;
    SandboxPath::new([directory.as_bytes(), b"/", name.as_bytes()].concat())
}

/// Splits a host path into its directory and its last component.
fn split(path: &Path) -> Result<(PathBuf, OsString)> {
    let name = path.file_name().filter(|_| !path.as_os_str().as_bytes().ends_with(b"/"));
    let name = name.ok_or_else(|| on_host(io::ErrorKind::NotADirectory.into(), "write", path))?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok((directory.unwrap_or(Path::new(".")).to_owned(), name.to_owned()))
}

fn on_host(error: io::Error, operation: &'static str, path: &Path) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::ResourceExhausted,
        _ => ErrorKind::Unexpected,
    };
    Error::new(kind, format!("{operation} a file of the host"), "the host refused")
        .with_context("path", path.display())
        .with_source(error)
}
