//! Streams made of the protocol's frames in no order, some of them damaged, against a guest that is init of an empty
//! sandbox of its own: it cuts them off or answers, and lives on.
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use agentkernel_guest::protocol::*;
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};

use crate::client::*;
use crate::hostile::start_listening;

/// How long it goes on, in seconds, in place of the default.
const SECONDS: &str = "AGENTKERNEL_FUZZ_SECONDS";
const DEFAULT: Duration = Duration::from_secs(5);

fn path() -> impl Strategy<Value = Vec<u8>> {
    let paths = vec!["/", "/tmp/a", "/tmp/a/b", "/tmp", "/none", "/proc/self/fd/0", "/guest", "relative", ""];
    prop::sample::select(paths).prop_map(|path| path.as_bytes().to_vec())
}

fn spawn() -> impl Strategy<Value = Request> {
    let argv = prop::sample::select(vec![
        argv(&["/guest"]),
        argv(&["/guest", "boot", "/none"]),
        argv(&["/none"]),
        argv(&["/tmp"]),
        argv(&[""]),
    ]);
    (argv, prop::option::of(path()), any::<(Option<(u16, u16)>, bool, bool)>(), prop::option::of(0..50u64))
        .prop_map(|(argv, cwd, (tty, stdin, detached), timeout_ms)| {
            Request::Spawn(Spawn { argv, cwd, tty, stdin, detached, timeout_ms, ..Spawn::default() })
        })
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        4 => spawn(),
        1 => (0..9u64, any::<bool>()).prop_map(|(id, replay)| Request::Attach { id, replay }),
        1 => Just(Request::Commands),
        1 => path().prop_map(|path| Request::Open { path }),
        2 => (path(), any::<bool>())
            .prop_map(|(path, parents)| Request::Write { path, mode: Some(0o600), parents }),
        1 => path().prop_map(|path| Request::Metadata { path }),
        1 => path().prop_map(|path| Request::ReadDir { path }),
        1 => (path(), any::<bool>()).prop_map(|(path, recursive)| Request::CreateDir { path, recursive }),
        1 => Just(Request::RemovePath { path: b"/tmp/a".to_vec(), recursive: true }),
        1 => path().prop_map(|path| Request::Pack { path }),
        2 => Just(Request::Unpack { path: b"/tmp/a".to_vec() }),
        1 => (1..4u16).prop_map(|port| Request::Connect { port }),
        1 => (1..4u16).prop_map(|port| Request::Listen { address: ([127, 0, 0, 1], port).into() }),
        1 => Just(Request::Stats),
    ]
}

fn frame() -> impl Strategy<Value = ToGuest> {
    let data =
        prop_oneof![Just(vec![7; 600]), Just(vec![0; 1024]), Just(vec![7; MAX_DATA]), Just(Vec::new())];
    prop_oneof![
        8 => request().prop_map(ToGuest::Request),
        4 => data.prop_map(ToGuest::Data),
        2 => Just(ToGuest::Eof),
        2 => prop_oneof![Just(0), Just(1), Just(WINDOW), Just(u32::MAX)].prop_map(ToGuest::Credit),
        2 => Just(ToGuest::Close),
        1 => (1u8..=64).prop_map(ToGuest::Signal),
        1 => any::<(u16, u16)>().prop_map(|(rows, columns)| ToGuest::Resize { rows, columns }),
        1 => Just(ToGuest::Detach),
        1 => any::<u64>().prop_map(ToGuest::Ping),
        1 => Just(ToGuest::Hello { version: VERSION, min_version: MIN_VERSION }),
        1 => Just(ToGuest::Configure(Box::default())),
    ]
}

/// Frames on few channels, and bytes of the stream to be replaced.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let channel = prop_oneof![8 => 1..5u32, 1 => Just(0), 1 => Just(GUEST_CHANNEL | 1)];
    let damage = prop_oneof![
        3 => Just(Vec::new()),
        1 => prop::collection::vec(any::<(prop::sample::Index, u8)>(), 1..4),
    ];
    (prop::collection::vec((channel, frame()), 1..24), damage).prop_map(|(frames, damage)| {
        let mut bytes = Vec::new();
        frames.iter().for_each(|(channel, frame)| frame.encode(*channel, &mut bytes));
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

/// Whether the stream asks for the end of the sandbox, which is no attack.
fn ends_the_sandbox(bytes: &[u8]) -> bool {
    let mut reader = FrameReader::new(MAX_TO_GUEST);
    reader.push(bytes);
    while let Ok(Some((header, payload))) = reader.next() {
        match ToGuest::decode(header.kind, payload) {
            Ok(ToGuest::Shutdown { .. }) => return true,
            Ok(ToGuest::Request(Request::Spawn(spawn))) if spawn.main => return true,
            _ => {}
        }
    }
    false
}

#[test]
fn no_stream_of_a_host_ends_or_holds_up_the_guest() {
    if !can_be_jailed() {
        return;
    }
    let mut listening = start_listening(Start { jailed: true, ..Start::default() });
    let mut runner = TestRunner::new(Config::default());
    let strategy = stream();
    let seconds = std::env::var(SECONDS).ok().and_then(|seconds| seconds.parse().ok());
    let (until, mut streams) = (Instant::now() + seconds.map_or(DEFAULT, Duration::from_secs), 0);
    while Instant::now() < until {
        let bytes = strategy.new_tree(&mut runner).unwrap().current();
        if ends_the_sandbox(&bytes) {
            continue;
        }
        streams += 1;
        let dead = || format!("after {streams} streams, the last is {}", hex(&bytes));
        let mut client = Client::new(UnixStream::connect(&listening.path).unwrap());
        let mut answers = client.stream.try_clone().unwrap();
        let listener = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                match answers.read(&mut buffer) {
                    Ok(0) => return true,
                    Ok(_) => {}
                    Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
                }
            }
        });
        // A stream that breaks the protocol is not read to its end.
        client.stream.write_all(&bytes).ok();
        client.stream.shutdown(Shutdown::Write).ok();
        assert!(listener.join().unwrap(), "the connection does not end, {}", dead());
        assert!(matches!(listening.guest.child.try_wait(), Ok(None)), "the guest ended {}", dead());
        if streams % 50 == 0 {
            listening.guest.client.ping();
        }
    }
    listening.guest.client.ping();
    eprintln!("{streams} streams");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
