//! Runs `true` in a sandbox and says where the time goes.
use std::time::Instant;

use agentkernel_core::{Backend, ExecOptions, ExecSpec, SandboxConfig, SandboxExt};
use agentkernel_docker::{DockerBackend, DockerConfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name = format!("first-{}", std::process::id());
    let start = Instant::now();
    let lap = |what: &str| println!("{:8.2} ms  {what}", start.elapsed().as_secs_f64() * 1e3);
    let backend = DockerBackend::connect(DockerConfig::default()).await?;
    lap("connected");
    let health = backend.health().await?;
    lap("health");
    let sandbox = backend.sandbox(name.parse()?);
    let config = SandboxConfig::new("agentkernel-test");
    let spec = config.resolve(health.capabilities, sandbox.host())?;
    sandbox.create(&spec).await?;
    lap("created");
    sandbox.boot().await?;
    lap("booted");
    let result =
        sandbox.exec(&["sh", "-c", "echo hello from $(hostname); id; cat /etc/hosts; exit 3"]).await?;
    lap("ran");
    println!("{result:?}");
    let second = sandbox.exec(&["true"]).await?;
    lap("ran again");
    assert_eq!(second.exit_code, 0);
    let main = ExecSpec::new(["true"], ExecOptions::default())?.main();
    println!("{:?}", sandbox.spawn(&main).await?.collect().await?.status);
    lap("ran as main");
    sandbox.remove().await?;
    lap("removed");
    Ok(())
}
