//! How trials ended.
use std::{fs, io, path::Path};

use serde_json::json;

/// How a trial ended.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The rule holds.
    Passed,
    /// The rule does not hold; the reason.
    Failed(String),
    /// The rule does not apply here; the reason.
    Skipped(String),
}

impl Outcome {
    /// Returns the stable name.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed(_) => "failed",
            Self::Skipped(_) => "skipped",
        }
    }

    /// Returns why it failed or was skipped.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Passed => None,
            Self::Failed(reason) | Self::Skipped(reason) => Some(reason),
        }
    }
}

/// How one trial ended.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// `suite::rule`.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
}

/// How all trials of a run ended.
#[non_exhaustive]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// One for each trial.
    pub verdicts: Vec<Verdict>,
}

impl Report {
    /// Returns the names and reasons of the trials that failed.
    pub fn failures(&self) -> Vec<(&str, &str)> {
        let failed = self.verdicts.iter().filter(|verdict| matches!(verdict.outcome, Outcome::Failed(_)));
        failed.map(|verdict| (verdict.name.as_str(), verdict.outcome.reason().unwrap_or_default())).collect()
    }

    /// Returns the number of trials that passed.
    pub fn passed(&self) -> usize {
        self.verdicts.iter().filter(|verdict| verdict.outcome == Outcome::Passed).count()
    }

    /// Writes an array of `{name, outcome, reason}`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_json(&self, path: &Path) -> io::Result<()> {
        let verdicts = self.verdicts.iter().map(|verdict| {
            let (outcome, reason) = (verdict.outcome.as_str(), verdict.outcome.reason());
            json!({ "name": verdict.name, "outcome": outcome, "reason": reason })
        });
        let verdicts = verdicts.collect::<Vec<_>>();
        fs::write(path, serde_json::to_vec_pretty(&verdicts)?)
    }
}
