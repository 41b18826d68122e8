//! The guest as a program of its own.
#[cfg(target_os = "linux")]
fn main() {
    agentkernel_guest::program::main(std::env::args_os().skip(1))
}

#[cfg(not(target_os = "linux"))]
fn main() {}
