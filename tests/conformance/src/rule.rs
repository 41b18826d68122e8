//! One rule of the contract: its name, what it needs, and the trial of it.
use std::{fmt, pin::Pin};

use agentkernel_core::Capability;

use crate::{fixture::Fixture, suites};

/// The running trial of a rule.
pub(crate) type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One rule. Its trial panics if the rule does not hold.
pub(crate) struct Rule {
    /// The path of the module that it is written in; the last part is the suite.
    pub(crate) module: &'static str,
    /// The rule, as a sentence without spaces.
    pub(crate) rule: &'static str,
    /// What a backend must claim for the rule to apply.
    pub(crate) needs: &'static [Capability],
    /// The capability that it tests both ways, claimed or not.
    pub(crate) claim: Option<Capability>,
    /// The trial.
    pub(crate) trial: fn(Fixture) -> Running,
}

impl Rule {
    /// Returns `suite::rule`.
    pub(crate) fn name(&self) -> String {
        format!("{}::{}", self.suite(), self.rule)
    }

    fn suite(&self) -> &'static str {
        self.module.rsplit("::").next().unwrap_or(self.module)
    }

    /// Returns whether its trial runs the intruder.
    pub(crate) fn needs_intruder(&self) -> bool {
        self.suite() == "hostile"
    }

    /// Returns the capabilities that it says something of.
    pub(crate) fn capabilities(&self) -> impl Iterator<Item = Capability> {
        self.needs.iter().copied().chain(self.claim)
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// Returns every rule.
pub(crate) fn all() -> impl Iterator<Item = &'static Rule> {
    suites::ALL.iter().flat_map(|rules| rules.iter())
}

/// Makes the table of a suite: `rules![name, other_name [ExecStdin, KillTree]]`.
macro_rules! rules {
    ($($name:ident $([$($needs:ident),+])?),+ $(,)?) => {
        pub(crate) const RULES: &[crate::rule::Rule] = &[$(crate::rule::Rule {
            module: module_path!(),
            rule: stringify!($name),
            needs: &[$($(agentkernel_core::Capability::$needs),+)?],
            claim: None,
            trial: |fixture| Box::pin($name(fixture)),
        }),+];
    };
}
pub(crate) use rules;
