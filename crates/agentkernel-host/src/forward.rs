//! Connections into and out of a sandbox over a guest.
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use agentkernel_core::{Duplex, Events, Result};
use agentkernel_guest::protocol::{FromGuest, Request, ToGuest};
use bytes::{Buf, Bytes};
use futures_core::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    GuestClient, REQUEST_DEADLINE,
    channel::{Channel, Frame},
    failure,
};

const CONNECT: &str = "connect to a port of the sandbox";
const LISTEN: &str = "listen in the sandbox";

pub(crate) async fn connect(client: &GuestClient, port: u16) -> Result<Duplex> {
    let channel = client.request(Request::Connect { port }, |_, _| ())?;
    match channel.answer(CONNECT, REQUEST_DEADLINE).await? {
        Frame::Other(FromGuest::Started { .. }) => Ok(duplex(channel)),
        Frame::Other(FromGuest::Failed(failed)) => {
            Err(failure::refused(CONNECT, &failed).with_context("port", port))
        }
        _ => Err(failure::out_of_place(CONNECT)),
    }
}

pub(crate) async fn listen(client: &GuestClient, address: SocketAddr) -> Result<Events<Duplex>> {
    let channel = client.request(Request::Listen { address }, |_, _| ())?;
    match channel.answer(LISTEN, REQUEST_DEADLINE).await? {
        Frame::Other(FromGuest::Started { .. }) => Ok(Box::pin(Accepted { channel, done: false })),
        Frame::Other(FromGuest::Failed(failed)) => {
            Err(failure::refused(LISTEN, &failed).with_context("address", address))
        }
        _ => Err(failure::out_of_place(LISTEN)),
    }
}

/// Both halves share the channel; the last one to go closes it.
fn duplex(channel: Channel) -> Duplex {
    let channel = Arc::new(channel);
    Duplex {
        reader: Box::pin(Receiver { channel: Arc::clone(&channel), current: Bytes::new(), done: false }),
        writer: Box::pin(Sender { channel, ended: false }),
    }
}

struct Accepted {
    channel: Channel,
    done: bool,
}

impl Stream for Accepted {
    type Item = Result<Duplex>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while !self.done {
            let error = match ready!(self.channel.poll_next(context)) {
                Ok(Frame::Other(FromGuest::Accepted { channel })) => match self.channel.accepted(channel) {
                    Some(accepted) => return Poll::Ready(Some(Ok(duplex(accepted)))),
                    // It was over before we looked.
                    None => continue,
                },
                Ok(Frame::Other(FromGuest::Done)) => {
                    self.done = true;
                    continue;
                }
                Ok(Frame::Other(FromGuest::Failed(failed))) => failure::refused(LISTEN, &failed),
                Ok(_) => failure::out_of_place(LISTEN),
                Err(error) => error.with_operation(LISTEN),
            };
            self.done = true;
            return Poll::Ready(Some(Err(error)));
        }
        Poll::Ready(None)
    }
}

struct Receiver {
    channel: Arc<Channel>,
    current: Bytes,
    done: bool,
}

impl AsyncRead for Receiver {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.current.is_empty() && !self.done {
            match ready!(self.channel.poll_next(context)) {
                Ok(Frame::Stdout(bytes)) => self.current = bytes,
                Ok(Frame::Other(FromGuest::Eof | FromGuest::Done)) => self.done = true,
                Ok(Frame::Other(FromGuest::Failed(failed))) => {
                    return Poll::Ready(Err(failure::refused(CONNECT, &failed).into()));
                }
                Ok(_) => return Poll::Ready(Err(failure::out_of_place(CONNECT).into())),
                Err(error) => return Poll::Ready(Err(error.with_operation(CONNECT).into())),
            }
        }
        let count = self.current.len().min(buffer.remaining());
        buffer.put_slice(self.current.get(..count).unwrap_or_default());
        self.current.advance(count);
        Poll::Ready(Ok(()))
    }
}

struct Sender {
    channel: Arc<Channel>,
    ended: bool,
}

impl Sender {
    fn end(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            self.channel.send(&ToGuest::Eof);
        }
    }
}

impl AsyncWrite for Sender {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.channel.poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.end();
    }
}
