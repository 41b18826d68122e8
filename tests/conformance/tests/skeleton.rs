//! The skeleton that a new backend begins with: what it does not leave to the engine, it does as the kit wants it.
#[path = "../examples/skeleton.rs"]
#[expect(dead_code, unreachable_pub, reason = "it is a whole crate's lib.rs, with a main function")]
mod skeleton;

use std::sync::Arc;

use agentkernel_conformance::Kit;
use agentkernel_core::Backend;

/// What needs an engine behind it.
const LEFT: [&str; 2] = ["a_deadline_ends_an_owned_one", "a_reference_finds_what_another_handle_made"];

#[tokio::test(flavor = "multi_thread")]
async fn handles_lists_and_refusals_are_as_they_must_be() {
    let kit = Kit::new("toy", || async {
        let backend: Arc<dyn Backend> = skeleton::ToyBackend::connect().await?;
        Ok(backend)
    });
    let suites = ["claims::", "ownership::", "concurrency::the_list", "lifecycle::remove", "lifecycle::stop"];
    let wanted = |name: &str| {
        suites.iter().any(|suite| name.starts_with(suite)) && !LEFT.iter().any(|left| name.ends_with(left))
    };
    let verdict = kit.run(wanted).await;
    assert_eq!(verdict.failures(), []);
    assert!(verdict.counts.passed > 40, "{:?}", verdict.counts);
}
