//! The loopback of a sandbox: ports in memory, with half-close.
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use tokio::sync::mpsc;

use super::{
    pipe::{PipeReader, PipeWriter, pipe},
    process::lock,
};

/// One end of a connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) reader: PipeReader,
    pub(super) writer: PipeWriter,
}

type Ports = Arc<Mutex<BTreeMap<u16, mpsc::Sender<Connection>>>>;

/// The ports that something listens on.
#[derive(Debug, Default)]
pub(super) struct Loopback(Ports);

/// Listens until it is dropped.
#[derive(Debug)]
pub(super) struct Listener {
    port: u16,
    ports: Ports,
    pub(super) incoming: mpsc::Receiver<Connection>,
}

impl Loopback {
    /// Listens, unless something does already.
    pub(super) fn listen(&self, port: u16) -> Option<Listener> {
        let mut ports = lock(&self.0);
        if ports.contains_key(&port) {
            return None;
        }
        let (sender, incoming) = mpsc::channel(16);
        ports.insert(port, sender);
        Some(Listener { port, ports: Arc::clone(&self.0), incoming })
    }

    /// Connects, if something listens.
    pub(super) fn connect(&self, port: u16) -> Option<Connection> {
        let ((to_us, from_them), (to_them, from_us)) = (pipe(), pipe());
        let theirs = Connection { reader: to_them, writer: from_them };
        lock(&self.0).get(&port)?.try_send(theirs).ok()?;
        Some(Connection { reader: to_us, writer: from_us })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        lock(&self.ports).remove(&self.port);
    }
}
