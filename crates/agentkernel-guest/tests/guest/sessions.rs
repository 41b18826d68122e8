//! Attaching, detaching, terminals, signals, stdin, forwarding, the end of the sandbox.
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use agentkernel_guest::protocol::*;

use crate::client::*;
use crate::hostile::start_listening;

#[test]
fn a_detached_command_is_listed_attached_to_and_kept() {
    let mut listening = start_listening(Start::default());
    let mut first = listening.connect();
    let script = "echo before; read line; echo got $line; exit 7";
    let spawn = Spawn { detached: true, stdin: true, ..sh(script) };
    let channel = first.open(Request::Spawn(spawn));
    assert!(matches!(first.next(0), FromGuest::Hello { .. }));
    assert_eq!(first.next(channel), FromGuest::Started { id: 1 });
    assert_eq!(first.next(channel), FromGuest::Stdout(b"before\n".to_vec()));
    drop(first);

    let mut second = listening.connect();
    let mut third = listening.connect();
    let late = third.open(Request::Attach { id: 1, replay: false });
    let channel = second.open(Request::Attach { id: 1, replay: true });
    assert_eq!(second.next(channel), FromGuest::Started { id: 1 });
    assert_eq!(third.next(late), FromGuest::Started { id: 1 });
    third.send(late, &ToGuest::Data(b"word\n".to_vec()));
    let outcome = second.finish(channel);
    assert_eq!((outcome.text().as_str(), outcome.status()), ("before\ngot word\n", Status::Code(7)));
    let outcome = third.finish(late);
    assert_eq!((outcome.text().as_str(), outcome.status()), ("got word\n", Status::Code(7)));

    let again = listening.guest.client.run(Request::Attach { id: 1, replay: true });
    assert_eq!((again.id, again.text().as_str(), again.status()), (1, "before\ngot word\n", Status::Code(7)));
    let again = listening.guest.client.run(Request::Attach { id: 1, replay: false });
    assert_eq!((again.text().as_str(), again.status()), ("", Status::Code(7)));
    let none = listening.guest.client.run(Request::Attach { id: 2, replay: true });
    assert_eq!(none.failure(), FailureCode::NoSuchCommand);
}

#[test]
fn detach_lets_a_command_outlive_its_client_and_only_so_many_are_kept() {
    let mut listening = start_listening(Start::default());
    let mut client = listening.connect();
    let channel = client.open(Request::Spawn(sh("sleep 1000")));
    assert!(matches!(client.next(channel), FromGuest::Started { .. }));
    client.send(channel, &ToGuest::Detach);
    client.ping_after_hello();
    drop(client);
    for _ in 0..KEPT_COMMANDS + 5 {
        listening.guest.client.spawn(Spawn { detached: true, ..sh("echo x") });
    }
    let full = |listing: Outcome| (listing.frames.len() == KEPT_COMMANDS + 1).then_some(());
    wait_until("the oldest are dropped", || full(listening.guest.client.run(Request::Commands)));
    let channel = listening.guest.client.open(Request::Attach { id: 1, replay: true });
    listening.guest.client.send(channel, &ToGuest::Signal(9));
    assert_eq!(listening.guest.client.finish(channel).status(), Status::Signal(9));
}

#[test]
fn a_slow_reader_holds_back_its_own_command_only() {
    let mut guest = start();
    let slow = guest.client.open(Request::Spawn(sh("yes | head -c 20000000")));
    let begin = Instant::now();
    assert_eq!(guest.client.shell("echo quick").text(), "quick\n");
    assert!(begin.elapsed() < Duration::from_secs(5));
    std::thread::sleep(Duration::from_millis(100));
    let outcome = guest.client.finish(slow);
    assert_eq!((outcome.stdout.len(), outcome.status()), (20_000_000, Status::Code(0)));
}

#[test]
fn no_more_is_sent_than_was_granted() {
    let mut guest = start();
    let channel =
        guest.client.open(Request::Spawn(sh("head -c 2000000 /dev/zero; head -c 2000000 /dev/zero >&2")));
    guest.client.stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut got = 0;
    let mut buffer = [0; 65536];
    while let Ok(count) = guest.client.stream.read(&mut buffer) {
        got += count;
    }
    assert!((WINDOW as usize..WINDOW as usize + 4096).contains(&got), "{got}");
    guest.client.send(channel, &ToGuest::Close);
}

#[test]
fn a_terminal_is_one() {
    let mut guest = start();
    let script =
        "test -t 0 && test -t 1 && test -t 2 && stty size && read line && echo got $line && cat && echo end";
    let spawn = Spawn { tty: Some((33, 77)), stdin: true, ..sh(script) };
    let channel = guest.client.open(Request::Spawn(spawn));
    guest.client.send(channel, &ToGuest::Data(b"word\n".to_vec()));
    guest.client.send(channel, &ToGuest::Data(b"x".to_vec()));
    std::thread::sleep(Duration::from_millis(50));
    guest.client.send(channel, &ToGuest::Eof);
    let outcome = guest.client.finish(channel);
    let text = outcome.text().replace('\r', "");
    assert_eq!(outcome.status(), Status::Code(0), "{text}");
    for part in ["33 77", "got word", "end"] {
        assert!(text.contains(part), "{text}");
    }
    let spawn = Spawn {
        tty: Some((1, 2)),
        ..sh("trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.01; done")
    };
    let channel = guest.client.open(Request::Spawn(spawn));
    while !matches!(guest.client.next(channel), FromGuest::Stdout(_)) {}
    guest.client.send(channel, &ToGuest::Resize { rows: 5, columns: 6 });
    assert!(guest.client.finish(channel).text().contains("5 6"));
}

#[test]
fn a_signal_reaches_the_whole_group_and_stdin_is_empty_without_one() {
    let mut guest = start();
    let channel = guest
        .client
        .open(Request::Spawn(sh("trap 'echo caught; exit 5' INT; echo ready; cat; sleep 100 & wait")));
    while !matches!(guest.client.next(channel), FromGuest::Stdout(_)) {}
    guest.client.send(channel, &ToGuest::Signal(2));
    let outcome = guest.client.finish(channel);
    assert_eq!((outcome.text().as_str(), outcome.status()), ("caught\n", Status::Code(5)));
}

#[test]
fn environment_and_directory_are_those_that_were_asked_for() {
    let mut start = Start::default();
    start.configure.env = vec![b"A=sandbox".to_vec(), b"B=sandbox".to_vec()];
    start.configure.cwd = Some(b"/usr".to_vec());
    let mut guest = start.start();
    let spawn = Spawn { env: vec![b"B=\xff=1".to_vec()], ..sh("printf '%s|%s|%s' \"$A\" \"$B\" \"$PWD\"") };
    assert_eq!(guest.client.spawn(spawn).stdout, b"sandbox|\xff=1|/usr");
    let spawn =
        Spawn { argv: argv(&["echo-nothing"]), env: vec![b"PATH=/nowhere".to_vec()], ..Spawn::default() };
    assert_eq!(guest.client.spawn(spawn).failure(), FailureCode::CommandNotFound);
    let spawn = Spawn { cwd: Some(b"/".to_vec()), ..sh("pwd; umask; ulimit -c; ulimit -Hc") };
    assert_eq!(guest.client.spawn(spawn).text(), "/\n0022\n0\n0\n");
}

#[test]
fn a_command_has_no_rights_and_no_descriptors() {
    let mut guest = start();
    assert_eq!((guest.report.capabilities, guest.report.no_new_privileges), (0, true));
    let outcome = guest.client.shell(
        "grep -E '^(Cap(Inh|Prm|Eff|Amb)|NoNewPrivs|SigBlk|SigIgn):' /proc/self/status; ls /proc/self/fd",
    );
    let text = outcome.text();
    let zero = "0000000000000000";
    for line in ["CapInh", "CapPrm", "CapEff", "CapAmb", "SigBlk", "SigIgn"] {
        assert!(text.contains(&format!("{line}:\t{zero}")), "{text}");
    }
    assert!(text.contains("NoNewPrivs:\t1"), "{text}");
    assert!(text.ends_with("\n0\n1\n2\n3\n"), "{text}");
}

#[test]
fn the_sandbox_ends_with_its_main_command() {
    let mut guest = start();
    let outcome = guest.client.spawn(Spawn { main: true, ..sh("head -c 500000 /dev/zero; exit 9") });
    assert_eq!((outcome.stdout.len(), outcome.status()), (500_000, Status::Code(9)));
    assert_eq!(guest.wait(), Some(9));
    let mut guest = start();
    guest.client.spawn(Spawn { main: true, timeout_ms: Some(50), ..sh("sleep 100") });
    assert_eq!(guest.wait(), Some(124));
}

#[test]
fn a_detached_main_command_writes_to_the_guests_own_output() {
    let mut start = Start { stdout: Stdio::piped(), ..Start::default() };
    start.configure.log_output = true;
    let mut listening = start_listening(start);
    let spawn = Spawn { main: true, detached: true, ..sh("head -c 300000 /dev/zero; exit 4") };
    let channel = listening.guest.client.open(Request::Spawn(spawn));
    assert!(matches!(listening.guest.client.next(channel), FromGuest::Started { .. }));
    listening.guest.client.stream.shutdown(std::net::Shutdown::Both).unwrap();
    let mut log = Vec::new();
    listening.guest.child.stdout.take().unwrap().read_to_end(&mut log).unwrap();
    assert_eq!((log.len(), listening.guest.wait()), (300_000, Some(4)));
}

#[test]
fn shutdown_lets_commands_end_and_then_kills() {
    let mut guest = start();
    let polite =
        guest.client.open(Request::Spawn(sh("trap 'echo bye; exit 3' TERM; echo ready; sleep 100 & wait")));
    while !matches!(guest.client.next(polite), FromGuest::Stdout(_)) {}
    let rude = guest.client.open(Request::Spawn(sh("trap '' TERM; echo ready; while :; do sleep 0.1; done")));
    while !matches!(guest.client.next(rude), FromGuest::Stdout(_)) {}
    guest.client.send(0, &ToGuest::Shutdown { grace_ms: 300 });
    let outcome = guest.client.finish(polite);
    assert_eq!((outcome.text().as_str(), outcome.status()), ("bye\n", Status::Code(3)));
    assert_eq!(guest.wait(), Some(0));
}

#[test]
fn the_deadline_and_the_lease_end_the_sandbox() {
    let mut start = Start::default();
    start.configure.deadline_ms = Some(100);
    let mut guest = start.start();
    assert_eq!(guest.wait(), Some(0));
    let mut guest = crate::client::start();
    guest.client.stream.shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(guest.wait(), Some(0));
}

#[test]
fn connections_go_in_and_out_and_end_by_halves() {
    let mut guest = start();
    // In: the host dials a port inside.
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let channel = guest.client.open(Request::Connect { port });
    let mut accepted = server.accept().unwrap().0;
    assert_eq!(guest.client.next(channel), FromGuest::Started { id: 0 });
    guest.client.send(channel, &ToGuest::Data(b"question".to_vec()));
    guest.client.send(channel, &ToGuest::Eof);
    let mut question = String::new();
    accepted.read_to_string(&mut question).unwrap();
    assert_eq!(question, "question");
    let answer = vec![5u8; 1_000_000];
    let writer = std::thread::spawn(move || accepted.write_all(&answer).unwrap());
    let outcome = guest.client.finish(channel);
    writer.join().unwrap();
    assert_eq!((outcome.stdout.len(), outcome.end), (1_000_000, Some(FromGuest::Done)));
    drop(server);
    assert_eq!(guest.client.run(Request::Connect { port }).failure(), FailureCode::Refused);

    // Out: a program inside dials a port that the guest listens on.
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let listener = guest.client.open(Request::Listen { address });
    assert_eq!(guest.client.next(listener), FromGuest::Started { id: 0 });
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"hello").unwrap();
    let FromGuest::Accepted { channel } = guest.client.next(listener) else { panic!("nothing accepted") };
    assert_ne!(channel & GUEST_CHANNEL, 0);
    assert_eq!(guest.client.next(channel), FromGuest::Stdout(b"hello".to_vec()));
    guest.client.send(channel, &ToGuest::Data(b"world".to_vec()));
    guest.client.send(channel, &ToGuest::Eof);
    let mut world = String::new();
    stream.read_to_string(&mut world).unwrap();
    assert_eq!(world, "world");
    drop(stream);
    assert_eq!(guest.client.next(channel), FromGuest::Eof);
    assert_eq!(guest.client.next(channel), FromGuest::Done);
    guest.client.send(listener, &ToGuest::Close);
    assert_eq!(guest.client.next(listener), FromGuest::Done);
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn statistics_are_answered() {
    let mut guest = start();
    let outcome = guest.client.run(Request::Stats);
    assert!(matches!(outcome.frames.as_slice(), [FromGuest::Stats(_)]));
    assert_eq!(outcome.end, Some(FromGuest::Done));
}
