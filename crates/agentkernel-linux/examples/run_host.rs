//! Runs a command on the image `host`: `cargo run -p agentkernel-linux --example run_host -- id`.
use std::sync::Arc;

use agentkernel_core::{Backend, ExecOptions, Result, SandboxConfig, SandboxExt};
use agentkernel_linux::{LinuxBackend, LinuxConfig};

#[tokio::main]
async fn main() -> Result<()> {
    let backend: Arc<dyn Backend> = LinuxBackend::connect(LinuxConfig::default()).await?;
    let sandbox = backend.sandbox(format!("example-{}", std::process::id()).parse()?);
    sandbox.start(&SandboxConfig::default()).await?;
    let argv = std::env::args().skip(1).collect::<Vec<_>>();
    let argv = argv.iter().map(String::as_str).collect::<Vec<_>>();
    let result = sandbox.exec_with_options(&argv, ExecOptions::default()).await;
    sandbox.stop().await?;
    let result = result?;
    print(&result.stdout, &result.stderr);
    Ok(())
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "an example shows what came out")]
fn print(stdout: &str, stderr: &str) {
    print!("{stdout}");
    eprint!("{stderr}");
}
