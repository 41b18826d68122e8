//! Who waits for the answer to a ping, or for the end of the connection.
use std::{collections::HashMap, time::Duration};

use agentkernel_core::{Error, ErrorKind, Result};
use agentkernel_guest::protocol::ToGuest;
use tokio::{sync::oneshot, time::timeout};

use crate::{GuestClient, HELLO_DEADLINE, client::Link};

#[derive(Default)]
pub(crate) struct Pings {
    waiting: HashMap<u64, oneshot::Sender<()>>,
    next: u64,
}

impl Pings {
    /// Returns false for a number that was never sent.
    pub(crate) fn arrive(&mut self, number: u64) -> bool {
        match self.waiting.remove(&number) {
            Some(waiter) => {
                let _heard = waiter.send(());
                true
            }
            // The one who asked gave up.
            None => number < self.next,
        }
    }

    /// Tells all who wait that nothing comes any more.
    pub(crate) fn end(&mut self) {
        self.waiting.clear();
    }
}

/// A place in [`Pings`], given back when dropped: whoever waits may give up.
struct Pong<'a> {
    link: &'a Link,
    number: u64,
    waiter: oneshot::Receiver<()>,
}

impl<'a> Pong<'a> {
    fn new(link: &'a Link) -> Self {
        let (sender, waiter) = oneshot::channel();
        let number = link.with_pings(|pings| {
            let number = pings.next;
            pings.next += 1;
            if !link.is_ended() {
                pings.waiting.insert(number, sender);
            }
            number
        });
        Self { link, number, waiter }
    }
}

impl Drop for Pong<'_> {
    fn drop(&mut self) {
        self.link.with_pings(|pings| pings.waiting.remove(&self.number));
    }
}

impl GuestClient {
    /// Asks the guest for a sign of life; what was sent before it has then been taken.
    ///
    /// # Errors
    /// `Timeout` after [`HELLO_DEADLINE`], `Disconnected`.
    pub async fn ping(&self) -> Result<()> {
        let mut pong = Pong::new(self.link());
        self.link().send_frame(0, &ToGuest::Ping(pong.number));
        self.answer("ping the guest", &mut pong.waiter, HELLO_DEADLINE).await
    }

    /// Asks the guest to end the sandbox and waits until the connection ends.
    ///
    /// # Errors
    /// `Timeout` if it lives on well past the grace.
    pub async fn shutdown(&self, grace: Duration) -> Result<()> {
        let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
        // A ping that is never sent: its waiter is dropped when the connection ends.
        let mut pong = Pong::new(self.link());
        self.link().send_frame(0, &ToGuest::Shutdown { grace_ms });
        match timeout(grace.saturating_add(HELLO_DEADLINE), &mut pong.waiter).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::new(ErrorKind::Timeout, "end the sandbox", "it lives on after its grace")
                .with_context("grace", format!("{} ms", grace.as_millis()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use agentkernel_guest::protocol::{FromGuest, VERSION};
    use futures_util::FutureExt;
    use tokio::{io::AsyncWriteExt, net::UnixStream};

    use super::*;

    /// Connects to a guest that says hello and nothing else.
    async fn silent() -> (GuestClient, UnixStream) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut hello = Vec::new();
        FromGuest::Hello { version: VERSION, min_version: 1 }.encode(0, &mut hello);
        theirs.write_all(&hello).await.unwrap();
        (GuestClient::connect(ours).await.unwrap(), theirs)
    }

    fn waiting(client: &GuestClient) -> usize {
        client.link().with_pings(|pings| pings.waiting.len())
    }

    /// Lets the call begin and drops it.
    async fn give_up(client: &GuestClient, call: impl Future<Output = Result<()>>) {
        let mut call = std::pin::pin!(call);
        assert!(call.as_mut().now_or_never().is_none());
        assert_eq!(waiting(client), 1);
    }

    #[tokio::test]
    async fn who_gives_up_a_ping_or_a_shutdown_leaves_nothing() {
        let (client, _guest) = silent().await;
        give_up(&client, client.ping()).await;
        assert_eq!(waiting(&client), 0);
        give_up(&client, client.shutdown(Duration::from_secs(1))).await;
        assert_eq!(waiting(&client), 0);
    }
}
