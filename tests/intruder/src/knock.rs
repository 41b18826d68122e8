//! Connecting to the guest's own socket, where it has one inside.
use std::{
    io::{Read, Write},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixStream},
    },
    process::ExitCode,
    time::Duration,
};

fn connect() -> std::io::Result<UnixStream> {
    UnixStream::connect_addr(&SocketAddr::from_abstract_name(b"agentkernel")?)
}

/// Connects once, sends what no key is, and says how much comes back.
pub(crate) fn once() -> ExitCode {
    let Ok(mut stream) = connect() else {
        println!("closed");
        return ExitCode::SUCCESS;
    };
    // The guest may be faster than we are, and close before anything is sent.
    let _sent = stream.write_all(&[0; 4096]);
    let _set = stream.set_read_timeout(Some(Duration::from_secs(20)));
    let mut answer = Vec::new();
    let ended = stream.read_to_end(&mut answer);
    let waits = ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    println!("{} bytes{}", answer.len(), if waits { ", still open" } else { "" });
    ExitCode::SUCCESS
}

/// Connects again and again, in eight threads, and keeps what it can.
pub(crate) fn without_end() -> ExitCode {
    let knock = || {
        let mut kept = std::collections::VecDeque::new();
        loop {
            match connect() {
                Ok(stream) => kept.push_back(stream),
                Err(_) => std::thread::yield_now(),
            }
            if kept.len() > 100 {
                kept.pop_front();
            }
        }
    };
    let threads = (0..8).map(|_| std::thread::spawn(knock)).collect::<Vec<_>>();
    println!("ready");
    for thread in threads {
        let _never: Result<(), _> = thread.join();
    }
    ExitCode::SUCCESS
}
