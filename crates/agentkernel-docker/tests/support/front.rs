//! A port on loopback that leads to the engine of this machine, as an engine elsewhere is reached.
use std::{
    io,
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    thread,
};

use agentkernel_docker::EngineKind;

/// Listens until the process ends; returns the address.
pub(crate) fn front(engine: EngineKind) -> String {
    let socket = match engine {
        EngineKind::Podman => "/run/podman/podman.sock",
        _ => "/var/run/docker.sock",
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let Ok(engine) = UnixStream::connect(socket) else { continue };
            let (from, to) = (stream.try_clone().unwrap(), engine.try_clone().unwrap());
            thread::spawn(move || inwards(from, to));
            thread::spawn(move || outwards(engine, stream));
        }
    });
    address
}

fn inwards(mut from: TcpStream, mut to: UnixStream) {
    let _ended = io::copy(&mut from, &mut to);
    let _closed = to.shutdown(Shutdown::Write);
}

fn outwards(mut from: UnixStream, mut to: TcpStream) {
    let _ended = io::copy(&mut from, &mut to);
    let _closed = to.shutdown(Shutdown::Both);
}
