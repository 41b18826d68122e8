//! Everything that reads what another side sent, against bytes from nowhere.
//!
//! A target takes bytes and fails by a panic, by memory without bound, or by not ending. `cargo test` replays
//! `corpus/TARGET` and tries a few hundred changes of it; `cargo xtask fuzz` searches on, guided by coverage, and puts
//! what it finds into the corpus.
#![forbid(unsafe_code)]

mod apple;
mod client;
mod engine;
mod labels;
mod protocol;
mod seeds;
mod values;

/// One reader of foreign bytes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of the directory of its corpus.
    pub name: &'static str,
    /// Reads the bytes.
    pub run: fn(&[u8]),
    /// Inputs to begin with: one of each kind.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// The longest input that is worth trying, in bytes.
    pub most: usize,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    // What the guest says to the host.
    Target { name: "from_guest", run: protocol::from_guest, seeds: seeds::from_guest, most: 4096 },
    Target { name: "client", run: client::client, seeds: seeds::client, most: 8192 },
    // What the host says to the guest.
    Target { name: "to_guest", run: protocol::to_guest, seeds: seeds::to_guest, most: 4096 },
    Target {
        name: "archive",
        run: agentkernel_guest::program::fuzz::archive,
        seeds: seeds::archives,
        most: 8192,
    },
    // What an engine says.
    Target { name: "labels", run: labels::labels, seeds: seeds::labels, most: 4096 },
    Target { name: "engine_container", run: engine::container, seeds: seeds::containers, most: 8192 },
    Target { name: "engine_system", run: engine::system, seeds: seeds::systems, most: 4096 },
    Target { name: "engine_image", run: engine::image, seeds: seeds::images, most: 4096 },
    Target { name: "engine_progress", run: engine::progress, seeds: seeds::progress, most: 4096 },
    Target { name: "engine_load", run: engine::load, seeds: seeds::loads, most: 4096 },
    Target { name: "engine_archive", run: engine::archive, seeds: seeds::archive_heads, most: 1024 },
    // What Apple's `container` says, an archive of an image, and what is told from inside over `exec`.
    Target { name: "apple_answer", run: agentkernel_apple::fuzz::answer, seeds: apple::answers, most: 8192 },
    Target { name: "apple_words", run: agentkernel_apple::fuzz::words, seeds: apple::words, most: 1024 },
    Target {
        name: "apple_archive",
        run: agentkernel_apple::fuzz::archive,
        seeds: apple::archives,
        most: 8192,
    },
    Target { name: "apple_inside", run: agentkernel_apple::fuzz::inside, seeds: apple::inside, most: 1024 },
    // What the docker command left on the disk, what a person types, what an image is called.
    Target { name: "docker_context", run: engine::context_files, seeds: seeds::context_files, most: 2048 },
    Target { name: "docker_address", run: engine::address, seeds: seeds::addresses, most: 256 },
    Target { name: "values", run: values::values, seeds: seeds::values, most: 512 },
];

/// Returns the target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
