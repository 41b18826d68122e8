//! The guest as a process, and a host that speaks the protocol to it over a real socket.

mod client;
mod commands;
