//! The verdict's formats, which programs read: what is in them and when a backend conforms.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test says so by failing")]
use std::sync::Arc;

use agentkernel_conformance::{
    Kit, Outcome, Verdict,
    fake::{Bug, FakeBackend},
};
use agentkernel_core::{Backend, Error, ErrorKind};
use quick_junit::{Report, TestCaseStatus};
use serde_json::{Value, json};

async fn verdict(backend: FakeBackend, wanted: impl Fn(&str) -> bool) -> Verdict {
    let backend: Arc<dyn Backend> = Arc::new(backend);
    let connect = move || {
        let backend = Arc::clone(&backend);
        async { Ok(backend) }
    };
    Kit::new("fake", connect).run(wanted).await
}

async fn unreachable() -> Verdict {
    let connect = || async { Err(Error::new(ErrorKind::Unavailable, "connect", "nothing listens")) };
    Kit::new("absent", connect).run(|_| true).await
}

fn as_json(verdict: &Verdict) -> Value {
    serde_json::to_value(verdict).unwrap()
}

fn capability(verdict: &Value, name: &str) -> Value {
    let all = verdict["capabilities"].as_array().unwrap();
    all.iter().find(|one| one["name"] == name).expect("every capability has a line").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_is_told_with_its_capabilities_outcome_and_time() {
    let verdict = verdict(FakeBackend::new(), |name| name == "exec::the_user_can_be_a_name").await;
    let mut trial = as_json(&verdict)["trials"][0].clone();
    assert!(trial["milliseconds"].take().is_u64());
    let expected = json!({
        "name": "exec::the_user_can_be_a_name",
        "capabilities": ["user"],
        "outcome": "passed",
        "reason": null,
        "milliseconds": null,
    });
    assert_eq!(trial, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_head_tells_what_was_tested() {
    let mut head = as_json(&verdict(FakeBackend::new(), |name| name == "exec::exec_gives_text").await);
    ["trials", "capabilities", "run"].iter().for_each(|long| drop(head[*long].take()));
    let expected = json!({
        "format": 1,
        "kit": env!("CARGO_PKG_VERSION"),
        "backend": "fake",
        "engine": {"version": env!("CARGO_PKG_VERSION"), "isolation": "process", "warnings": []},
        "unreachable": null,
        "complete": false,
        "conforms": false,
        "counts": {"passed": 1, "failed": 0, "skipped": 0},
        "capabilities": null,
        "trials": null,
        "run": null,
    });
    assert_eq!(head, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capability_is_told_with_what_became_of_its_claim() {
    let backend = FakeBackend::new().with_bug(Bug::LossyArguments);
    let verdict = as_json(
        &verdict(backend, |name| {
            name.contains("raw_bytes") || name.contains("utf8") || name.contains("memory")
        })
        .await,
    );
    let expected = json!({
        "name": "raw_bytes",
        "description": "Arguments, variables and paths need not be UTF-8.",
        "claimed": true,
        "standing": "broken",
        "counts": capability(&verdict, "raw_bytes")["counts"],
    });
    assert_eq!(capability(&verdict, "raw_bytes"), expected);
    let standings = ["memory_mb", "stats", "pids"].map(|name| capability(&verdict, name)["standing"].clone());
    assert_eq!(standings, ["refused", "unproven", "absent"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_run_without_failures_conforms_and_reads_back() {
    let verdict = verdict(FakeBackend::new(), |_| true).await;
    assert!(verdict.conforms && verdict.complete, "{:?}", verdict.failures());
    assert_eq!(serde_json::from_value::<Verdict>(as_json(&verdict)).unwrap(), verdict);
}

#[tokio::test]
async fn a_backend_that_was_not_reached_does_not_conform() {
    let verdict = unreachable().await;
    assert_eq!((verdict.complete, verdict.conforms, verdict.counts.passed), (true, false, 0));
    assert_eq!(
        verdict.unreachable.as_deref(),
        Some("absent is not available: failed to connect: nothing listens")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn junit_tells_the_same() {
    let backend = FakeBackend::new().with_bug(Bug::LostExitStatus);
    let verdict = verdict(backend, |name| name.starts_with("exec::") || name.starts_with("tty::")).await;
    let report = Report::deserialize_from_str(&verdict.to_junit().unwrap()).unwrap();
    let names = report.test_suites.iter().map(|suite| suite.name.as_str()).collect::<Vec<_>>();
    assert_eq!(names, ["fake.exec", "fake.tty"]);
    let cases = report.test_suites.iter().flat_map(|suite| &suite.test_cases);
    let told = cases.map(|case| match &case.status {
        TestCaseStatus::Success { .. } => (Outcome::Passed, None),
        TestCaseStatus::NonSuccess { description, .. } => {
            (Outcome::Failed, description.as_ref().map(|text| text.as_str().to_owned()))
        }
        TestCaseStatus::Skipped { message, .. } => {
            (Outcome::Skipped, message.as_ref().map(|text| text.as_str().to_owned()))
        }
    });
    let expected = verdict.trials.iter().map(|trial| (trial.outcome, trial.reason.clone()));
    assert_eq!(told.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    assert!(verdict.counts.failed > 0 && verdict.counts.skipped > 0, "{:?}", verdict.counts);
}
