//! A verdict as JUnit XML, for the dashboards of CI systems.
use std::{collections::BTreeMap, io, time::Duration};

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::{Outcome, Verdict, verdict::Trial};

impl Verdict {
    /// Returns it as JUnit XML: one `testsuite` for each suite, named `backend.suite`, with a `testcase` for each rule.
    ///
    /// # Errors
    /// If the XML cannot be made.
    pub fn to_junit(&self) -> io::Result<String> {
        let mut suites: BTreeMap<&str, Vec<&Trial>> = BTreeMap::new();
        for trial in &self.trials {
            suites.entry(suite_and_rule(trial).0).or_default().push(trial);
        }
        let mut report = Report::new(format!("agentkernel-conformance {}", self.backend));
        for (name, trials) in suites {
            let mut suite = TestSuite::new(format!("{}.{name}", self.backend));
            suite.add_test_cases(trials.into_iter().map(|trial| case(trial, &self.backend)));
            if let Some(engine) = &self.engine {
                suite.add_property(("engine", engine.version.as_str()));
            }
            report.add_test_suite(suite);
        }
        report.to_string().map_err(io::Error::other)
    }
}

fn suite_and_rule(trial: &Trial) -> (&str, &str) {
    trial.name.split_once("::").unwrap_or(("", &trial.name))
}

fn case(trial: &Trial, backend: &str) -> TestCase {
    let reason = trial.reason.as_deref().unwrap_or_default();
    let status = match trial.outcome {
        Outcome::Passed => TestCaseStatus::success(),
        Outcome::Skipped => {
            let mut skipped = TestCaseStatus::skipped();
            skipped.set_message(reason);
            skipped
        }
        Outcome::Failed => {
            let mut failed = TestCaseStatus::non_success(NonSuccessKind::Failure);
            failed.set_message(reason.lines().next().unwrap_or_default()).set_description(reason);
            failed
        }
    };
    let (suite, rule) = suite_and_rule(trial);
    let mut case = TestCase::new(rule, status);
    case.set_classname(format!("{backend}.{suite}")).set_time(Duration::from_millis(trial.milliseconds));
    case
}
