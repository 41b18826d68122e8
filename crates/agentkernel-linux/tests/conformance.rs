//! The suite that every backend passes, on this machine's kernel, as whoever runs it.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test says so by failing")]
#[path = "support/fixture.rs"]
mod fixture;
#[path = "support/program.rs"]
mod program;

use std::{process::ExitCode, sync::Arc};

use agentkernel_conformance::Kit;
use agentkernel_core::Backend;
use agentkernel_linux::LinuxBackend;

fn main() -> ExitCode {
    let kit = Kit::new("linux", || async {
        let backend = LinuxBackend::connect(fixture::config()).await?;
        fixture::import(&*backend).await?;
        Ok(backend as Arc<dyn Backend>)
    });
    let test = std::env::current_exe().unwrap();
    let programs = test.ancestors().nth(2).unwrap();
    kit.with_intruder(programs.join("agentkernel-intruder")).main()
}
