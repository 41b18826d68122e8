//! How a run of the kit ended: for each trial, for each capability, and altogether. Its JSON is a stable format.
use std::collections::HashSet;

use agentkernel_core::{Capability, Health, Isolation};
use serde::{Deserialize, Serialize};

use crate::rule::{self, Rule};

/// How a run of the kit on a backend ended.
///
/// Serialized, this is the verdict for programs. Fields are added to it without a new [`format`](Self::format); they
/// are renamed, removed or given another meaning only with one.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The version of this format: [`Verdict::FORMAT`].
    pub format: u32,
    /// The version of the kit.
    pub kit: String,
    /// The backend's name.
    pub backend: String,
    /// What was tested; `None` if it could not be reached.
    pub engine: Option<Engine>,
    /// Why there was nothing to test: every trial is then skipped, or failed if the backend was required.
    pub unreachable: Option<String>,
    /// Whether every trial of the kit has a line here: no filter was given.
    pub complete: bool,
    /// Whether the backend passes the kit: it was reached, every trial was run or skipped with a reason, none failed.
    pub conforms: bool,
    /// Trials by their outcome.
    pub counts: Counts,
    /// Every capability, in the order of [`Capability::ALL`].
    pub capabilities: Vec<CapabilityVerdict>,
    /// Every trial that was asked for, in the kit's order.
    pub trials: Vec<Trial>,
    /// The run that trials of several processes belong to, as nextest names it.
    pub run: Option<String>,
}

/// The engine behind a backend.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Engine {
    /// Its version, for people.
    pub version: String,
    /// How strongly it isolates here.
    pub isolation: Isolation,
    /// What a person should know of it, each a sentence.
    pub warnings: Vec<String>,
}

/// Trials by their outcome.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// The rule holds.
    pub passed: usize,
    /// The rule does not hold.
    pub failed: usize,
    /// The rule does not apply.
    pub skipped: usize,
}

/// What the trials say of one capability.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityVerdict {
    /// The capability.
    pub name: Capability,
    /// What it means, in a sentence.
    pub description: String,
    /// Whether the backend claims it here.
    pub claimed: bool,
    /// What became of the claim.
    pub standing: Standing,
    /// The trials that need it or are about it.
    pub counts: Counts,
}

/// What became of a claim, or of its absence.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Claimed, and every trial of it passed.
    Proven,
    /// Claimed, and no trial of it was run.
    Unproven,
    /// Not claimed, and seen to be refused with `Unsupported`.
    Refused,
    /// Not claimed, and nothing was tried.
    Absent,
    /// A trial of it failed, claimed or not.
    Broken,
}

/// How one trial ended.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// `suite::rule`.
    pub name: String,
    /// The capabilities that it needs or is about.
    pub capabilities: Vec<Capability>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it failed or was skipped.
    pub reason: Option<String>,
    /// How long it took, without its cleanup.
    pub milliseconds: u64,
}

/// How a trial ended.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The rule holds.
    Passed,
    /// The rule does not hold.
    Failed,
    /// The rule does not apply here.
    Skipped,
}

impl Trial {
    /// Makes the result of a rule; a reason means that it did not pass.
    pub(crate) fn new(rule: &Rule, outcome: Outcome, reason: Option<String>, milliseconds: u64) -> Self {
        let capabilities = rule.capabilities().collect();
        Self { name: rule.name(), capabilities, outcome, reason, milliseconds }
    }
}

impl Counts {
    fn of<'a>(trials: impl Iterator<Item = &'a Trial>) -> Self {
        trials.fold(Self::default(), |mut counts, trial| {
            match trial.outcome {
                Outcome::Passed => counts.passed += 1,
                Outcome::Failed => counts.failed += 1,
                Outcome::Skipped => counts.skipped += 1,
            }
            counts
        })
    }
}

impl Verdict {
    /// The version of the format that this kit writes.
    pub const FORMAT: u32 = 1;

    /// Makes a verdict of trials in any order. `health` is what the backend said, or why it said nothing.
    pub(crate) fn new(
        backend: &str,
        health: Result<&Health, &str>,
        run: Option<String>,
        trials: Vec<Trial>,
    ) -> Self {
        let claims = health.ok().map(|health| health.capabilities);
        let capabilities = Capability::ALL.iter().map(|name| CapabilityVerdict {
            name: *name,
            description: name.description().to_owned(),
            claimed: claims.is_some_and(|claims| claims.has(*name)),
            standing: Standing::Absent,
            counts: Counts::default(),
        });
        let mut verdict = Self {
            format: Self::FORMAT,
            kit: env!("CARGO_PKG_VERSION").to_owned(),
            backend: backend.to_owned(),
            engine: health.ok().map(|health| Engine {
                version: health.version.clone(),
                isolation: health.capabilities.isolation(),
                warnings: health.warnings.clone(),
            }),
            unreachable: health.err().map(ToOwned::to_owned),
            complete: false,
            conforms: false,
            counts: Counts::default(),
            capabilities: capabilities.collect(),
            trials,
            run,
        };
        verdict.conclude();
        verdict
    }

    /// Adds the trials of another process of the same run; a trial that was tried again counts as it ended last.
    pub(crate) fn add(&mut self, later: Self) {
        self.trials.retain(|trial| later.trials.iter().all(|again| again.name != trial.name));
        self.trials.extend(later.trials);
        self.conclude();
    }

    /// Brings the trials in order and works out what follows from them.
    fn conclude(&mut self) {
        let all = rule::all().map(Rule::name).collect::<Vec<_>>();
        self.trials.sort_by_key(|trial| all.iter().position(|name| *name == trial.name));
        let told = self.trials.iter().map(|trial| trial.name.as_str()).collect::<HashSet<_>>();
        self.complete = all.iter().all(|name| told.contains(name.as_str()));
        self.counts = Counts::of(self.trials.iter());
        self.conforms = self.complete && self.engine.is_some() && self.counts.failed == 0;
        for capability in &mut self.capabilities {
            let of_it = self.trials.iter().filter(|trial| trial.capabilities.contains(&capability.name));
            capability.counts = Counts::of(of_it);
            capability.standing = match (capability.claimed, capability.counts) {
                (_, Counts { failed: 1.., .. }) => Standing::Broken,
                (true, Counts { passed: 1.., .. }) => Standing::Proven,
                (true, _) => Standing::Unproven,
                // A trial that only needs it is skipped: what passed is the one about the claim.
                (false, Counts { passed: 1.., .. }) => Standing::Refused,
                (false, _) => Standing::Absent,
            };
        }
    }

    /// Returns the names and reasons of the trials that failed.
    pub fn failures(&self) -> Vec<(&str, &str)> {
        let failed = self.trials.iter().filter(|trial| trial.outcome == Outcome::Failed);
        failed.map(|trial| (trial.name.as_str(), trial.reason.as_deref().unwrap_or_default())).collect()
    }

    /// Returns what became of a capability.
    pub fn standing(&self, capability: Capability) -> Standing {
        let found = self.capabilities.iter().find(|verdict| verdict.name == capability);
        found.map_or(Standing::Absent, |verdict| verdict.standing)
    }
}
