//! Meeting a guest whose engine shares no kernel with us: a key, given at boot, opens every connection.
use std::{
    fmt, fs, io,
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    time::Duration,
};

use agentkernel_core::{Error, ErrorKind, Result};
use agentkernel_guest::protocol::{Configure, KEY_LEN, MIN_VERSION, Report, ToGuest, VERSION};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use crate::{GuestClient, HELLO_DEADLINE, RunDir};

/// Opens the guest's inner socket. It goes inside on the first process's stdin and over connections, and is kept in the
/// sandbox's directory on this machine, for other processes of the same user; it is in no label, argument or variable.
#[derive(Clone)]
pub struct GuestKey([u8; KEY_LEN]);

impl fmt::Debug for GuestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GuestKey")
    }
}

impl GuestKey {
    /// Makes a new one.
    ///
    /// # Errors
    /// `Unexpected` if there is no randomness.
    pub fn new() -> Result<Self> {
        let mut key = [0; KEY_LEN];
        getrandom::fill(&mut key)
            .map_err(|source| Error::unexpected("make a key", "there is no randomness", source))?;
        Ok(Self(key))
    }

    /// Returns the bytes that the guest reads from its stdin.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl RunDir {
    /// Keeps a key for other processes of ours, 0600, in place of the one of an earlier start.
    ///
    /// # Errors
    /// `Unexpected` if it cannot be written.
    pub fn write_key(&self, key: &GuestKey) -> Result<()> {
        let (path, temporary) = (self.key_path(), self.key_path().with_extension("new"));
        let write = || -> io::Result<()> {
            match fs::remove_file(&temporary) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file =
                fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(&key.0)?;
            fs::rename(&temporary, &path)
        };
        write().map_err(|source| {
            Error::unexpected("keep the sandbox's key", "it cannot be written", source)
                .with_context("path", path.display())
        })
    }

    /// Returns whether the sandbox is reached with a key.
    pub fn has_key(&self) -> bool {
        self.key_path().exists()
    }

    /// Reads the key of the sandbox's last start.
    ///
    /// # Errors
    /// `NotRunning` if there is none on this machine.
    pub fn read_key(&self) -> Result<GuestKey> {
        let path = self.key_path();
        let mut key = [0; KEY_LEN];
        fs::File::open(&path).and_then(|mut file| file.read_exact(&mut key)).map_err(|source| {
            Error::new(ErrorKind::NotRunning, "reach the sandbox", "its key is not on this machine")
                .with_source(source)
                .with_context("path", path.display())
        })?;
        Ok(GuestKey(key))
    }
}

impl GuestClient {
    /// Speaks with a guest over a stream that leads to its inner socket.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); `Disconnected` also if the key is wrong.
    pub async fn prove(
        reader: impl AsyncRead + Send + Unpin + 'static,
        mut writer: impl AsyncWrite + Send + Unpin + 'static,
        key: &GuestKey,
    ) -> Result<Self> {
        send(&mut writer, &key.0).await?;
        Self::over(reader, writer).await
    }

    /// As [`prove`](Self::prove), for the first connection: tells the guest how the sandbox is to be and returns what it
    /// found. `deadline` is how long the stream may take to lead there.
    ///
    /// # Errors
    /// As [`prove`](Self::prove).
    pub async fn prove_and_configure(
        reader: impl AsyncRead + Send + Unpin + 'static,
        mut writer: impl AsyncWrite + Send + Unpin + 'static,
        key: &GuestKey,
        mut configure: Configure,
        deadline: Duration,
    ) -> Result<(Self, Report)> {
        configure.listener = false;
        let mut first = key.0.to_vec();
        ToGuest::Hello { version: VERSION, min_version: MIN_VERSION }.encode(0, &mut first);
        ToGuest::Configure(Box::new(configure)).encode(0, &mut first);
        send(&mut writer, &first).await?;
        let client = Self::greeted(reader, writer, deadline.max(HELLO_DEADLINE)).await?;
        let report = client.report().await?;
        Ok((client, report))
    }
}

async fn send(writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<()> {
    let sent = timeout(HELLO_DEADLINE, async {
        writer.write_all(bytes).await?;
        writer.flush().await
    });
    match sent.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(source)) => {
            Err(Error::new(ErrorKind::Disconnected, "reach the sandbox", "the connection was closed")
                .with_source(source))
        }
        Err(_) => Err(Error::new(ErrorKind::Timeout, "reach the sandbox", "nobody reads the connection")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_kept_for_its_owner_alone_and_goes_with_the_directory() {
        let dir = RunDir::create(&format!("key-{}", std::process::id())).unwrap();
        assert_eq!(dir.read_key().unwrap_err().kind(), ErrorKind::NotRunning);
        let key = GuestKey::new().unwrap();
        dir.write_key(&GuestKey::new().unwrap()).unwrap();
        dir.write_key(&key).unwrap();
        assert_eq!(dir.read_key().unwrap().0, key.0);
        assert_eq!(fs::metadata(dir.key_path()).unwrap().permissions().mode() & 0o777, 0o600);
        dir.remove(&"x".parse().unwrap());
        assert!(!dir.key_path().exists());
        let _gone = fs::remove_dir_all(dir.boot_path().ancestors().nth(2).unwrap());
    }

    #[test]
    fn a_key_is_not_shown() {
        assert_eq!(format!("{:?}", GuestKey::new().unwrap()), "GuestKey");
    }
}
