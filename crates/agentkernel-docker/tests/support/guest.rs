//! The guest's program, and the configuration that names it.
use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use agentkernel_docker::DockerConfig;

/// Returns the guest's program: `AGENTKERNEL_GUEST`, or the one of this build.
pub(crate) fn guest() -> &'static Path {
    static GUEST: OnceLock<PathBuf> = OnceLock::new();
    GUEST.get_or_init(|| match std::env::var_os("AGENTKERNEL_GUEST") {
        Some(named) => named.into(),
        None => built().join("agentkernel-guest"),
    })
}

/// Builds the programs that run inside, the guest and the intruder, and returns their directory.
pub(crate) fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let packages = ["--package", "agentkernel-guest", "--package", "agentkernel-intruder"];
        // The lock of the build directory is free while tests run.
        let built = Command::new(env!("CARGO")).args(["build", "--quiet"]).args(packages).status().unwrap();
        assert!(built.success(), "the guest does not build");
        let test = std::env::current_exe().unwrap();
        let dir = test.ancestors().find(|dir| dir.join("agentkernel-guest").is_file());
        dir.expect("the guest is built beside the tests").to_owned()
    })
}

/// Returns the configuration of the tests.
pub(crate) fn config() -> DockerConfig {
    DockerConfig::default().with_guest(guest())
}
