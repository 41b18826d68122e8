//! Published ports: listeners on this side, connections from within the container's network on the other.
use std::{
    fs::File,
    io,
    net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream},
    sync::mpsc::{Receiver, channel},
    thread,
};

use nix::sched::{CloneFlags, setns};

use crate::call::state::Port;

/// Where the listeners learn PID 1 of the container, each over its own channel.
pub(crate) type Openers = Vec<std::sync::mpsc::Sender<i32>>;

/// Binds all; the text of the first that fails.
pub(crate) fn publish(ports: &[Port], address: Option<[u8; 4]>) -> Result<Openers, String> {
    let mut openers = Vec::new();
    for port in ports {
        if port.proto != "tcp" {
            return Err("container stand-in: not in the stand-in: UDP ports".to_owned());
        }
        for offset in 0..port.count {
            let listener = TcpListener::bind((port.host_address.as_str(), port.host_port + offset)).map_err(
                |error| format!("failed to publish port {}: bind: {error}", port.host_port + offset),
            )?;
            let target = SocketAddrV4::new(
                Ipv4Addr::from(address.unwrap_or([127, 0, 0, 1])),
                port.container_port + offset,
            );
            let (sender, receiver) = channel();
            openers.push(sender);
            thread::spawn(move || forward(&listener, target, &receiver));
        }
    }
    Ok(openers)
}

fn forward(listener: &TcpListener, target: SocketAddrV4, opener: &Receiver<i32>) {
    let Ok(pid) = opener.recv() else { return };
    // Only this thread moves; its listener stays where it was bound.
    let moved = File::open(format!("/proc/{pid}/ns/net"))
        .is_ok_and(|network| setns(network, CloneFlags::CLONE_NEWNET).is_ok());
    if !moved {
        return;
    }
    loop {
        let Ok((outside, _)) = listener.accept() else { return };
        if let Ok(inside) = TcpStream::connect(target) {
            carry(&outside, &inside);
        }
    }
}

fn carry(one: &TcpStream, other: &TcpStream) {
    for (from, to) in [(one, other), (other, one)] {
        if let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) {
            thread::spawn(move || {
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
        }
    }
}
