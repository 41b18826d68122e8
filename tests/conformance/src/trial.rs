//! Running one rule: skipped if it does not apply, bounded in time, and everything that it made removed after it.
use std::{error::Error as _, time::Duration};

use agentkernel_core::Error;
use tokio::time;

use crate::{Outcome, fixture::Fixture, kit::Subject, panics, rule::Rule};

/// How long the removal of what a trial left can take.
pub(crate) const CLEANUP_DEADLINE: Duration = Duration::from_secs(30);

/// Runs the trial of a rule and returns how it ended, with the reason unless it passed.
pub(crate) async fn run(subject: &Subject, rule: &'static Rule) -> (Outcome, Option<String>) {
    if let Some(missing) = rule.needs.iter().find(|needed| !subject.capabilities().has(**needed)) {
        let reason = format!("needs {missing}, which the backend does not claim");
        return (Outcome::Skipped, Some(reason));
    }
    if rule.needs_intruder() && subject.intruder.is_none() {
        let reason = "needs a program that plays the intruder: see `Kit::with_intruder`";
        return (Outcome::Skipped, Some(reason.to_owned()));
    }
    let fixture = Fixture::new(subject.clone());
    let trial = tokio::spawn(panics::caught((rule.trial)(fixture.clone())));
    let abort = trial.abort_handle();
    let wrong = match time::timeout(subject.deadline, trial).await {
        Ok(Ok(Ok(()))) => None,
        Ok(Ok(Err(reason))) => Some(reason),
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => {
            abort.abort();
            Some(format!("not done after {} s", subject.deadline.as_secs()))
        }
    };
    let wrong = match (wrong, cleanup(&fixture).await) {
        (None, Err(reason)) => Some(format!("cleanup: {reason}")),
        (wrong, _) => wrong,
    };
    (if wrong.is_none() { Outcome::Passed } else { Outcome::Failed }, wrong)
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
