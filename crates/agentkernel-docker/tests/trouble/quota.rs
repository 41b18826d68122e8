//! An engine that can limit disks: the trials of the kit that others skip.
use agentkernel_conformance::{Kit, Outcome};
use agentkernel_core::{Backend, Capability};

use crate::{
    daemon::{Daemon, Options},
    image,
};

#[tokio::test]
async fn disks_are_limited_on_btrfs() {
    let Some(daemon) = Daemon::start(Options { disk: 512, quota: true, ..Options::default() }).await else {
        return;
    };
    let backend = daemon.backend().await;
    let kit = Kit::new("docker", move || {
        let backend = backend.clone();
        async move { Ok(backend as std::sync::Arc<dyn Backend>) }
    });
    let wanted = Kit::trials_of(Capability::DiskLimit);
    let verdict = kit.with_image(image::NAME).run(|name| wanted.iter().any(|trial| trial == name)).await;
    assert!(verdict.trials.len() >= 2, "{:?}", verdict.trials);
    for trial in &verdict.trials {
        assert_eq!(trial.outcome, Outcome::Passed, "{trial:?}");
    }
    daemon.assert_nothing_is_left().await;
}
