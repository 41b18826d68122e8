//! The service behind `container`, and the system that it needs.
use std::{net::IpAddr, path::PathBuf, time::Duration};

use agentkernel_core::{Error, ErrorKind, Result};
use tokio::sync::OnceCell;

use crate::{
    AppleConfig, argv,
    command::{Line, Program},
    error, json,
};

/// The first macOS whose machines have networks of their own.
const MACOS: u32 = 26;
/// How long the service may take to start without a download.
const STARTING: Duration = Duration::from_secs(90);

/// Tells whether the service answers.
async fn is_running(program: &Program, config: &AppleConfig) -> Result<bool> {
    let operation = "ask for the service";
    let answer = program.run(operation, &argv::system_status(), config.request_timeout).await?;
    match answer.code {
        Some(0) => Ok(json::status(&answer.stdout)? == "running"),
        // It says so on stdout, and fails.
        Some(1) if json::status(&answer.stdout).is_ok() => Ok(false),
        code => Err(error::failed(operation, code, &answer.stderr)),
    }
}

/// Insists that the service runs.
///
/// # Errors
/// `Unavailable`, with the command that starts it.
pub(crate) async fn require(program: &Program, config: &AppleConfig) -> Result<()> {
    if is_running(program, config).await? {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unavailable, "use Apple's containers", "the service does not run")
        .with_context("backend", "apple")
        .with_hint("start the service: container system start"))
}

/// Returns whether the service of Apple's containers runs.
///
/// # Errors
/// `Unavailable` if `container` is not installed; `Timeout` if the service is stuck.
pub async fn apple_system_running() -> Result<bool> {
    let config = AppleConfig::default();
    is_running(&Program::new(config.find()?), &config).await
}

/// Starts the service if it does not run; verified once per process, then remembered. Never asks anything: a kernel is
/// downloaded only if [`AppleConfig::allow_kernel_download`] says so.
///
/// # Errors
/// `Unavailable` if `container` is not installed, or if the service does not run afterwards.
pub async fn start_apple_system(config: &AppleConfig) -> Result<()> {
    static STARTED: OnceCell<()> = OnceCell::const_new();
    STARTED
        .get_or_try_init(|| async {
            let program = Program::new(config.find()?);
            if is_running(&program, config).await? {
                return Ok(());
            }
            let deadline = if config.allow_kernel_download { config.transfer_timeout } else { STARTING };
            let line = argv::system_start(config.allow_kernel_download);
            let started = program.ask("start Apple's containers", &line, deadline).await;
            if is_running(&program, config).await? {
                return Ok(());
            }
            started?;
            require(&program, config).await
        })
        .await
        .copied()
}

/// Returns whether this machine can have Apple's containers: `container` is installed, and macOS is new enough.
///
/// # Errors
/// Those of [`macos_version_supported`].
pub async fn apple_containers_available() -> Result<bool> {
    Ok(AppleConfig::default().find().is_ok() && macos_version_supported().await?)
}

/// Returns whether macOS is 26 or newer, as `sw_vers` says; false where there is none.
///
/// # Errors
/// `Timeout` if it hangs, `Unexpected` if it fails.
pub async fn macos_version_supported() -> Result<bool> {
    let Ok(sw_vers) = which::which("sw_vers").or_else(|_| which::which("/usr/bin/sw_vers")) else {
        return Ok(false);
    };
    macos_supported_by(sw_vers).await
}

async fn macos_supported_by(sw_vers: PathBuf) -> Result<bool> {
    let line = Line::from(["--productVersion"]);
    let told =
        Program::new(sw_vers).ask("ask for the version of macOS", &line, Duration::from_secs(5)).await?;
    Ok(is_supported(&String::from_utf8_lossy(&told)))
}

fn is_supported(version: &str) -> bool {
    let major = version.trim().split('.').next().and_then(|major| major.parse::<u32>().ok());
    major.is_some_and(|major| major >= MACOS)
}

/// Returns the address of a container, by its own name; `None` if it has none, as one without a network or one that is
/// stopped.
///
/// # Errors
/// `NotFound` if there is no such container; `InvalidConfig` for what cannot be a name.
pub async fn get_container_ip(name: &str) -> Result<Option<IpAddr>> {
    let operation = "look up the address";
    let is_name = name.len() <= 128
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    if !is_name {
        return Err(Error::new(ErrorKind::InvalidConfig, operation, "this is no name of a container")
            .with_context("name", name.chars().take(64).collect::<String>()));
    }
    let config = AppleConfig::default();
    let program = Program::new(config.find()?);
    let told = program.ask(operation, &argv::inspect(name), config.request_timeout).await?;
    let found = json::containers(operation, &told)?.into_iter().find(|container| container.id == name);
    let container = found.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, operation, "there is no such container").with_context("name", name)
    })?;
    Ok(container.addresses.first().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macos_26_and_newer_is_supported() {
        assert!(is_supported("26.1\n") && is_supported("27") && is_supported("26"));
        assert!(!is_supported("15.6.1") && !is_supported("") && !is_supported("x.26"));
    }

    #[tokio::test]
    async fn what_is_no_name_is_refused_before_anything_is_asked() {
        for name in ["", "-a", "--all", "a b", "a/b"] {
            assert_eq!(get_container_ip(name).await.unwrap_err().kind(), ErrorKind::InvalidConfig, "{name}");
        }
    }
}
