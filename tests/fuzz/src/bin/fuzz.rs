//! One target under libFuzzer. `cargo xtask fuzz` builds and runs it; `AGENTKERNEL_FUZZ_TARGET` names the target.
#![no_main]
use std::sync::LazyLock;

use agentkernel_fuzz::{TARGETS, Target, target};

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("AGENTKERNEL_FUZZ_TARGET").unwrap_or_default();
    target(&name).unwrap_or(&TARGETS[0])
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (TARGET.run)(bytes));
