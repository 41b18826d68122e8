//! What a crate does that uses one backend: it runs a command in a sandbox of Docker's.
use agentkernel_core::{Backend, Result, SandboxConfig, SandboxExt};
use agentkernel_docker::{DockerBackend, DockerConfig};

async fn answer() -> Result<String> {
    let backend = DockerBackend::connect(DockerConfig::default()).await?;
    let name = format!("only-docker-{}", std::process::id());
    let sandbox = backend.sandbox(name.parse()?);
    sandbox.start(&SandboxConfig::new("agentkernel-test")).await?;
    let result = sandbox.exec(&["echo", "42"]).await?;
    sandbox.stop().await?;
    Ok(result.stdout)
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(answer())?;
    assert_eq!(answer, "42\n");
    println!("only-docker: ok");
    Ok(())
}
