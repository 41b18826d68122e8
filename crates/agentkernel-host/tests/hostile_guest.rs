//! A guest that lies, over a real socket: it cannot make the host allocate, hang, crash or believe.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::time::Duration;

use agentkernel_core::{
    BackendType, ErrorKind, Events, ExecEvent, ExecOptions, ExecSpec, Result, SandboxPath, WriteOptions,
};
use agentkernel_guest::protocol::{
    DirectoryEntry, FileKind, FrameReader, FromGuest, GUEST_CHANNEL, Header, MAX_DATA, MAX_TO_GUEST, Status,
    ToGuest, VERSION, WINDOW, encode_frame,
};
use agentkernel_host::{GuestClient, GuestSandbox};
use futures_util::StreamExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};

/// The other end of the socket: whatever a test makes of it.
struct Liar {
    stream: UnixStream,
    frames: FrameReader,
}

impl Liar {
    async fn send(&mut self, channel: u32, frame: FromGuest) {
        let mut bytes = Vec::new();
        frame.encode(channel, &mut bytes);
        self.send_raw(&bytes).await;
    }

    /// The host may have ended the connection: that is what the tests look for, on the other side.
    async fn send_raw(&mut self, bytes: &[u8]) {
        let _sent = self.stream.write_all(bytes).await;
    }

    /// Returns the next frame of the host's, `None` once it ended the connection.
    async fn receive(&mut self) -> Option<(u32, ToGuest)> {
        loop {
            if let Some((header, payload)) = self.frames.next().unwrap() {
                return Some((header.channel, ToGuest::decode(header.kind, payload).unwrap()));
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.frames.push(&chunk[..count]),
            }
        }
    }

    /// Waits for the channel that the host opens with a request.
    async fn request(&mut self) -> u32 {
        loop {
            if let (channel, ToGuest::Request(_)) = self.receive().await.expect("the host asks for something")
            {
                return channel;
            }
        }
    }
}

fn hello() -> FromGuest {
    FromGuest::Hello { version: VERSION, min_version: 1 }
}

/// Connects a host to a liar that said hello.
async fn pair() -> (GuestSandbox, Liar) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut liar = Liar { stream: theirs, frames: FrameReader::new(MAX_TO_GUEST) };
    liar.send(0, hello()).await;
    let client = GuestClient::connect(ours).await.unwrap();
    (GuestSandbox::new(client, "demo".parse().unwrap(), BackendType::External("liar")), liar)
}

fn command() -> ExecSpec {
    ExecSpec::new(["true"], ExecOptions::default()).unwrap()
}

fn path(text: &str) -> SandboxPath {
    text.parse().unwrap()
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.expect("within the deadline")
}

/// Runs a command whose guest answers with what `lie` sends, and returns what came of it.
async fn command_against(lie: impl AsyncFnOnce(&mut Liar, u32)) -> Result<agentkernel_core::ExecOutput> {
    let (sandbox, mut liar) = pair().await;
    let guest = async {
        let channel = liar.request().await;
        liar.send(channel, FromGuest::Started { id: 1 }).await;
        lie(&mut liar, channel).await;
        // Stay, so that only the host can have ended the connection.
        while liar.receive().await.is_some() {}
    };
    let host = async {
        let spec = command();
        let outcome = match sandbox.spawn(&spec).await {
            Ok(session) => session.collect().await,
            Err(error) => Err(error),
        };
        sandbox.client().close();
        outcome
    };
    soon(async { tokio::join!(host, guest).0 }).await
}

fn raw(kind: u8, channel: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_frame(&mut bytes, kind, channel, payload);
    bytes
}

#[tokio::test]
async fn a_guest_that_says_nothing_times_out() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let error = soon(GuestClient::connect(ours)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
}

#[tokio::test]
async fn a_guest_of_another_version_is_unsupported() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut liar = Liar { stream: theirs, frames: FrameReader::new(MAX_TO_GUEST) };
    liar.send(0, FromGuest::Hello { version: 9, min_version: 9 }).await;
    let error = soon(GuestClient::connect(ours)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn a_second_hello_ends_the_connection() {
    let error = command_against(async |liar, _| liar.send(0, hello()).await).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disconnected);
}

#[tokio::test]
async fn a_frame_that_claims_four_gigabytes_ends_the_connection() {
    let header = Header { length: u32::MAX as usize, kind: FromGuest::STDOUT, channel: 1 }.encode();
    let error = command_against(async |liar, _| liar.send_raw(&header).await).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disconnected);
}

#[tokio::test]
async fn an_unknown_kind_ends_the_connection() {
    let error = command_against(async |liar, channel| liar.send_raw(&raw(0xee, channel, b"")).await)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disconnected);
}

#[tokio::test]
async fn data_without_bytes_ends_the_connection() {
    for kind in [FromGuest::STDOUT, FromGuest::STDERR] {
        let error =
            command_against(async |liar, channel| liar.send_raw(&raw(kind, channel, b"")).await).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Disconnected);
    }
}

#[tokio::test]
async fn output_on_a_channel_that_was_never_opened_ends_the_connection() {
    let error = command_against(async |liar, channel| liar.send(channel + 1, FromGuest::Done).await)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disconnected);
}

#[tokio::test]
async fn an_answer_of_another_request_is_refused() {
    let error =
        command_against(async |liar, channel| liar.send(channel, FromGuest::Done).await).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disconnected);
}

#[tokio::test]
async fn a_connection_that_ends_before_the_exit_is_no_success() {
    let error = command_against(async |liar, channel| {
        liar.send(channel, FromGuest::Stdout(b"all fine".to_vec())).await;
        liar.stream.shutdown().await.unwrap();
    })
    .await
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disconnected);
}

/// As of a guest that is paused, or that does not enforce it; one that still sends is only slow.
#[tokio::test]
async fn a_guest_that_lets_a_deadline_pass_is_not_waited_for() {
    let (sandbox, mut liar) = pair().await;
    let options = ExecOptions::default().with_timeout(Duration::from_secs(1));
    let spec = ExecSpec::new(["true"], options).unwrap();
    let (session, channel) = tokio::join!(sandbox.spawn(&spec), async {
        let channel = liar.request().await;
        liar.send(channel, FromGuest::Started { id: 1 }).await;
        channel
    });
    let mut session = session.unwrap();
    tokio::time::pause();
    for _ in 0..3 {
        liar.send(channel, FromGuest::Stdout(b"x".to_vec())).await;
        assert!(matches!(session.next_event().await, Some(Ok(ExecEvent::Stdout(_)))));
        tokio::time::advance(Duration::from_secs(9)).await;
    }
    let begin = tokio::time::Instant::now();
    assert_eq!(soon(session.collect()).await.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(begin.elapsed() <= Duration::from_secs(11), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn output_after_the_exit_is_never_delivered() {
    let output = command_against(async |liar, channel| {
        liar.send(channel, FromGuest::Exited(Status::Code(3))).await;
        liar.send(channel, FromGuest::Stdout(b"forged".to_vec())).await;
    })
    .await
    .unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (3, 0));
}

#[tokio::test]
async fn more_output_than_was_granted_ends_the_connection() {
    let (sandbox, mut liar) = pair().await;
    let guest = async {
        let channel = liar.request().await;
        liar.send(channel, FromGuest::Started { id: 1 }).await;
        for _ in 0..=(WINDOW as usize / MAX_DATA) {
            liar.send(channel, FromGuest::Stdout(vec![b'x'; MAX_DATA])).await;
        }
        while liar.receive().await.is_some() {}
    };
    // The session is held and not read: nothing is granted.
    let spec = command();
    let (session, ()) = soon(async { tokio::join!(sandbox.spawn(&spec), guest) }).await;
    let session = session.unwrap();
    assert!(sandbox.client().is_closed());
    drop(session);
}

#[tokio::test]
async fn a_million_one_byte_frames_cost_little_more_than_their_bytes() {
    let (sandbox, mut liar) = pair().await;
    let before = resident_kib();
    let guest = async {
        let channel = liar.request().await;
        liar.send(channel, FromGuest::Started { id: 1 }).await;
        let frame = raw(FromGuest::STDOUT, channel, b"x");
        for _ in 0..WINDOW / 1024 {
            liar.send_raw(&frame.repeat(1024)).await;
        }
        // The host has taken all once it answers to what comes after.
        liar.send(0, FromGuest::Pong(99)).await;
        while liar.receive().await.is_some() {}
    };
    let spec = command();
    let (session, ()) = soon(async { tokio::join!(sandbox.spawn(&spec), guest) }).await;
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 16 << 10, "grew by {grown} KiB");
    drop(session);
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn a_guest_that_grants_for_ever_and_never_reads_cannot_make_the_host_queue() {
    let (sandbox, mut liar) = pair().await;
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let mut content = Endless(std::sync::Arc::clone(&sent));
    let guest = async {
        let channel = liar.request().await;
        for _ in 0..2000 {
            liar.send(channel, FromGuest::Credit(u32::MAX)).await;
            tokio::task::yield_now().await;
        }
    };
    let target = path("/f");
    let options = WriteOptions::default();
    tokio::select! {
        result = sandbox.write(&target, &options, &mut content) => panic!("the write ended: {result:?}"),
        () = async { guest.await; tokio::time::sleep(Duration::from_millis(200)).await } => {}
    }
    let queued = sent.load(std::sync::atomic::Ordering::Relaxed);
    assert!(queued < 4 << 20, "{queued} bytes were queued");
}

/// Content without an end that counts what was taken of it.
struct Endless(std::sync::Arc<std::sync::atomic::AtomicU64>);

impl tokio::io::AsyncRead for Endless {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let room = buffer.remaining();
        buffer.initialize_unfilled();
        buffer.advance(room);
        self.0.fetch_add(room as u64, std::sync::atomic::Ordering::Relaxed);
        std::task::Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn names_that_lead_out_of_a_directory_end_the_connection() {
    let (sandbox, mut liar) = pair().await;
    let guest = async {
        let channel = liar.request().await;
        let mut frame = Vec::new();
        let entry = DirectoryEntry { name: b"../../etc/passwd".to_vec(), kind: FileKind::File };
        FromGuest::Entry(entry).encode(channel, &mut frame);
        liar.send_raw(&frame).await;
        while liar.receive().await.is_some() {}
    };
    let target = path("/d");
    let host = async {
        let seen = match sandbox.read_dir(&target).await {
            Ok(entries) => collect(entries).await,
            Err(error) => Err(error),
        };
        sandbox.client().close();
        seen
    };
    let (seen, ()) = soon(async { tokio::join!(host, guest) }).await;
    assert_eq!(seen.unwrap_err().kind(), ErrorKind::Disconnected);
}

async fn collect<T>(mut events: Events<T>) -> Result<Vec<T>> {
    let mut all = Vec::new();
    while let Some(event) = events.next().await {
        all.push(event?);
    }
    Ok(all)
}

#[tokio::test]
async fn a_connection_that_nobody_asked_for_is_refused() {
    let error = command_against(async |liar, channel| {
        liar.send(channel, FromGuest::Accepted { channel: GUEST_CHANNEL | 1 }).await;
    })
    .await
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disconnected);
}

#[tokio::test]
async fn dropping_a_session_tells_the_guest() {
    let (sandbox, mut liar) = pair().await;
    let spec = command();
    let guest = async {
        let channel = liar.request().await;
        liar.send(channel, FromGuest::Started { id: 1 }).await;
        channel
    };
    let (session, channel) = soon(async { tokio::join!(sandbox.spawn(&spec), guest) }).await;
    drop(session.unwrap());
    let told = soon(async {
        loop {
            if let Some((to, ToGuest::Close)) = liar.receive().await {
                return to;
            }
        }
    });
    assert_eq!(told.await, channel);
}

#[tokio::test]
async fn closing_the_client_ends_every_session() {
    let (sandbox, mut liar) = pair().await;
    let spec = command();
    let guest = async {
        let channel = liar.request().await;
        liar.send(channel, FromGuest::Started { id: 1 }).await;
    };
    let (session, ()) = soon(async { tokio::join!(sandbox.spawn(&spec), guest) }).await;
    sandbox.client().close();
    let error = soon(session.unwrap().collect()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disconnected);
}

#[tokio::test]
async fn detaching_a_command_that_has_ended_is_no_error() {
    let (sandbox, mut liar) = pair().await;
    let spec = command();
    let guest = async {
        let channel = liar.request().await;
        liar.send(channel, FromGuest::Started { id: 7 }).await;
        liar.send(channel, FromGuest::Exited(Status::Code(0))).await;
        // The sandbox ends with its main command.
        drop(liar);
    };
    let (session, ()) = soon(async { tokio::join!(sandbox.spawn(&spec), guest) }).await;
    assert_eq!(soon(session.unwrap().detach()).await.unwrap().as_str(), "7");
}
