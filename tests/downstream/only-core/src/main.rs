//! What a crate does that only speaks the contract: it takes any backend and knows none.
use agentkernel_core::{
    Backend, Capabilities, Capability, HostContext, Isolation, Owner, Result, SandboxConfig, SandboxExt,
};

/// Runs a command in a new sandbox of any backend.
pub async fn output(backend: &dyn Backend, command: &[&str]) -> Result<String> {
    let sandbox = backend.sandbox("only-core".parse()?);
    sandbox.start(&SandboxConfig::new("busybox")).await?;
    let result = sandbox.exec(command).await?;
    sandbox.stop().await?;
    Ok(result.stdout)
}

fn main() -> Result<()> {
    let owner = Owner::new("host", "boot", 1, std::process::id(), 1, 0);
    let host = HostContext { cwd: "/".into(), home: None, owner };
    let able = Capabilities::new(Isolation::RootContainer).with(Capability::NetworkNone);
    let mut config = SandboxConfig::new("busybox");
    config.resolve(able, &host)?;
    config.pids = Some(64);
    let refused = config.resolve(able, &host).map(drop);
    assert!(refused.is_err_and(|error| error.to_string().contains("pids")), "a limit is a requirement");
    println!("only-core: ok");
    Ok(())
}
