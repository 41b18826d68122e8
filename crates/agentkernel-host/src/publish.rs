//! Published ports: this process listens on the host, and the guest, or whatever else leads inside, carries each connection
//! to a port there. So they need no network in the sandbox, and end with this process.
use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use agentkernel_core::{
    Capability, Duplex, Error, ErrorKind, Lifetime, PortMapping, Result, SandboxSpec, async_trait,
};
use rustix::net::sockopt::set_socket_linger;
use tokio::{
    io::{copy_bidirectional_with_sizes, join},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};

use crate::{GuestClient, forward};

/// How many connections are carried at once: the client has channels left for everything else. More wait in the
/// listeners' queues.
const MAX_CARRIED: usize = 128;
/// How much is moved at once, in bytes.
const CHUNK: usize = 64 << 10;
/// The pause after a connection could not be accepted, as when descriptors have run out.
const PAUSE: Duration = Duration::from_millis(100);

/// How a connection gets to a port inside.
#[async_trait]
pub trait Inward: Send + Sync + 'static {
    /// Connects to a port of the sandbox's loopback.
    async fn connect(&self, port: u16) -> Result<Duplex>;

    /// Returns whether nothing can be reached any more.
    fn is_closed(&self) -> bool;
}

#[async_trait]
impl Inward for GuestClient {
    async fn connect(&self, port: u16) -> Result<Duplex> {
        forward::connect(self, port).await
    }

    fn is_closed(&self) -> bool {
        Self::is_closed(self)
    }
}

/// Ports of the host that are bound, and lead nowhere yet.
#[derive(Debug, Default)]
pub struct BoundPorts(Vec<(TcpListener, PortMapping)>);

impl BoundPorts {
    /// Binds all, or none. The address is 127.0.0.1 unless another is given.
    ///
    /// # Errors
    /// `Conflict` for a port that is taken, `PermissionDenied` for one that this user may not have, `InvalidConfig` for an
    /// address that this host has not.
    pub async fn bind(ports: &[PortMapping]) -> Result<Self> {
        let mut bound = Vec::new();
        for port in ports {
            let address = SocketAddr::new(port.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), port.host);
            let refuse = |error| refused(error, address);
            let listener = TcpListener::bind(address).await.map_err(refuse)?;
            let host = listener.local_addr().map_err(refuse)?.port();
            bound.push((listener, PortMapping { host, ..*port }));
        }
        Ok(Self(bound))
    }

    /// Binds what a spec asks for, before anything is made: one that is taken is an error of the create.
    ///
    /// # Errors
    /// As [`bind`](Self::bind); `Unsupported` for a detached sandbox.
    pub async fn of(spec: &SandboxSpec) -> Result<Self> {
        if spec.is_weaker(Capability::PortMapping) {
            return Ok(Self::default());
        }
        if !spec.ports.is_empty() && spec.lifetime == Lifetime::Detached {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "publish port",
                "no process of ours would be left to carry its connections",
            )
            .with_context("field", "ports")
            .with_context("lifetime", "detached")
            .with_hint("publish it with a sandbox that ends with its command: `agentkernel run --publish`"));
        }
        Self::bind(&spec.ports).await
    }

    /// Returns the mappings with the host's ports that were chosen.
    pub fn mappings(&self) -> Vec<PortMapping> {
        self.0.iter().map(|(_, port)| *port).collect()
    }

    /// Leads them inside, until the result is dropped.
    pub fn serve(self, client: &GuestClient) -> PublishedPorts {
        self.serve_over(&(Arc::new(client.clone()) as Arc<dyn Inward>))
    }

    /// Leads them inside another way, until the result is dropped.
    pub fn serve_over(self, way: &Arc<dyn Inward>) -> PublishedPorts {
        let mut tasks = JoinSet::new();
        let places = Arc::new(Semaphore::new(MAX_CARRIED));
        for (listener, port) in self.0 {
            tasks.spawn(serve(listener, port.sandbox, Arc::clone(way), Arc::clone(&places)));
        }
        PublishedPorts { tasks }
    }
}

/// Ports that lead into a sandbox. Dropping it closes them, and what they carry.
#[derive(Debug)]
pub struct PublishedPorts {
    tasks: JoinSet<()>,
}

impl PublishedPorts {
    /// Closes them, and waits until they are free.
    pub async fn close(mut self) {
        self.tasks.shutdown().await;
    }
}

fn refused(error: io::Error, address: SocketAddr) -> Error {
    let (kind, message, hint) = match error.kind() {
        io::ErrorKind::AddrInUse => {
            (ErrorKind::Conflict, "the port is taken", "choose another port, or 0 to have one chosen")
        }
        io::ErrorKind::PermissionDenied => {
            (ErrorKind::PermissionDenied, "this user may not listen there", "choose a port above 1023")
        }
        io::ErrorKind::AddrNotAvailable => {
            (ErrorKind::InvalidConfig, "the address is not this host's", "see `ip address`")
        }
        _ => (ErrorKind::Unexpected, "the host refused to listen", "choose another address or port"),
    };
    Error::new(kind, "publish port", message)
        .with_context("address", address)
        .with_hint(hint)
        .with_source(error)
}

async fn serve(listener: TcpListener, port: u16, way: Arc<dyn Inward>, places: Arc<Semaphore>) {
    let mut carried = JoinSet::new();
    while !way.is_closed() {
        // Before the accept, so that who has no place waits where the kernel bounds the queue.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let way = Arc::clone(&way);
                carried.spawn(async move {
                    carry(stream, port, &*way).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, port, "a connection to a published port was not accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
        while carried.try_join_next().is_some() {}
    }
}

/// Carries one connection until both directions have ended; each may end before the other.
async fn carry(mut stream: TcpStream, port: u16, way: &dyn Inward) {
    stream.set_nodelay(true).ok();
    let carried = async {
        let inside = way.connect(port).await?;
        let mut inside = join(inside.reader, inside.writer);
        copy_bidirectional_with_sizes(&mut stream, &mut inside, CHUNK, CHUNK).await.map_err(Error::from)
    };
    if let Err(error) = carried.await {
        tracing::debug!(%error, port, "a connection to a published port broke off");
        // Reset, so that it does not look like an end.
        set_socket_linger(&stream, Some(Duration::ZERO)).ok();
    }
}
