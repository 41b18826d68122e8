//! TLS 1.2 and 1.3 by rustls. Who answers must have a certificate of the authorities that were given, for the host of the
//! address: there is no way around that.
use std::{error::Error as StdError, fmt, io, path::Path, sync::Arc};

use agentkernel_core::{Error, ErrorKind, Result};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    rustls::{
        AlertDescription, CertificateError, ClientConfig, Error as TlsError, RootCertStore,
        crypto::ring,
        pki_types::{
            CertificateDer, PrivateKeyDer, ServerName,
            pem::{Error as PemError, PemObject},
        },
    },
};

use super::{Client, TlsFiles, Trouble};
use crate::{address::Stream, context, endpoint::reason};

const OPERATION: &str = "find the engine";
const HINT: &str =
    "DOCKER_CERT_PATH, or the context, must lead to ca.pem, cert.pem and key.pem of this engine";

/// What is needed to speak TLS to a host.
#[derive(Clone)]
pub(crate) struct Tls {
    files: TlsFiles,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
    anonymous: bool,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).field("name", &self.name).finish_non_exhaustive()
    }
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        (&self.files, &self.name) == (&other.files, &other.name)
    }
}

impl Eq for Tls {}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// `InvalidConfig`, or `PermissionDenied` for a file that is closed to us.
    pub(crate) fn prepare(files: Option<TlsFiles>, host: &str) -> Result<Self> {
        let files = files.ok_or_else(|| {
            Error::new(ErrorKind::InvalidConfig, OPERATION, "nothing says where the files of TLS are")
                .with_hint("set DOCKER_CERT_PATH to the directory of ca.pem, cert.pem and key.pem")
        })?;
        let name = ServerName::try_from(host.to_owned()).map_err(|source| {
            Error::new(ErrorKind::InvalidConfig, OPERATION, "no certificate can be of the address's host")
                .with_context("host", host)
                .with_source(source)
        })?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&files.ca)? {
            roots
                .add(certificate)
                .map_err(|source| broken(&files.ca, "a certificate cannot be read").with_source(source))?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|source| Error::unexpected(OPERATION, "TLS cannot be set up", source))?
            .with_root_certificates(roots);
        let client = files.client.as_ref().filter(|client| !client.is_absent());
        let config = match client {
            None => config.with_no_client_auth(),
            Some(Client { certificate, key: file, .. }) => {
                let chain = certificates(certificate)?;
                let key = key(file)?;
                config.with_client_auth_cert(chain, key).map_err(|source| {
                    let message = match &source {
                        TlsError::InconsistentKeys(_) => "the key does not fit the certificate",
                        _ => "our certificate or its key cannot be used",
                    };
                    broken(file, message)
                        .with_context("certificate", certificate.display())
                        .with_source(source)
                })?
            }
        };
        let anonymous = client.is_none();
        Ok(Self { name, config: Arc::new(config), anonymous, files })
    }

    /// Shakes hands over a connection. Nothing of a request was sent if that fails.
    pub(crate) async fn over(&self, stream: TcpStream) -> io::Result<Box<dyn Stream>> {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let shaken = connector.connect(self.name.clone(), stream).await;
        let stream = shaken.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                io::Error::new(
                    error.kind(),
                    TlsError::General("the other side ended the handshake".to_owned()),
                )
            }
            _ => error,
        })?;
        Ok(Box::new(stream))
    }

    /// Returns whether no certificate of ours is shown: then others can get in as we do.
    pub(crate) fn is_anonymous(&self) -> bool {
        self.anonymous
    }
}

impl Client {
    /// Returns whether neither file is there, and neither need be. One without the other is an error of the other's.
    fn is_absent(&self) -> bool {
        let missing =
            |path: &Path| path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        self.optional && missing(&self.certificate) && missing(&self.key)
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let text = read(file)?;
    let read = CertificateDer::pem_slice_iter(&text).collect::<std::result::Result<Vec<_>, _>>();
    let read = read.map_err(|source| broken(file, "it is not PEM").with_source(source))?;
    if read.is_empty() { Err(broken(file, "there is no certificate in it")) } else { Ok(read) }
}

fn key(file: &Path) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(&read(file)?).map_err(|source| match source {
        PemError::NoItemsFound => broken(file, "there is no key in it")
            .with_hint("write the key without a passphrase: openssl pkey -in key.pem -out key.pem"),
        other => broken(file, "it is not PEM").with_source(other),
    })
}

fn read(file: &Path) -> Result<Vec<u8>> {
    context::read_bounded(file).map_err(|source| {
        let kind = match source.kind() {
            io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            _ => ErrorKind::InvalidConfig,
        };
        Error::new(kind, OPERATION, format!("a file of TLS cannot be read: {}", reason(&source)))
            .with_context("file", file.display())
            .with_hint(HINT)
            .with_source(source)
    })
}

fn broken(file: &Path, message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidConfig, OPERATION, format!("a file of TLS cannot be used: {message}"))
        .with_context("file", file.display())
        .with_hint(HINT)
}

/// Says in words what went wrong with TLS, if that is what an error comes of.
pub(crate) fn trouble(error: &(dyn StdError + 'static)) -> Option<Trouble> {
    use AlertDescription as Alert;
    use CertificateError as Bad;
    use ErrorKind::{PermissionDenied, Unavailable};
    Some(match cause(error)? {
        TlsError::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => (
            Unavailable,
            "its certificate is of another authority than those of ca.pem",
            "take ca.pem from the engine that you mean; if that is what you did, another machine answers",
        ),
        TlsError::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => (
            Unavailable,
            "its certificate is of another name than the address's host",
            "write a name of the certificate's in the address, or have the engine's certificate made with this one \
             (subjectAltName)",
        ),
        TlsError::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => (
            Unavailable,
            "its certificate has expired",
            "renew the engine's certificate, or set this machine's clock",
        ),
        TlsError::InvalidCertificate(Bad::NotValidYet | Bad::NotValidYetContext { .. }) => (
            Unavailable,
            "its certificate is not valid yet",
            "set the clock of this machine, or of the engine's",
        ),
        TlsError::InvalidCertificate(_) | TlsError::NoCertificatesPresented => (
            Unavailable,
            "its certificate cannot be accepted",
            "the engine needs a certificate of its own, for servers, by an authority of ca.pem",
        ),
        TlsError::InvalidMessage(_) => (
            Unavailable,
            "what answers there does not speak TLS",
            "name the port of TLS, by convention 2376; for an engine without TLS unset DOCKER_TLS_VERIFY",
        ),
        TlsError::AlertReceived(
            Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::DecryptError,
        ) => (
            PermissionDenied,
            "the engine does not accept our certificate, or the want of one",
            "cert.pem and key.pem must be of the authority that the engine asks for (its --tlscacert), for clients, and \
             in date",
        ),
        TlsError::AlertReceived(
            Alert::ProtocolVersion | Alert::HandshakeFailure | Alert::InsufficientSecurity,
        )
        | TlsError::PeerIncompatible(_) => (
            Unavailable,
            "it does not speak TLS as we do",
            "it must speak TLS 1.2 or newer, with keys of today's lengths",
        ),
        _ => (Unavailable, "TLS with it failed", "see the engine's log"),
    })
}

/// Looks for an error of TLS among an error's sources. What an `io::Error` carries is not its source, but itself.
fn cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a TlsError> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        let carried = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match carried {
            Some(carried) => Some(carried),
            None => error.source(),
        };
    }
    None
}
