//! Connections into and out of a sandbox over a guest.
use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use agentkernel_core::{Duplex, Events, Result};
use agentkernel_guest::protocol::{FromGuest, Request};
use futures_core::Stream;

use crate::{
    GuestClient, REQUEST_DEADLINE,
    channel::{Channel, Frame},
    failure,
    stream::{ChannelReader, ChannelWriter, End},
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
        reader: Box::pin(ChannelReader::new(Arc::clone(&channel), CONNECT, End::HalfClose)),
        writer: Box::pin(ChannelWriter::new(channel)),
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
