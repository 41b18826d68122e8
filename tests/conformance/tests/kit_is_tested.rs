//! The kit itself: it passes on a fake without bugs, and finds each seeded bug where it is expected.
use std::{sync::Arc, time::Duration};

use agentkernel_conformance::{
    Kit, Outcome, Standing,
    fake::{Bug, CAPABILITIES, FakeBackend},
};
use agentkernel_core::{Backend, Capability, Error, ErrorKind};
use futures_util::future::join_all;

fn kit(backend: FakeBackend) -> Kit {
    let backend: Arc<dyn Backend> = Arc::new(backend);
    Kit::new("fake", move || {
        let backend = Arc::clone(&backend);
        async { Ok(backend) }
    })
    .with_trial_deadline(Duration::from_secs(30))
}

/// A trial that must fail on a fake with the bug.
const fn finder(bug: Bug) -> &'static str {
    match bug {
        Bug::LostExitStatus => "exec::exit_code_is_the_commands_own",
        Bug::MergedStreams => "stream::stdout_and_stderr_are_separate",
        Bug::SwallowedEndOfInput => "stdin::dropping_it_is_end_of_file",
        Bug::TruncatedOutput => "stream::sixty_four_mib_arrive_whole",
        Bug::PrefixNameMatch => "concurrency::a_name_is_never_taken_for_its_prefix",
        Bug::LeakedOnDrop => "ownership::dropping_the_owner_ends_the_sandbox",
        Bug::IgnoredReadOnly => "limits::a_read_only_root_refuses_commands",
        Bug::ForgedCommandNotFound => "exec::exit_127_with_not_found_in_the_output_is_a_code",
        Bug::NonAtomicWrite => "files::a_reader_sees_the_old_content_or_the_new",
        Bug::FollowsLinkOnWrite => "files::a_link_is_replaced_and_not_followed_when_written",
        Bug::LossyArguments => "exec::arguments_need_not_be_utf8",
        Bug::LeakedVariables => "env::variables_of_a_command_end_with_it",
        Bug::FirstVariableWins => "env::the_last_of_two_counts",
        Bug::TimeoutLosesOutput => "exec::a_timeout_ends_the_command_and_keeps_its_output",
        Bug::TreeSurvivesKill => "trees::a_dropped_session_kills_the_whole_tree",
        Bug::RemoveOfAbsentFails => "lifecycle::remove_of_an_absent_one_succeeds",
        Bug::UnpackLeavesDirectory => "archives::absolute_names_stay_inside",
        Bug::WaitsForBackground => "stream::a_background_child_with_stdout_open_does_not_hold_up_the_end",
        Bug::TouchesNamesake => "ownership::a_handle_does_not_touch_a_namesake",
        _ => "a bug without a trial that finds it",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fake_without_bugs_passes() {
    let verdict = kit(FakeBackend::new()).run(|_| true).await;
    assert_eq!(verdict.failures(), []);
    assert!(verdict.counts.passed > 250, "only {:?}", verdict.counts);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_seeded_bug_is_found_where_it_is_expected() {
    let reports = join_all(Bug::ALL.iter().map(|bug| async move {
        (bug, kit(FakeBackend::new().with_bug(*bug)).run(|name| name == finder(*bug)).await)
    }));
    for (bug, verdict) in reports.await {
        let found = matches!(verdict.trials.as_slice(), [one] if one.outcome == Outcome::Failed);
        assert!(found, "{bug:?} was not found: {verdict:?}");
    }
}

#[test]
fn every_capability_has_a_trial() {
    let without = Capability::ALL.iter().filter(|capability| Kit::trials_of(**capability).is_empty());
    assert_eq!(without.collect::<Vec<_>>(), Vec::<&Capability>::new());
}

/// Returns whether a trial of the capability fails on a fake with the bug; the claim's own trial comes first.
async fn is_found(bug: Bug, capability: Capability) -> bool {
    let kit = kit(FakeBackend::new().with_bug(bug));
    for trial in Kit::trials_of(capability).into_iter().rev() {
        if kit.run(|name| name == trial).await.standing(capability) == Standing::Broken {
            return true;
        }
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn every_false_claim_is_found() {
    // What keeping to named hosts means gets its trials with the first backend that can do it.
    let claims = Capability::ALL.iter().filter(|capability| **capability != Capability::NetworkAllow);
    let found = claims.map(|capability| async move {
        (capability, is_found(Bug::FalseClaim(*capability), *capability).await)
    });
    for (capability, found) in join_all(found).await {
        assert!(found, "{capability}");
    }
}

/// What a config asks for is refused by core, and three are promises that nobody asks for: the rest is the backend's.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_claimed_and_not_refused_is_found() {
    for capability in [
        Capability::ExecStdin,
        Capability::ExecSignal,
        Capability::ExecUser,
        Capability::ExecDetached,
        Capability::RawBytes,
        Capability::Files,
        Capability::Forward,
        Capability::Logs,
        Capability::Stats,
    ] {
        assert!(is_found(Bug::UnclaimedIsNotRefused(capability), capability).await, "{capability}");
    }
}

/// A claim dropped must turn every trial of it to the other side, and pass.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_dropped_is_tested_the_other_way() {
    for capability in CAPABILITIES.iter().filter(|claim| *claim != Capability::NetworkNone) {
        // The fake has no second network: everything needs this one claim.
        let verdict =
            kit(FakeBackend::new().without(capability)).run(|name| name.starts_with("claims::")).await;
        assert_eq!(verdict.failures(), [], "without {capability}");
    }
}

#[tokio::test]
async fn a_backend_that_is_not_there_skips_with_the_reason() {
    let absent = Kit::new("absent", || async {
        Err(Error::new(ErrorKind::Unavailable, "connect", "nothing listens"))
    });
    let verdict = absent.run(|name| name == "exec::exec_gives_text").await;
    let reason = verdict.trials[0].reason.as_deref();
    assert_eq!(reason, Some("absent is not available: failed to connect: nothing listens"));
}

#[tokio::test]
async fn a_backend_that_is_broken_fails() {
    let broken =
        Kit::new("broken", || async { Err(Error::new(ErrorKind::Timeout, "connect", "it is silent")) });
    let verdict = broken.run(|name| name == "exec::exec_gives_text").await;
    assert!(verdict.trials[0].outcome == Outcome::Failed);
}

#[test]
fn trials_have_names_of_their_own() {
    let mut names = Kit::trials();
    let all = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all);
}
