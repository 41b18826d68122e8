//! Published ports: connections to the host reach a port inside, over no network, as they are.
use std::{
    io::{ErrorKind as Io, Read, Write},
    net::{IpAddr, Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use agentkernel_core::{ErrorKind, ExecSession, Network, PortMapping, Sandbox, SandboxConfig, SandboxExt};

use crate::{
    fixture::{Fixture, script},
    rule::rules,
    wait::{SOON, soon},
};

rules![
    a_published_port_leads_inside[PortMapping],
    a_published_port_needs_no_network[PortMapping, NetworkNone],
    a_published_port_is_bound_to_loopback[PortMapping],
    a_published_port_keeps_half_close[PortMapping],
    a_published_port_without_a_server_ends_at_once[PortMapping],
    a_published_port_is_free_again_after_the_stop[PortMapping],
    a_taken_port_is_refused_and_nothing_is_made[PortMapping],
];

/// Connects, sends, ends the sending half, and returns what comes back.
fn ask(port: u16, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(SOON))?;
    stream.write_all(question)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// Asks until there is an answer: the server inside takes its time to listen.
async fn answer(port: u16, question: Vec<u8>) -> Vec<u8> {
    let asked = tokio::task::spawn_blocking(move || {
        loop {
            match ask(port, &question) {
                Ok(answer) if !answer.is_empty() => return answer,
                _ => thread::sleep(Duration::from_millis(50)),
            }
        }
    });
    soon("the port answers", asked).await.unwrap()
}

async fn published(fixture: &Fixture, config: &SandboxConfig) -> (Arc<dyn Sandbox>, PortMapping) {
    let mut config = config.clone();
    config.ports = vec![PortMapping { address: None, host: 0, sandbox: 8080 }];
    let sandbox = fixture.start_with(&config).await;
    let published = sandbox.inspect().await.unwrap().ports[0];
    (sandbox, published)
}

/// Runs a program for each connection to the port inside.
async fn serve(sandbox: &Arc<dyn Sandbox>, program: &str) -> ExecSession {
    sandbox.spawn(&script(&format!("while :; do nc -l -p 8080 -e {program}; done"))).await.unwrap()
}

async fn a_published_port_keeps_half_close(fixture: Fixture) {
    let (sandbox, published) = published(&fixture, &fixture.config()).await;
    let _server = serve(&sandbox, "wc -c").await;
    assert_eq!(answer(published.host, vec![b'x'; 100_000]).await, b"100000\n");
}

async fn a_published_port_needs_no_network(fixture: Fixture) {
    let mut config = fixture.config();
    config.network = Some(Network::None);
    let (sandbox, published) = published(&fixture, &config).await;
    let _server = serve(&sandbox, "echo hello").await;
    assert_eq!(answer(published.host, Vec::new()).await, b"hello\n");
}

async fn a_published_port_without_a_server_ends_at_once(fixture: Fixture) {
    let (_sandbox, published) = published(&fixture, &fixture.config()).await;
    let asked = tokio::task::spawn_blocking(move || ask(published.host, b"question"));
    let answered = soon("the connection ends", asked).await.unwrap();
    assert!(answered.is_err_and(|error| error.kind() == Io::ConnectionReset));
}

async fn a_published_port_is_free_again_after_the_stop(fixture: Fixture) {
    let (sandbox, published) = published(&fixture, &fixture.config()).await;
    sandbox.stop().await.unwrap();
    TcpListener::bind((Ipv4Addr::LOCALHOST, published.host)).unwrap();
}

async fn a_taken_port_is_refused_and_nothing_is_made(fixture: Fixture) {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let host = taken.local_addr().unwrap().port();
    let mut config = fixture.config();
    config.ports = vec![PortMapping { address: None, host, sandbox: 8080 }];
    let sandbox = fixture.backend().sandbox(fixture.name());
    assert_eq!(sandbox.start(&config).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(sandbox.inspect().await.unwrap_err().kind(), ErrorKind::NotFound);
}

async fn a_published_port_leads_inside(fixture: Fixture) {
    let (sandbox, published) = published(&fixture, &fixture.config()).await;
    let _server = serve(&sandbox, "echo hello").await;
    assert_eq!(answer(published.host, Vec::new()).await, b"hello\n");
}

async fn a_published_port_is_bound_to_loopback(fixture: Fixture) {
    let (_sandbox, published) = published(&fixture, &fixture.config()).await;
    let address = published.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    assert!(address.is_loopback() && published.host != 0);
}
