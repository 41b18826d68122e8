//! The host's client against a guest that says anything, over a real socket.
//!
//! Everything that a sandbox can be asked for is under way at once, so that the channels are 1, 2, 3 and so on. When
//! the guest has said all it closes, and every call must end.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a target fails by a panic")]
use std::{io::Cursor, net::Ipv4Addr, time::Duration};

use agentkernel_core::{BackendType, Depth, ExecEvent, ExecOptions, ExecSpec, Replay, SandboxPath, TtySize};
use agentkernel_guest::protocol::{FromGuest, VERSION};
use agentkernel_host::{GuestClient, GuestSandbox};
use futures_util::StreamExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    runtime::Builder,
    time::timeout,
};

/// Far longer than any call can take once the guest has closed.
const PATIENCE: Duration = Duration::from_secs(20);

/// The first byte says in which pieces the rest arrives, and whether a hello comes before it.
pub(crate) fn client(bytes: &[u8]) {
    let Some((how, said)) = bytes.split_first() else { return };
    let mut stream = Vec::new();
    if how & 0x80 == 0 {
        FromGuest::Hello { version: VERSION, min_version: 1 }.encode(0, &mut stream);
    }
    stream.extend_from_slice(said);
    let piece = match usize::from(how & 0x7f) {
        0 => usize::MAX,
        bytes => bytes * 16,
    };
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let speaking = async move {
            let (mut reader, mut writer) = theirs.into_split();
            let listening =
                tokio::spawn(async move { tokio::io::copy(&mut reader, &mut tokio::io::sink()).await });
            for piece in stream.chunks(piece) {
                if writer.write_all(piece).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            drop(writer);
            let _listened = listening.await;
        };
        let asking = async {
            let Ok(client) = GuestClient::connect(ours).await else { return };
            let sandbox =
                GuestSandbox::new(client.clone(), "fuzz".parse().unwrap(), BackendType::External("fuzz"));
            everything(&sandbox).await;
            client.close();
        };
        timeout(PATIENCE, async { tokio::join!(speaking, asking) })
            .await
            .expect("every call ends with the stream");
    });
}

async fn everything(sandbox: &GuestSandbox) {
    let path = SandboxPath::new("/tmp/fuzz").unwrap();
    let command = |options| ExecSpec::new(["true"], options).unwrap();
    let (plain, terminal) = (
        command(ExecOptions::default()),
        command(ExecOptions::default().with_stdin().with_tty(TtySize::default())),
    );
    let (mut content, mut tar) = (Cursor::new(vec![7; 300 << 10]), Cursor::new(vec![7; 300 << 10]));
    let options = Default::default();
    let id = 1.into();
    tokio::join!(
        async {
            if let Ok(session) = sandbox.spawn(&plain).await
                && let Ok(output) = session.collect().await
            {
                assert!(output.stdout.len() + output.stderr.len() < 1 << 20, "more than was said");
            }
        },
        async {
            let Ok(mut session) = sandbox.spawn(&terminal).await else { return };
            let stdin = session.take_stdin();
            let writing = async {
                if let Some(mut stdin) = stdin {
                    let _written = stdin.write_all(&[7; 300 << 10]).await;
                }
            };
            let reading = async {
                let mut exits = 0;
                while let Some(Ok(event)) = session.next_event().await {
                    assert_eq!(exits, 0, "something comes after the end");
                    exits += usize::from(matches!(event, ExecEvent::Exited(_)));
                }
            };
            tokio::join!(writing, reading);
        },
        async { drop(sandbox.commands().await) },
        async {
            if let Ok(session) = sandbox.attach(&id, Replay::Kept).await {
                let _output = session.collect().await;
            }
        },
        async { drop(sandbox.stats().await) },
        async {
            if let Ok(mut reader) = sandbox.open(&path).await {
                let _read = reader.read_to_end(&mut Vec::new()).await;
            }
        },
        async { drop(sandbox.write(&path, &options, &mut content).await) },
        async { drop(sandbox.metadata(&path).await) },
        async {
            if let Ok(mut entries) = sandbox.read_dir(&path).await {
                while let Some(Ok(entry)) = entries.next().await {
                    assert!(!entry.name.is_empty() && !entry.name.contains(&b'/'), "it is a name");
                }
            }
        },
        async { drop(sandbox.create_dir(&path, Depth::Recursive).await) },
        async { drop(sandbox.remove_path(&path, Depth::Recursive).await) },
        async {
            if let Ok(mut reader) = sandbox.pack(&path).await {
                let _read = reader.read_to_end(&mut Vec::new()).await;
            }
        },
        async { drop(sandbox.unpack(&path, &mut tar).await) },
        async {
            if let Ok(mut duplex) = sandbox.connect(80).await {
                let _written = duplex.writer.write_all(&[7; 1000]).await;
                let _read = duplex.reader.read_to_end(&mut Vec::new()).await;
            }
        },
        async {
            if let Ok(mut connections) = sandbox.listen((Ipv4Addr::LOCALHOST, 80).into()).await {
                while let Some(Ok(mut duplex)) = connections.next().await {
                    let _read = duplex.reader.read_to_end(&mut Vec::new()).await;
                }
            }
        },
        async { drop(sandbox.client().ping().await) },
    );
}
