//! The guest's program, and the configuration that names it.
use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use agentkernel_docker::DockerConfig;

/// Returns the guest's program: `AGENTKERNEL_GUEST`, or the one of this build, built if it is not there.
pub(crate) fn guest() -> &'static Path {
    static GUEST: OnceLock<PathBuf> = OnceLock::new();
    GUEST.get_or_init(|| {
        if let Some(named) = std::env::var_os("AGENTKERNEL_GUEST") {
            return named.into();
        }
        let mut command = Command::new(env!("CARGO"));
        // The lock of the build directory is free while tests run.
        let built = command.args(["build", "--quiet", "--package", "agentkernel-guest"]).status().unwrap();
        assert!(built.success(), "the guest does not build");
        let test = std::env::current_exe().unwrap();
        let dir = test.ancestors().find(|dir| dir.join("agentkernel-guest").is_file());
        dir.expect("the guest is built beside the tests").join("agentkernel-guest")
    })
}

/// Returns the configuration of the tests.
pub(crate) fn config() -> DockerConfig {
    DockerConfig::default().with_guest(guest())
}
