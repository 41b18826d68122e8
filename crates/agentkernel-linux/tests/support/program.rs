//! The programs that run inside.
use std::{path::PathBuf, process::Command, sync::OnceLock};

/// Builds the programs that run inside, the guest and the intruder, and returns their directory.
pub(crate) fn built() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let beside = |dir: &&std::path::Path| dir.join("agentkernel-guest").is_file();
        // Another user than the one that has built may not build.
        if std::env::var_os("AGENTKERNEL_TEST_BUILT").is_none() {
            let packages = ["--package", "agentkernel-guest", "--package", "agentkernel-intruder"];
            let built =
                Command::new(env!("CARGO")).args(["build", "--quiet"]).args(packages).status().unwrap();
            assert!(built.success(), "the guest does not build");
        }
        test.ancestors().find(beside).expect("the guest is built beside the tests").to_owned()
    })
}
