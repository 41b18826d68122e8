//! The kit on the fake.
use std::{process::ExitCode, sync::Arc};

use agentkernel_conformance::fake::FakeBackend;
use agentkernel_core::Backend;

fn main() -> ExitCode {
    let backend: Arc<dyn Backend> = Arc::new(FakeBackend::new());
    agentkernel_conformance::main("fake", move || {
        let backend = Arc::clone(&backend);
        async { Ok(backend) }
    })
}
