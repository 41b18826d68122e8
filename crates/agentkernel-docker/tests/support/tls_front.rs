//! A port on loopback that speaks TLS before the engine of this machine.
use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig, SupportedProtocolVersion,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::WebPkiClientVerifier,
    },
};

use crate::authority::{Authority, Pair};

/// The engine's socket.
const SOCKET: &str = "/var/run/docker.sock";

/// Listens until the process ends.
pub(crate) struct Front {
    pub(crate) address: String,
    shaken: Arc<AtomicUsize>,
}

impl Front {
    /// Answers as `identity`, to whoever has a certificate of `clients`, in these versions of TLS.
    pub(crate) fn start(
        identity: &Pair,
        clients: &Authority,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(clients.certificate.as_bytes()).unwrap()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap(),
            )
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shaken = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&shaken);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let acceptor = TlsAcceptor::from(Arc::new(config));
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(acceptor.clone(), stream, Arc::clone(&count)));
                }
            });
        });
        Self { address, shaken }
    }

    /// Returns how many have got through to where requests are read.
    pub(crate) fn shaken(&self) -> usize {
        self.shaken.load(Ordering::SeqCst)
    }
}

async fn serve(acceptor: TlsAcceptor, stream: TcpStream, shaken: Arc<AtomicUsize>) {
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    shaken.fetch_add(1, Ordering::SeqCst);
    let Ok(mut engine) = UnixStream::connect(SOCKET).await else { return };
    let _ended = tokio::io::copy_bidirectional(&mut stream, &mut engine).await;
}
