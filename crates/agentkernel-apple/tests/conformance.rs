//! The suite that every backend passes: on the `container` that `AGENTKERNEL_CONTAINER` names, else on macOS on the real
//! one, else on the stand-in, in the version that `AGENTKERNEL_STANDIN_VERSION` names (default 1.2).
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test says so by failing")]
#[path = "support/lines.rs"]
mod lines;
#[path = "support/world.rs"]
mod world;

use std::{
    os::unix::fs::MetadataExt,
    path::PathBuf,
    process::{Command, ExitCode},
    sync::Arc,
    time::Duration,
};

use agentkernel_apple::{AppleBackend, AppleConfig};
use agentkernel_conformance::Kit;
use agentkernel_core::Backend;

fn main() -> ExitCode {
    let is_real = std::env::var_os("AGENTKERNEL_CONTAINER").is_some() || std::env::consts::OS == "macos";
    let version = std::env::var("AGENTKERNEL_STANDIN_VERSION").unwrap_or_else(|_| "1.2".to_owned());
    // The stand-in makes namespaces. Without it nothing is found, and the kit says so.
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    let world = (!is_real && is_root).then(|| world::World::new(&version));
    let program = world.as_ref().map(world::World::program);
    let kit = Kit::new("apple", move || {
        let program = program.clone();
        async move {
            let config = AppleConfig::default();
            let config = program.map_or(config.clone(), |program| config.with_program(program));
            let backend: Arc<dyn Backend> = AppleBackend::connect(config).await?;
            Ok(backend)
        }
    });
    // The one image that is there from the start.
    let mut kit = kit.with_image("busybox").with_least(200, 1000);
    if world.is_some() {
        kit = kit.with_intruder(intruder());
    }
    // Each of hundreds of calls is two processes, and on the stand-in namespaces too.
    let code = kit.with_trial_deadline(Duration::from_secs(240)).main();
    let calls = world.as_ref().map(|world| lines::of(&world.program())).unwrap_or_default();
    let broken = calls.iter().filter_map(|call| Some((lines::broken(call)?, call))).collect::<Vec<_>>();
    drop(world);
    for (rule, call) in &broken {
        eprintln!("{rule}: {call:?}");
    }
    if broken.is_empty() {
        // A list of the trials makes no call.
        eprintln!("{} calls of `container`, none of which breaks a rule of its command line", calls.len());
        code
    } else {
        ExitCode::FAILURE
    }
}

/// Builds the program that plays the intruder; the stand-in runs what this machine does.
fn intruder() -> PathBuf {
    let package = ["--package", "agentkernel-intruder"];
    // The lock of the build directory is free while tests run.
    let built = Command::new(env!("CARGO")).args(["build", "--quiet"]).args(package).status().unwrap();
    assert!(built.success(), "the intruder does not build");
    std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("agentkernel-intruder")
}
