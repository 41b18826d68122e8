//! A stand-in with state of its own: the executable, copied beside its state, since the backend clears the environment.
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Its containers end with it.
pub(crate) struct World {
    directory: tempfile::TempDir,
}

impl World {
    pub(crate) fn new(version: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("stand-in")).unwrap();
        for program in ["container", "sw_vers"] {
            fs::copy(built().join(program), directory.path().join(program)).unwrap();
        }
        let world = Self { directory };
        world.switch(&format!(r#"{{"version":"{version}"}}"#));
        world
    }

    /// Sets the switches.
    pub(crate) fn switch(&self, json: &str) {
        fs::write(self.directory.path().join("stand-in/control.json"), json).unwrap();
    }

    pub(crate) fn program(&self) -> PathBuf {
        self.directory.path().join("container")
    }

    fn run(&self, arguments: &[&str]) -> Vec<u8> {
        let mut command = Command::new(self.program());
        command.args(arguments).env_clear().stdin(Stdio::null());
        command.output().map(|output| output.stdout).unwrap_or_default()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.switch("{}");
        let left = self.run(&["list", "--all", "--quiet"]);
        for id in String::from_utf8_lossy(&left).lines() {
            self.run(&["delete", "--force", id]);
        }
    }
}

/// Builds the stand-in and returns its directory.
fn built() -> PathBuf {
    let package = ["--package", "agentkernel-container-stand-in"];
    // The lock of the build directory is free while tests run.
    let built = Command::new(env!("CARGO")).args(["build", "--quiet"]).args(package).status().unwrap();
    assert!(built.success(), "the stand-in does not build");
    let test = std::env::current_exe().unwrap();
    test.ancestors().find(|dir| dir.join("container").is_file()).map(Path::to_owned).unwrap()
}
