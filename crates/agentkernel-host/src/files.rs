//! Files and trees over a guest.
use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use agentkernel_core::{
    Depth, DirEntry, Error, ErrorKind, Events, FileType, Metadata, Reader, Result, SandboxPath, Source,
    Stats, WriteOptions,
};
use agentkernel_guest::protocol::{FileKind, FromGuest, MAX_DATA, Request, ToGuest, encode_frame};
use bytes::Bytes;
use futures_core::Stream;
use tokio::{io::AsyncReadExt, time::timeout};

use crate::{
    GuestClient, REQUEST_DEADLINE,
    channel::{Channel, DataFrame, Frame},
    failure,
    stream::{ChannelReader, End},
};

/// How long the guest may take to accept more of a file, or to put it in place: disks can be slow.
const WRITE_DEADLINE: Duration = Duration::from_secs(120);

fn about(path: &SandboxPath) -> impl Fn(Error) -> Error + use<> {
    let path = path.to_string();
    move |error| error.with_context("path", &path)
}

fn bytes_of(path: &SandboxPath) -> Vec<u8> {
    path.as_bytes().to_vec()
}

/// Sends a request that is answered with one frame of interest and `Done`, or with `Done` alone.
async fn ask(client: &GuestClient, operation: &'static str, request: Request) -> Result<Option<FromGuest>> {
    let channel = client.request(request, |_, _| ())?;
    let mut answer = None;
    loop {
        match channel.answer(operation, REQUEST_DEADLINE).await? {
            Frame::Other(FromGuest::Done) => return Ok(answer),
            Frame::Other(FromGuest::Failed(failed)) => return Err(failure::refused(operation, &failed)),
            Frame::Other(frame) if answer.is_none() => answer = Some(frame),
            _ => return Err(failure::out_of_place(operation)),
        }
    }
}

pub(crate) async fn open(client: &GuestClient, path: &SandboxPath) -> Result<Reader> {
    read(client, "read file", Request::Open { path: bytes_of(path) }).await.map_err(about(path))
}

pub(crate) async fn pack(client: &GuestClient, path: &SandboxPath) -> Result<Reader> {
    read(client, "pack tree", Request::Pack { path: bytes_of(path) }).await.map_err(about(path))
}

async fn read(client: &GuestClient, operation: &'static str, request: Request) -> Result<Reader> {
    let channel = client.request(request, |_, _| ())?;
    match channel.answer(operation, REQUEST_DEADLINE).await? {
        Frame::Other(FromGuest::Started { .. }) => {
            Ok(Box::pin(ChannelReader::new(Arc::new(channel), operation, End::Done)))
        }
        Frame::Other(FromGuest::Failed(failed)) => Err(failure::refused(operation, &failed)),
        _ => Err(failure::out_of_place(operation)),
    }
}

pub(crate) async fn write(
    client: &GuestClient,
    path: &SandboxPath,
    options: &WriteOptions,
    content: Source<'_>,
) -> Result<()> {
    let mode = options.mode.map(|mode| mode & 0o777);
    let request = Request::Write { path: bytes_of(path), mode, parents: options.parents };
    send(client, "write file", request, content).await.map_err(about(path))
}

pub(crate) async fn unpack(client: &GuestClient, path: &SandboxPath, tar: Source<'_>) -> Result<()> {
    send(client, "unpack tree", Request::Unpack { path: bytes_of(path) }, tar).await.map_err(about(path))
}

/// Sends content. A small one goes with the request, in one write.
async fn send(
    client: &GuestClient,
    operation: &'static str,
    request: Request,
    content: Source<'_>,
) -> Result<()> {
    let mut chunk = vec![0u8; MAX_DATA];
    let first = fill(content, &mut chunk).await?;
    let whole = first < chunk.len();
    let first = chunk.get(..first).unwrap_or_default();
    let channel = client.request(request, |id, frames| {
        encode_frame(frames, ToGuest::DATA, id, first);
        if whole {
            ToGuest::Eof.encode(id, frames);
        }
    })?;
    channel.spend(first.len());
    if !whole && send_rest(&channel, operation, content).await? {
        channel.send(&ToGuest::Eof);
    }
    loop {
        match channel.answer(operation, WRITE_DEADLINE).await? {
            Frame::Other(FromGuest::Started { .. }) => {}
            Frame::Other(FromGuest::Done) => return Ok(()),
            Frame::Other(FromGuest::Failed(failed)) => return Err(failure::refused(operation, &failed)),
            _ => return Err(failure::out_of_place(operation)),
        }
    }
}

/// Returns false if the guest ended the channel before all was sent: its answer says why.
async fn send_rest(channel: &Channel, operation: &'static str, content: Source<'_>) -> Result<bool> {
    loop {
        let credit = timeout(WRITE_DEADLINE, poll_fn(|context| channel.poll_credit(context))).await;
        let credit = credit.map_err(|_| {
            Error::new(ErrorKind::Timeout, operation, "the sandbox takes no more of the content")
                .with_context("seconds", WRITE_DEADLINE.as_secs())
        })?;
        let Some(most) = credit else { return Ok(false) };
        // Read to where it is sent from.
        let mut frame = DataFrame::with_room(most);
        if content.read_buf(&mut frame.room()).await? == 0 {
            return Ok(true);
        }
        channel.send_data(frame);
    }
}

async fn fill(content: Source<'_>, chunk: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while let Some(room) = chunk.get_mut(filled..).filter(|room| !room.is_empty()) {
        match content.read(room).await? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

pub(crate) async fn metadata(client: &GuestClient, path: &SandboxPath) -> Result<Metadata> {
    const LOOK: &str = "look at path";
    let answer = ask(client, LOOK, Request::Metadata { path: bytes_of(path) }).await.map_err(about(path))?;
    let Some(FromGuest::Metadata(found)) = answer else { return Err(failure::out_of_place(LOOK)) };
    Ok(Metadata {
        file_type: file_type(found.kind),
        size: found.size,
        mode: found.mode,
        uid: found.uid,
        gid: found.gid,
        modified: found.modified,
    })
}

fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::File => FileType::File,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Other => FileType::Other,
    }
}

pub(crate) async fn create_dir(client: &GuestClient, path: &SandboxPath, depth: Depth) -> Result<()> {
    let request = Request::CreateDir { path: bytes_of(path), recursive: depth == Depth::Recursive };
    ask(client, "make directory", request).await.map_err(about(path)).map(drop)
}

pub(crate) async fn remove_path(client: &GuestClient, path: &SandboxPath, depth: Depth) -> Result<()> {
    let request = Request::RemovePath { path: bytes_of(path), recursive: depth == Depth::Recursive };
    ask(client, "remove path", request).await.map_err(about(path)).map(drop)
}

pub(crate) async fn stats(client: &GuestClient) -> Result<Stats> {
    const READ: &str = "read the sandbox's counters";
    let Some(FromGuest::Stats(found)) = ask(client, READ, Request::Stats).await? else {
        return Err(failure::out_of_place(READ));
    };
    Ok(Stats { cpu_usec: found.cpu_usec, memory_bytes: found.memory_bytes, pids: found.pids })
}

/// Lists a directory. The first answer is awaited, so that a missing directory is an error of the call.
pub(crate) async fn read_dir(client: &GuestClient, path: &SandboxPath) -> Result<Events<DirEntry>> {
    const LIST: &str = "list directory";
    let channel = client.request(Request::ReadDir { path: bytes_of(path) }, |_, _| ())?;
    let first = match channel.answer(LIST, REQUEST_DEADLINE).await? {
        Frame::Other(FromGuest::Failed(failed)) => return Err(about(path)(failure::refused(LIST, &failed))),
        first => first,
    };
    Ok(Box::pin(Entries { channel, first: Some(first), done: false, about: Box::new(about(path)) }))
}

struct Entries {
    channel: Channel,
    first: Option<Frame>,
    done: bool,
    about: Box<dyn Fn(Error) -> Error + Send>,
}

impl Stream for Entries {
    type Item = Result<DirEntry>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        const LIST: &str = "list directory";
        while !self.done {
            let frame = match self.first.take() {
                Some(first) => Ok(first),
                None => ready!(self.channel.poll_next(context)),
            };
            let error = match frame {
                Ok(Frame::Other(FromGuest::Entry(entry))) => {
                    let entry = DirEntry { name: Bytes::from(entry.name), file_type: file_type(entry.kind) };
                    return Poll::Ready(Some(Ok(entry)));
                }
                Ok(Frame::Other(FromGuest::Started { .. })) => continue,
                Ok(Frame::Other(FromGuest::Done)) => {
                    self.done = true;
                    continue;
                }
                Ok(Frame::Other(FromGuest::Failed(failed))) => failure::refused(LIST, &failed),
                Ok(_) => failure::out_of_place(LIST),
                Err(error) => error.with_operation(LIST),
            };
            self.done = true;
            return Poll::Ready(Some(Err((self.about)(error))));
        }
        Poll::Ready(None)
    }
}
