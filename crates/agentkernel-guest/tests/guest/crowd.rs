//! Many at once, and more than are served at once.
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::{fs, thread};

use agentkernel_guest::protocol::*;

use crate::client::*;
use crate::hostile::start_listening;

const CONNECTIONS: u8 = 100;
/// What the guest may have had in memory at most, in KiB: a window for each channel of those that are served at once, and
/// some MiB of its own. Measured: 22 to 27 MiB.
const MOST_MEMORY: u64 = MAX_CONNECTIONS as u64 * 3 * (WINDOW as u64 >> 10) + (8 << 10);

/// Content of which no two visitors, and no two places, have the same.
fn content(visitor: u8) -> Vec<u8> {
    (0..200_000u32).map(|at| (at % 251) as u8 ^ visitor).collect()
}

/// Connects and opens three channels: a command that lasts, and meanwhile a file written and read.
fn visit(socket: &Path, directory: &Path, visitor: u8) {
    let mut client = Client::new(UnixStream::connect(socket).unwrap());
    let (content, file) = (content(visitor), directory.join(format!("file-{visitor}")));
    let path = file.to_str().unwrap().as_bytes().to_vec();
    let echo = client.open(Request::Spawn(Spawn { stdin: true, ..sh("cat; echo done >&2; exit 7") }));
    let write = client.open(Request::Write { path: path.clone(), mode: None, parents: false });
    client.feed(write, &content);
    assert_eq!(client.finish(write).end, Some(FromGuest::Done));
    assert!(fs::read(&file).unwrap() == content);
    let read = client.run(Request::Open { path });
    assert!(read.end == Some(FromGuest::Done) && read.stdout == content);
    client.feed(echo, &content);
    let echoed = client.finish(echo);
    assert_eq!((echoed.status(), echoed.stderr.as_slice()), (Status::Code(7), b"done\n".as_slice()));
    assert!(echoed.stdout == content);
}

#[test]
fn a_hundred_connections_with_three_hundred_channels_are_served_and_leave_nothing() {
    let mut listening = start_listening(Start::default());
    listening.guest.client.ping();
    let proc = Path::new("/proc").join(listening.guest.child.id().to_string());
    // The guest shows its descriptors to root alone.
    let descriptors = || fs::read_dir(proc.join("fd")).map_or(0, Iterator::count);
    let children =
        || fs::read_to_string(proc.join(format!("task/{}/children", listening.guest.child.id()))).unwrap();
    let before = descriptors();
    thread::scope(|scope| {
        for visitor in 0..CONNECTIONS {
            let (socket, directory) = (&listening.path, listening.guest.directory.path());
            scope.spawn(move || visit(socket, directory, visitor));
        }
    });
    wait_until("no process is left", || children().is_empty().then_some(()));
    wait_until("no descriptor is left", || (descriptors() == before).then_some(()));
    let status = fs::read_to_string(proc.join("status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    let peak: u64 = peak.unwrap().parse().unwrap();
    assert!(peak < MOST_MEMORY, "{peak} KiB");
    listening.guest.client.ping();
}
