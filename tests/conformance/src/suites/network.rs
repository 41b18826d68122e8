//! Networks: what is closed is closed, and connections go in and out where they are asked for.
use std::{net::Ipv4Addr, sync::Arc};

use agentkernel_core::{Duplex, ExecSession, Network, Sandbox};
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    fixture::{Fixture, output, pattern, script, sh},
    rule::rules,
    wait::soon,
};

rules![
    without_a_network_there_is_no_route[NetworkNone],
    without_a_network_nothing_outside_is_reached[NetworkNone],
    without_a_network_loopback_works[NetworkNone],
    no_network_is_the_default[NetworkNone],
    with_a_network_there_is_a_route[NetworkFull],
    a_connection_reaches_a_port_inside[Forward],
    a_connection_carries_every_byte[Forward],
    closing_one_half_leaves_the_other_open[Forward],
    two_connections_do_not_mix[Forward],
    a_closed_port_is_an_error[Forward],
    a_dropped_connection_ends_inside[Forward],
    a_listener_gets_what_connects_inside[Forward],
    a_dropped_listener_listens_no_more[Forward],
];

async fn without_a_network_there_is_no_route(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let routes = sh(&sandbox, "cat /proc/net/route").await;
    assert_eq!(routes.lines().filter(|line| !line.starts_with("Iface")).count(), 0, "{routes}");
}

/// 192.0.2.1 belongs to nobody (RFC 5737): with a network the connection would hang, without one it fails at once.
async fn without_a_network_nothing_outside_is_reached(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let dialing = script("nc 192.0.2.1 80 </dev/null; echo $?");
    let printed = soon("connecting fails", output(&sandbox, &dialing)).await.stdout;
    assert_eq!(printed, "1\n");
}

async fn without_a_network_loopback_works(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let text =
        "nc -l -p 8081 -e echo hello & until test \"$(nc 127.0.0.1 8081 </dev/null 2>/dev/null)\" = hello
        do sleep 0.05; done; echo reached";
    assert_eq!(soon("loopback works", sh(&sandbox, text)).await, "reached\n");
}

async fn no_network_is_the_default(fixture: Fixture) {
    let mut config = fixture.config();
    config.network = None;
    let sandbox = fixture.start_with(&config).await;
    let routes = sh(&sandbox, "cat /proc/net/route").await;
    assert_eq!(routes.lines().filter(|line| !line.starts_with("Iface")).count(), 0, "{routes}");
}

async fn with_a_network_there_is_a_route(fixture: Fixture) {
    let mut config = fixture.config();
    config.network = Some(Network::Full);
    let sandbox = fixture.start_with(&config).await;
    let routes = sh(&sandbox, "cat /proc/net/route").await;
    assert_ne!(routes.lines().filter(|line| !line.starts_with("Iface")).count(), 0, "{routes}");
}

/// Starts a server inside and connects to it once it listens.
async fn dial(sandbox: &Arc<dyn Sandbox>, port: u16, server: &str) -> (ExecSession, Duplex) {
    let session = sandbox.spawn(&script(&format!("exec nc -l -p {port} -e {server}"))).await.unwrap();
    (session, connect(sandbox, port).await)
}

async fn connect(sandbox: &Arc<dyn Sandbox>, port: u16) -> Duplex {
    soon("the port is open", async {
        loop {
            match sandbox.connect(port).await {
                Ok(connection) => return connection,
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        }
    })
    .await
}

/// Reads a connection to its end.
async fn rest(connection: &mut Duplex) -> Vec<u8> {
    let mut bytes = Vec::new();
    soon("the connection ends", connection.reader.read_to_end(&mut bytes)).await.unwrap();
    bytes
}

async fn a_connection_reaches_a_port_inside(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let (_server, mut connection) = dial(&sandbox, 8080, "echo hello").await;
    assert_eq!(rest(&mut connection).await, b"hello\n");
}

async fn a_connection_carries_every_byte(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let (_server, mut connection) = dial(&sandbox, 8080, "cat").await;
    let content = pattern(4 << 20);
    let Duplex { reader, writer } = &mut connection;
    let writing = async {
        writer.write_all(&content).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let mut seen = Vec::new();
    let ((), read) =
        soon("all comes back", async { tokio::join!(writing, reader.read_to_end(&mut seen)) }).await;
    read.unwrap();
    assert!(seen == content);
}

async fn closing_one_half_leaves_the_other_open(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let (_server, mut connection) = dial(&sandbox, 8080, "sh -c 'cat; echo after the end'").await;
    connection.writer.write_all(b"sent\n").await.unwrap();
    connection.writer.shutdown().await.unwrap();
    assert_eq!(rest(&mut connection).await, b"sent\nafter the end\n");
}

async fn two_connections_do_not_mix(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let (_one_server, mut one) = dial(&sandbox, 8080, "echo one").await;
    let (_other_server, mut other) = dial(&sandbox, 8090, "echo other").await;
    let both = (rest(&mut one).await, rest(&mut other).await);
    assert_eq!(both, (b"one\n".to_vec(), b"other\n".to_vec()));
}

async fn a_closed_port_is_an_error(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let refused = async {
        let mut connection = sandbox.connect(9).await?;
        let mut bytes = Vec::new();
        connection.reader.read_to_end(&mut bytes).await.map_err(agentkernel_core::Error::from)
    };
    assert!(soon("connecting answers", refused).await.is_err());
}

async fn a_dropped_connection_ends_inside(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let (server, connection) = dial(&sandbox, 8080, "sh -c 'cat >/dev/null'").await;
    drop(connection);
    soon("the server ends", server.collect()).await.unwrap();
}

async fn a_listener_gets_what_connects_inside(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let mut listener = sandbox.listen((Ipv4Addr::LOCALHOST, 9000).into()).await.unwrap();
    let client = sandbox.spawn(&script("echo question | nc 127.0.0.1 9000")).await.unwrap();
    let mut connection = soon("the connection comes", listener.next()).await.unwrap().unwrap();
    let mut question = [0; 9];
    connection.reader.read_exact(&mut question).await.unwrap();
    connection.writer.write_all(b"answer\n").await.unwrap();
    connection.writer.shutdown().await.unwrap();
    drop(connection);
    let printed = soon("the client ends", client.collect()).await.unwrap().stdout;
    assert_eq!((&question, &*printed), (b"question\n", &b"answer\n"[..]));
}

async fn a_dropped_listener_listens_no_more(fixture: Fixture) {
    let sandbox = fixture.start().await;
    drop(sandbox.listen((Ipv4Addr::LOCALHOST, 9001).into()).await.unwrap());
    let again = async {
        loop {
            match sandbox.listen((Ipv4Addr::LOCALHOST, 9001).into()).await {
                Ok(listener) => return listener,
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        }
    };
    drop(soon("the port is free again", again).await);
}
