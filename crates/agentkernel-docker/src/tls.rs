//! TLS to an engine behind tcp: with which files, and what is said when it does not come about.
#[cfg(not(feature = "tls"))]
mod absent;
#[cfg(feature = "tls")]
mod spoken;

use std::path::{Path, PathBuf};

use agentkernel_core::ErrorKind;

#[cfg(not(feature = "tls"))]
pub(crate) use absent::{Tls, trouble};
#[cfg(feature = "tls")]
pub(crate) use spoken::{Tls, trouble};

/// The files of TLS to an engine behind tcp, each PEM, a regular file of at most 1 MiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    ca: PathBuf,
    client: Option<Client>,
}

/// Our own certificate with its chain, and the key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Client {
    certificate: PathBuf,
    key: PathBuf,
    /// Without either file no certificate of ours is shown.
    optional: bool,
}

impl TlsFiles {
    /// Trusts the engine whose certificate is of one of these authorities, and no other.
    #[must_use]
    pub fn new(ca: impl Into<PathBuf>) -> Self {
        Self { ca: ca.into(), client: None }
    }

    /// Shows the engine a certificate of ours. The key has no passphrase.
    #[must_use]
    pub fn with_client(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.client = Some(Client { certificate: certificate.into(), key: key.into(), optional: false });
        self
    }

    /// Takes `ca.pem`, `cert.pem` and `key.pem` of a directory, as the docker command has them. Without either of the last
    /// two no certificate of ours is shown.
    #[must_use]
    pub fn in_dir(directory: impl AsRef<Path>) -> Self {
        let directory = directory.as_ref();
        let (certificate, key) = (directory.join("cert.pem"), directory.join("key.pem"));
        let client = Some(Client { certificate, key, optional: true });
        Self { ca: directory.join("ca.pem"), client }
    }
}

/// Whether an engine behind tcp is spoken to over TLS, and with which files.
#[derive(Debug, Clone)]
pub(crate) struct Security {
    /// Without it only an address that says `https://` is.
    pub required: bool,
    pub files: Option<TlsFiles>,
}

/// Why TLS did not come about, or ended: the kind of the error, its message and its hint.
pub(crate) type Trouble = (ErrorKind, &'static str, &'static str);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_tls_is_trouble_with_it() {
        for kind in [std::io::ErrorKind::NotFound, std::io::ErrorKind::InvalidData] {
            assert_eq!(trouble(&std::io::Error::new(kind, "x")), None);
        }
    }
}
