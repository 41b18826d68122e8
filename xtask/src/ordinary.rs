//! The embedded backend once more, as an ordinary user: what root can do says nothing of what others can.
use std::{
    env, fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process::{cargo, command, read, run};

/// Runs the kit of the linux backend as user 1000 without groups. The programs are copied: those of the build may lie
/// where only root can look.
pub(crate) fn kit() -> Result<()> {
    let built = ["test", "--package", "agentkernel-linux", "--test", "conformance", "--no-run"];
    let told = read(cargo(built).args(["--quiet", "--message-format=json"]))?;
    let test = told.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find_map(|message| {
        let is_it = message["target"]["name"] == "conformance";
        message["executable"].as_str().filter(|_| is_it).map(PathBuf::from)
    });
    let test = test.context("cargo does not say where the kit is")?;
    let programs = test.ancestors().nth(2).context("the kit is nowhere")?;
    let dir = env::temp_dir().join(format!("ordinary-{}", process::id()));
    fs::create_dir(&dir)?;
    let outcome = run_in(&dir, &test, programs);
    fs::remove_dir_all(&dir)?;
    outcome
}

fn run_in(dir: &Path, test: &Path, programs: &Path) -> Result<()> {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    let deps = dir.join("deps");
    fs::create_dir(&deps)?;
    fs::set_permissions(&deps, fs::Permissions::from_mode(0o755))?;
    let kit = deps.join("conformance");
    fs::copy(test, &kit)?;
    for program in ["agentkernel-guest", "agentkernel-intruder"] {
        if !programs.join(program).is_file() {
            bail!("{program} is not built");
        }
        fs::copy(programs.join(program), dir.join(program))?;
    }
    let home = dir.join("home");
    fs::create_dir(&home)?;
    chown(&home, Some(1000), Some(1000))?;
    let mut user = command("setpriv", ["--reuid=1000", "--regid=1000", "--clear-groups"]);
    user.arg(&kit).arg("--quiet").current_dir(dir);
    for of_root in ["XDG_RUNTIME_DIR", "AGENTKERNEL_VERDICTS"] {
        user.env_remove(of_root);
    }
    run(user
        .env("HOME", home)
        .env("AGENTKERNEL_TEST_BUILT", "1")
        .env("AGENTKERNEL_REQUIRE_BACKENDS", "linux"))
}
