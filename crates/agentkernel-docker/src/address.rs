//! Where an engine listens, and how a connection to it is made.
use std::{fmt, io, path::PathBuf, time::Duration};

use rustix::net::sockopt;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use crate::{greeting::Listener, tls::Tls};

/// How long a connection over a network may take to be made, TLS with it.
const CONNECT: Duration = Duration::from_secs(10);
/// After how much silence the other side's kernel is asked whether it is there, and how often.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// How often it may not answer.
const PROBES: u32 = 4;

/// Where an engine listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// A socket of this machine.
    Unix(PathBuf),
    /// A port. Without TLS whoever reaches it has the engine.
    Tcp { host: String, port: u16, tls: Option<Tls> },
}

/// A connection to an engine.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Address {
    /// Reads a port without TLS, `HOST:PORT` or `[IPV6]:PORT`, with or without a slash behind it.
    pub(crate) fn tcp(text: &str) -> Option<Self> {
        let text = text.strip_suffix('/').unwrap_or(text);
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once("]:")?;
                host.parse::<std::net::Ipv6Addr>().ok()?;
                (host, port)
            }
            None => text.rsplit_once(':')?,
        };
        let of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
        let well_formed = (1..=253).contains(&host.len())
            && host.bytes().all(of_name)
            && (!host.contains(':') || text.starts_with('['));
        let port = port.parse::<u16>().ok().filter(|port| *port != 0)?;
        well_formed.then(|| Self::Tcp { host: host.to_owned(), port, tls: None })
    }

    /// Returns whether it is a socket of this machine's file system.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self, Self::Unix(_))
    }

    /// Says what others than this machine's processes can do there that they should not.
    pub(crate) fn exposure(&self) -> Option<&'static str> {
        let Self::Tcp { host, tls, .. } = self else { return None };
        let ip = host.parse::<std::net::IpAddr>();
        if host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback()) {
            return None;
        }
        match tls {
            None => Some(
                "over plain tcp: whoever reaches that port is root there, and whoever sees the network reads what is sent",
            ),
            Some(tls) if tls.is_anonymous() => {
                Some("without a certificate of ours: whoever reaches that port is root there")
            }
            Some(_) => None,
        }
    }

    /// Makes a connection; returns with it the process that listens, if it can be seen from here.
    pub(crate) async fn connect(&self) -> io::Result<(Box<dyn Stream>, Option<Listener>)> {
        match self {
            Self::Unix(path) => {
                let stream = UnixStream::connect(path).await?;
                let peer = stream.peer_cred()?;
                let pid = peer.pid().filter(|pid| *pid > 0);
                let listener = pid.map(|pid| Listener { pid, uid: peer.uid() });
                Ok((Box::new(stream), listener))
            }
            Self::Tcp { host, port, tls } => {
                let connected = timeout(CONNECT, async {
                    let stream = TcpStream::connect((host.as_str(), *port)).await?;
                    keep_alive(&stream)?;
                    match tls {
                        Some(tls) => tls.over(stream).await,
                        None => Ok(Box::new(stream) as Box<dyn Stream>),
                    }
                });
                let stream = connected.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
                Ok((stream, None))
            }
        }
    }
}

/// A connection whose other side has vanished without a word must end: it may be a lease.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE)?;
    sockopt::set_tcp_keepcnt(stream, PROBES)?;
    Ok(())
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Tcp { host, port, tls } => {
                let scheme = if tls.is_some() { "https" } else { "tcp" };
                let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
                write!(f, "{scheme}://{open}{host}{close}:{port}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown_alike() {
        for good in ["127.0.0.1:2375", "localhost:1", "[::1]:2375", "build-1.example:65535"] {
            assert_eq!(Address::tcp(good).unwrap().to_string(), format!("tcp://{good}"));
        }
        assert_eq!(Address::tcp("h:1/"), Address::tcp("h:1"));
        for bad in
            ["", "h", "h:", ":1", "h:0", "h:65536", "::1:2375", "[::1]", "[x]:1", "u@h:1", "h:1/x", "h:1?x"]
        {
            assert_eq!(Address::tcp(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_loopback_is_closed_to_the_network() {
        for (text, open) in [
            ("127.0.0.1:1", false),
            ("[::1]:1", false),
            ("localhost:1", false),
            ("10.0.0.1:1", true),
            ("h:1", true),
        ] {
            assert_eq!(Address::tcp(text).unwrap().exposure().is_some(), open, "{text}");
        }
        assert_eq!(Address::Unix("/s".into()).exposure(), None);
    }
}
