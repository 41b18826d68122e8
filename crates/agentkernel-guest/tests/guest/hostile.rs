//! Clients that break the protocol lose their connection; everyone else goes on.
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use agentkernel_guest::protocol::*;

use crate::client::*;

/// A guest with a listening socket, which came with the configuration.
pub(crate) struct Listening {
    pub(crate) guest: Guest,
    pub(crate) path: std::path::PathBuf,
}

impl Listening {
    pub(crate) fn connect(&self) -> Client {
        Client::new(UnixStream::connect(&self.path).unwrap())
    }
}

pub(crate) fn start_listening(mut start: Start) -> Listening {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ctl");
    let ctl = UnixListener::bind(&path).unwrap();
    let boot = UnixListener::bind(directory.path().join("boot")).unwrap();
    start.configure.listener = true;
    start.configure.lease = false;
    let mut command = start.command(&directory.path().join("boot"));
    let child = command.stdout(start.stdout).spawn().unwrap();
    let stream = boot.accept().unwrap().0;
    // Hello and configuration in one write, the descriptor with the first byte of the latter.
    let mut client = Client::new(stream.try_clone().unwrap());
    let mut bytes = Vec::new();
    ToGuest::Configure(Box::new(start.configure)).encode(0, &mut bytes);
    send_with(&stream, &bytes, &ctl.into());
    assert!(matches!(client.next(0), FromGuest::Hello { .. }));
    let FromGuest::Report(report) = client.next(0) else { panic!("no report") };
    Listening { guest: Guest { child, client, report: *report, directory }, path }
}

fn send_with(stream: &UnixStream, bytes: &[u8], fd: &OwnedFd) {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let sent = sendmsg(stream, &[std::io::IoSlice::new(bytes)], &mut control, SendFlags::empty()).unwrap();
    assert_eq!(sent, bytes.len());
}

fn frame(kind: u8, channel: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_frame(&mut bytes, kind, channel, payload);
    bytes
}

fn encoded(channel: u32, frames: &[ToGuest]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for frame in frames {
        frame.encode(channel, &mut bytes);
    }
    bytes
}

#[test]
fn who_breaks_the_protocol_is_cut_off_and_nobody_else() {
    let mut listening = start_listening(Start::default());
    let mut witness = listening.connect();
    let sleeper = Spawn { detached: false, ..sh("sleep 1000") };
    let running = witness.open(Request::Spawn(sleeper));
    assert!(matches!(witness.next(0), FromGuest::Hello { .. }));
    assert!(matches!(witness.next(running), FromGuest::Started { .. }));
    let spawn = |script: &str| ToGuest::Request(Request::Spawn(Spawn { stdin: true, ..sh(script) }));
    let too_much = ToGuest::Data(vec![0; MAX_DATA]);
    let stuffed: Vec<ToGuest> =
        std::iter::once(spawn("sleep 1000")).chain(std::iter::repeat_n(too_much, 6)).collect();
    let channels: Vec<u8> = (1..=257).flat_map(|channel| encoded(channel, &[spawn("sleep 1000")])).collect();
    let attacks = [
        ("oversize frame", Header { length: MAX_TO_GUEST + 1, kind: 0x10, channel: 1 }.encode().to_vec()),
        ("unknown kind", frame(0x77, 1, b"")),
        ("a frame of the guest's", frame(0x82, 0, b"")),
        ("reserved descriptor frame", frame(ToGuest::DESCRIPTOR, 1, b"")),
        ("garbage in a request", frame(0x10, 1, b"\xff\xff\xff\xff\xff")),
        ("channel zero", encoded(0, &[spawn("true")])),
        ("data on channel zero", encoded(0, &[ToGuest::Data(vec![1])])),
        ("a channel of the guest's", encoded(GUEST_CHANNEL | 1, &[spawn("true")])),
        ("a channel twice", encoded(1, &[spawn("sleep 1000"), spawn("true")])),
        ("ping on a channel", encoded(1, &[ToGuest::Ping(1)])),
        ("data beyond the window", encoded(1, &stuffed)),
        ("a second hello", encoded(0, &[ToGuest::Hello { version: 1, min_version: 1 }])),
        ("a configuration", encoded(0, &[ToGuest::Configure(Box::default())])),
        ("too many channels", channels),
    ];
    for (name, bytes) in attacks {
        let mut client = listening.connect();
        std::io::Write::write_all(&mut client.stream, &bytes).ok();
        client.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        while client.receive().is_some() {}
        eprintln!("cut off: {name}");
    }
    // Half a frame, then nothing more.
    let mut half = listening.connect();
    half.raw(&encoded(1, &[spawn("true")])[..20]);
    drop(half);
    // No hello but a request.
    let mut rude = UnixStream::connect(&listening.path).unwrap();
    std::io::Write::write_all(&mut rude, &encoded(1, &[spawn("true")])).unwrap();
    std::io::copy(&mut rude, &mut std::io::sink()).ok();
    // Too new.
    let mut newer = UnixStream::connect(&listening.path).unwrap();
    std::io::Write::write_all(&mut newer, &encoded(0, &[ToGuest::Hello { version: 9, min_version: 9 }]))
        .unwrap();
    std::io::copy(&mut newer, &mut std::io::sink()).ok();

    // Whoever was cut off has taken its commands along.
    let only = |listing: Outcome| (listing.frames.len() == 1).then_some(());
    wait_until("only the witness's command is left", || only(witness.run(Request::Commands)));
    witness.send(running, &ToGuest::Signal(15));
    assert_eq!(witness.finish(running).status(), Status::Signal(15));
    listening.guest.client.ping();
}

#[test]
fn frames_for_channels_that_ended_are_no_violation() {
    let mut guest = start();
    let channel = guest.client.open(Request::Spawn(sh("true")));
    guest.client.finish(channel);
    for frame in
        [ToGuest::Data(vec![1; 100]), ToGuest::Eof, ToGuest::Credit(1), ToGuest::Signal(9), ToGuest::Close]
    {
        guest.client.send(channel, &frame);
    }
    guest.client.ping();
}

#[test]
fn who_asks_without_listening_is_not_served_without_bound() {
    let mut listening = start_listening(Start::default());
    let mut client = listening.connect();
    client.stream.set_nonblocking(true).unwrap();
    let pings: Vec<u8> = (0..1000).flat_map(|number| encoded(0, &[ToGuest::Ping(number)])).collect();
    let mut sent = 0;
    while sent < 64 << 20
        && std::io::Write::write(&mut client.stream, &pings).is_ok_and(|count| {
            sent += count;
            true
        })
    {}
    assert!(sent < 32 << 20, "{sent} bytes were taken");
    listening.guest.client.ping();
    let status = std::fs::read_to_string(format!("/proc/{}/status", listening.guest.child.id())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().trim();
    let resident: u64 = resident.split(' ').next().unwrap().parse().unwrap();
    assert!(resident < 16 << 10, "{resident} KiB");
}

#[test]
fn a_host_that_speaks_another_version_ends_the_boot() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("boot");
    let listener = UnixListener::bind(&path).unwrap();
    let mut child = Start::default().command(&path).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut stream = listener.accept().unwrap().0;
    std::io::Write::write_all(&mut stream, &encoded(0, &[ToGuest::Hello { version: 9, min_version: 9 }]))
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(70));
    let said = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
    assert!(said.contains("version") && said.lines().count() == 1, "{said}");
}
