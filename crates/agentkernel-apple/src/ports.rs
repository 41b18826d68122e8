//! Ports of the host that lead inside.
//!
//! With a network `container` publishes them itself. Without one it cannot, and this process carries each connection over
//! an `exec` of `nc`, as long as it owns the sandbox.
use std::{
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    process::{ExitStatus, Stdio},
    sync::Arc,
    task::{Context, Poll, ready},
};

use agentkernel_core::{
    Capability, Duplex, Error, ErrorKind, Lifetime, Network, PortMapping, Result, SandboxSpec, async_trait,
};
use agentkernel_host::{BoundPorts, Inward, PublishedPorts};
use tokio::{
    io::{AsyncRead, AsyncReadExt, ReadBuf},
    process::ChildStdout,
    sync::Mutex,
};

use crate::{argv, backend::Shared, stdin::Stdin};

/// Connects stdin and stdout to a port, `$1`. An end of stdin must get through, which not every `nc` does by itself.
pub(crate) const RELAY: &str = r#"
if busybox nc --help >/dev/null 2>&1; then exec busybox nc 127.0.0.1 "$1"; fi
case $(nc -h 2>&1) in *-N*) exec nc -N 127.0.0.1 "$1" ;; esac
exec nc 127.0.0.1 "$1"
"#;
/// Tells whether [`RELAY`] can work.
const CAN_RELAY: &str = "busybox nc --help >/dev/null 2>&1 || command -v nc >/dev/null";
const PUBLISH: &str = "publish port";

/// Returns the options for what `container` publishes itself.
pub(crate) fn options(spec: &SandboxSpec) -> Vec<String> {
    let own = own(spec);
    let option = |port: &PortMapping| {
        let address = match port.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)) {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        format!("--publish={address}:{}:{}", port.host, port.sandbox)
    };
    spec.ports.iter().filter(|_| own).map(option).collect()
}

fn own(spec: &SandboxSpec) -> bool {
    !spec.is_weaker(Capability::PortMapping) && spec.network == Network::Full
}

/// The ports of one handle.
#[derive(Debug, Default)]
pub(crate) struct Ports(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    #[default]
    None,
    Bound(BoundPorts),
    Served(PublishedPorts),
}

impl Ports {
    /// Binds the ports of a sandbox to be, and returns the mappings with those that were chosen: one that is taken is an
    /// error before anything is made.
    ///
    /// # Errors
    /// `Unsupported` for a sandbox without network that is to outlive its owner, and those of binding.
    pub(crate) async fn bind(&self, spec: &SandboxSpec) -> Result<Vec<PortMapping>> {
        if spec.ports.is_empty() || spec.is_weaker(Capability::PortMapping) {
            return Ok(spec.ports.clone());
        }
        if !own(spec) && spec.lifetime == Lifetime::Detached {
            return Err(Error::new(
                ErrorKind::Unsupported,
                PUBLISH,
                "without a network, ports end with the process that made the sandbox",
            )
            .with_context("backend", "apple")
            .with_context("field", "ports")
            .with_hint("give it a network (network = full), or do not detach it"));
        }
        let bound = BoundPorts::bind(&spec.ports).await?;
        let mappings = bound.mappings();
        // `container` binds its own, and takes no port 0.
        *self.0.lock().await = if own(spec) { State::None } else { State::Bound(bound) };
        Ok(mappings)
    }

    /// Leads them inside once the sandbox runs.
    ///
    /// # Errors
    /// `Unsupported` if the image has nothing that carries a connection.
    pub(crate) async fn serve(&self, shared: &Arc<Shared>, id: &str) -> Result<()> {
        let mut state = self.0.lock().await;
        let State::Bound(_) = &*state else { return Ok(()) };
        let line = argv::exec_script(id, None, CAN_RELAY, &[]);
        if shared.program.run(PUBLISH, &line, shared.config.request_timeout).await?.code != Some(0) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                PUBLISH,
                "the image has no `nc` to carry connections",
            )
            .with_context("backend", "apple")
            .with_context("field", "ports")
            .with_hint("use an image with busybox or nc, or give it a network (network = full)"));
        }
        if let State::Bound(bound) = std::mem::take(&mut *state) {
            let relay: Arc<dyn Inward> = Arc::new(Relay { shared: Arc::clone(shared), id: id.to_owned() });
            *state = State::Served(bound.serve_over(&relay));
        }
        Ok(())
    }

    /// Binds those of a sandbox that starts again.
    pub(crate) async fn bind_again(&self, network: &Network, ports: &[PortMapping]) -> Result<()> {
        let mut state = self.0.lock().await;
        if matches!(&*state, State::None) && *network != Network::Full && !ports.is_empty() {
            *state = State::Bound(BoundPorts::bind(ports).await?);
        }
        Ok(())
    }

    /// Frees them.
    pub(crate) async fn close(&self) {
        let state = std::mem::take(&mut *self.0.lock().await);
        if let State::Served(published) = state {
            published.close().await;
        }
    }
}

/// Leads inside over `exec`.
#[derive(Debug)]
struct Relay {
    shared: Arc<Shared>,
    id: String,
}

#[async_trait]
impl Inward for Relay {
    async fn connect(&self, port: u16) -> Result<Duplex> {
        let program = &self.shared.program;
        let mut command = program.command(&argv::relay(&self.id, port));
        command.stdin(Stdio::piped());
        let mut child = program.spawn("connect to port", &mut command)?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(Error::unexpected(
                "connect to port",
                "`container` has no pipes",
                "they were not made",
            ));
        };
        tokio::spawn(crate::command::drain(Some(stderr.take(64 << 10)), 0));
        let end = Box::pin(async move { child.wait().await });
        Ok(Duplex { reader: Box::pin(Carried { stdout, end }), writer: Box::pin(Stdin::new(stdin)) })
    }

    fn is_closed(&self) -> bool {
        false
    }
}

/// What comes from inside: it has ended only if the call did so well.
struct Carried {
    stdout: ChildStdout,
    end: Pin<Box<dyn Future<Output = io::Result<ExitStatus>> + Send>>,
}

impl AsyncRead for Carried {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stdout).poll_read(context, buffer))?;
        if buffer.filled().len() > before || buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let status = ready!(self.end.as_mut().poll(context))?;
        Poll::Ready(if status.success() { Ok(()) } else { Err(io::ErrorKind::ConnectionReset.into()) })
    }
}
