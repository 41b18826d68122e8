//! Open files of a process.
use std::sync::{Arc, Mutex};

use agentkernel_core::{Bytes, ExitStatus, Signal};

use super::{
    pipe::{PipeReader, PipeWriter},
    process::{World, lock},
    tree::{Errno, Follow, Id, Kind, Person, READ, WRITE},
};

/// An open file of a process.
#[derive(Debug, Clone)]
pub(super) enum Fd {
    Null,
    Zero,
    Reader(PipeReader),
    Writer(PipeWriter),
    File { id: Id, offset: Arc<Mutex<usize>>, append: bool },
}

/// stdin, stdout and stderr; a closed one is absent.
pub(super) type Fds = [Option<Fd>; 3];

/// Opens a file as a shell's redirection does.
pub(super) fn open(
    world: &World,
    path: &[u8],
    person: Person,
    writing: bool,
    append: bool,
) -> Result<Fd, Errno> {
    let mut tree = lock(&world.tree);
    let id = match tree.find(path, Follow::Yes) {
        Ok(id) => id,
        Err(Errno::NotFound) if writing => tree.make(path, Kind::File(Arc::default()), 0o644, person)?,
        Err(errno) => return Err(errno),
    };
    tree.check(id, person, if writing { WRITE } else { READ })?;
    match tree.get(id)?.kind {
        Kind::Null => return Ok(Fd::Null),
        Kind::Zero => return Ok(Fd::Zero),
        Kind::Directory(_) => return Err(Errno::IsDirectory),
        Kind::Fifo | Kind::Link(_) => return Err(Errno::Special),
        Kind::File(_) if writing && !append => tree.truncate(id),
        Kind::File(_) => {}
    }
    Ok(Fd::File { id, offset: Arc::default(), append })
}

/// Reads at most so many bytes; none at end-of-file.
pub(super) async fn read(world: &World, fd: &Fd, most: usize) -> Bytes {
    match fd {
        Fd::Null | Fd::Writer(_) => Bytes::new(),
        Fd::Zero => Bytes::from(vec![0; most.min(64 << 10)]),
        Fd::Reader(reader) => reader.take(most).await.unwrap_or_default(),
        Fd::File { id, offset, .. } => {
            let tree = lock(&world.tree);
            let mut offset = lock(offset);
            let Ok(Kind::File(content)) = tree.get(*id).map(|inode| &inode.kind) else { return Bytes::new() };
            let start = (*offset).min(content.len());
            let end = start.saturating_add(most.min(64 << 10)).min(content.len());
            *offset = end;
            Bytes::copy_from_slice(&content[start..end])
        }
    }
}

/// Writes all bytes; a broken pipe ends the process by a signal.
pub(super) async fn write(world: &World, fd: &Fd, bytes: Bytes) -> Result<(), ExitStatus> {
    match fd {
        Fd::Null | Fd::Zero => Ok(()),
        Fd::Reader(_) => Err(ExitStatus::Code(1)),
        Fd::Writer(writer) => {
            writer.give(bytes).await.map_err(|_| ExitStatus::Signal(Signal::new(13).unwrap_or(Signal::TERM)))
        }
        Fd::File { id, offset, append } => {
            let mut tree = lock(&world.tree);
            let mut offset = lock(offset);
            let at = (!append).then_some(*offset);
            *offset = tree.write_at(*id, at, &bytes).map_err(|_| ExitStatus::Code(1))?;
            Ok(())
        }
    }
}
