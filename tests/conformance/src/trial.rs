//! Running one rule: skipped if it does not apply, bounded in time, and everything that it made removed after it.
use std::{error::Error as _, time::Duration};

use agentkernel_core::Error;
use tokio::time;

use crate::{Outcome, fixture::Fixture, kit::Subject, panics, rule::Rule};

/// How long the removal of what a trial left can take.
const CLEANUP_DEADLINE: Duration = Duration::from_secs(30);

/// Runs the trial of a rule.
pub(crate) async fn run(subject: &Subject, rule: &'static Rule) -> Outcome {
    if let Some(missing) = rule.needs.iter().find(|needed| !subject.capabilities.has(**needed)) {
        return Outcome::Skipped(format!("needs {missing}, which the backend does not claim"));
    }
    let fixture = Fixture::new(subject.clone());
    let trial = tokio::spawn(panics::caught((rule.trial)(fixture.clone())));
    let abort = trial.abort_handle();
    let outcome = match time::timeout(subject.deadline, trial).await {
        Ok(Ok(Ok(()))) => Outcome::Passed,
        Ok(Ok(Err(reason))) => Outcome::Failed(reason),
        Ok(Err(error)) => Outcome::Failed(error.to_string()),
        Err(_) => {
            abort.abort();
            Outcome::Failed(format!("not done after {} s", subject.deadline.as_secs()))
        }
    };
    match (outcome, cleanup(&fixture).await) {
        (Outcome::Passed, Err(reason)) => Outcome::Failed(format!("cleanup: {reason}")),
        (outcome, _) => outcome,
    }
}

/// Removes what the trial made, through fresh references: the handles of the trial are gone.
async fn cleanup(fixture: &Fixture) -> Result<(), String> {
    let mut first = Ok(());
    for name in fixture.names() {
        let sandbox = fixture.backend().sandbox(name);
        let removed = match time::timeout(CLEANUP_DEADLINE, sandbox.remove()).await {
            Ok(removed) => removed.map_err(|error| explain(&error)),
            Err(_) => Err(format!("removing is not done after {} s", CLEANUP_DEADLINE.as_secs())),
        };
        first = first.and(removed);
    }
    first
}

/// Returns an error with its causes in one line.
pub(crate) fn explain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}; caused by: {cause}");
        source = cause.source();
    }
    text
}
