//! How host and guest meet at boot: the guest connects out, once, to a socket of the host's.
use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{fs::PermissionsExt, net::UnixListener},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use agentkernel_core::{Error, ErrorKind, Result};
use agentkernel_guest::protocol::{Configure, MIN_VERSION, Report, ToGuest, VERSION};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, sendmsg};
use tokio::{io::Interest, net::UnixStream, time::timeout};

use crate::{GuestClient, HELLO_DEADLINE, os::QUIET};

fn socket_error(path: &Path, source: io::Error) -> Error {
    Error::unexpected("make a socket", "it cannot be made", source).with_context("path", path.display())
}

fn listen(path: &Path, mode: u32) -> Result<UnixListener> {
    let bind = || {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        Ok(listener)
    };
    bind().map_err(|source| socket_error(path, source))
}

/// The socket that one guest connects to while it boots. It is unlinked when dropped.
#[derive(Debug)]
pub struct BootSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl BootSocket {
    /// The directory around the socket is closed (0700); the socket itself is open to the sandbox's user.
    pub(crate) fn bind(path: PathBuf) -> Result<Self> {
        Ok(Self { listener: listen(&path, 0o666)?, path })
    }

    /// Waits for the guest. The socket is closed and unlinked afterwards: nobody inside can connect again.
    ///
    /// # Errors
    /// `Timeout` after `deadline`.
    pub async fn accept(self, deadline: Duration) -> Result<BootConnection> {
        let failed = |source| Error::unexpected("wait for the guest", "the boot socket failed", source);
        let listener = self.listener.try_clone().map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let listener = tokio::net::UnixListener::from_std(listener).map_err(failed)?;
        let accepted = timeout(deadline, listener.accept()).await.map_err(|_| {
            Error::new(ErrorKind::Timeout, "wait for the guest", "it did not connect in time")
                .with_context("seconds", deadline.as_secs())
        })?;
        let (stream, _) = accepted.map_err(failed)?;
        Ok(BootConnection { stream })
    }
}

impl Drop for BootSocket {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.path);
    }
}

/// The socket that the guest listens on for later connections. The guest gets its descriptor and nothing else: no path
/// of it is visible inside.
#[derive(Debug)]
pub struct ControlSocket(OwnedFd);

impl ControlSocket {
    pub(crate) fn bind(path: &Path) -> Result<Self> {
        Ok(Self(listen(path, 0o600)?.into()))
    }
}

/// A connection from something inside that says it is the guest.
#[derive(Debug)]
pub struct BootConnection {
    stream: UnixStream,
}

impl BootConnection {
    /// Makes one of a socket whose other end the guest was started with.
    ///
    /// # Errors
    /// `Unexpected` if the socket cannot be waited for.
    pub fn inherited(stream: std::os::unix::net::UnixStream) -> Result<Self> {
        let failed = |source| Error::unexpected("meet the guest", "the socket cannot be used", source);
        stream.set_nonblocking(true).map_err(failed)?;
        Ok(Self { stream: UnixStream::from_std(stream).map_err(failed)? })
    }

    /// Returns the other side's process id as this process sees it (`SO_PEERCRED` of unix(7)); `None` or 0 if it cannot.
    pub fn peer_pid(&self) -> Option<i32> {
        self.stream.peer_cred().ok().and_then(|peer| peer.pid())
    }

    /// Tells the guest how the sandbox is to be and returns what it found. With [`Configure::lease`] the returned client
    /// is the lease: when it is closed, the sandbox ends.
    ///
    /// # Errors
    /// `Timeout` or `Disconnected` if the guest does not answer; `Unsupported` if no version is common.
    pub async fn configure(
        self,
        mut configure: Configure,
        control: Option<ControlSocket>,
    ) -> Result<(GuestClient, Report)> {
        configure.listener = control.is_some();
        let lost = |source: io::Error| {
            Error::new(ErrorKind::Disconnected, "boot the sandbox", "the guest closed the connection")
                .with_source(source)
        };
        let send = async {
            let (mut hello, mut frame) = (Vec::new(), Vec::new());
            ToGuest::Hello { version: VERSION, min_version: MIN_VERSION }.encode(0, &mut hello);
            ToGuest::Configure(Box::new(configure)).encode(0, &mut frame);
            write_all(&self.stream, &hello, None).await?;
            write_all(&self.stream, &frame, control.as_ref()).await
        };
        timeout(HELLO_DEADLINE, send)
            .await
            .map_err(|_| Error::new(ErrorKind::Timeout, "boot the sandbox", "the guest does not read"))?
            .map_err(lost)?;
        let client = GuestClient::adopt(self.stream).await?;
        let report = client.report().await?;
        Ok((client, report))
    }
}

/// Writes bytes; the descriptor goes with the first of them.
async fn write_all(stream: &UnixStream, mut bytes: &[u8], control: Option<&ControlSocket>) -> io::Result<()> {
    let mut descriptor = control.map(|control| control.0.as_fd());
    while !bytes.is_empty() {
        let written = stream
            .async_io(Interest::WRITABLE, || {
                let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut ancillary = SendAncillaryBuffer::new(&mut space);
                let descriptors = descriptor.as_slice();
                if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
                    return Err(io::Error::other("the descriptor does not fit"));
                }
                Ok(sendmsg(stream, &[io::IoSlice::new(bytes)], &mut ancillary, QUIET)?)
            })
            .await?;
        descriptor = None;
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}
