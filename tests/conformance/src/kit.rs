//! What is tested and how: the options of a run, and the two ways to run it.
use std::{
    fmt,
    path::PathBuf,
    pin::Pin,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use agentkernel_core::{Backend, Capabilities, Capability, Error, ErrorKind, Health, Result, SandboxConfig};
use futures_util::{StreamExt, stream};
use libtest_mimic::{Arguments, Completion, Failed};
use tokio::{
    runtime::Runtime,
    time::{self, Instant},
};

use crate::{
    Outcome, Verdict, panics,
    publish::{self, Destinations},
    rule::{self, Rule},
    trial,
    verdict::Trial,
    watch::Watch,
};

/// The image that trials run in unless told otherwise.
pub const IMAGE: &str = "agentkernel-test";
/// How long one trial can take. Only a bound: no trial needs a tenth of it.
pub const TRIAL_DEADLINE: Duration = Duration::from_secs(60);

/// How long connecting and asking for health can take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(60);
/// How long after that, and its cleanup, a trial counts as one that blocks the runtime.
const BLOCKED: Duration = Duration::from_secs(30);
/// Names, with commas, of the backends that may not be skipped.
const REQUIRED: &str = "AGENTKERNEL_REQUIRE_BACKENDS";

type Connecting = Pin<Box<dyn Future<Output = Result<Arc<dyn Backend>>> + Send>>;

/// A backend under test and how it is tested.
#[derive(Clone)]
pub struct Kit {
    backend: &'static str,
    connect: Arc<dyn Fn() -> Connecting + Send + Sync>,
    config: SandboxConfig,
    intruder: Option<PathBuf>,
    least: Least,
    trial_deadline: Duration,
    parallel: usize,
}

/// The least that a backend can limit to: it is for the trials of the limits, and says nothing of what is refused.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Least {
    pub(crate) memory_mb: u64,
    /// In thousandths.
    pub(crate) vcpus: u32,
}

impl fmt::Debug for Kit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kit")
            .field("backend", &self.backend)
            .field("config", &self.config)
            .field("trial_deadline", &self.trial_deadline)
            .field("parallel", &self.parallel)
            .finish_non_exhaustive()
    }
}

/// A backend that answers.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) health: Health,
    pub(crate) config: SandboxConfig,
    pub(crate) intruder: Option<PathBuf>,
    pub(crate) least: Least,
    pub(crate) deadline: Duration,
}

/// Whether there is something to test.
enum Connected {
    Ready(Box<Subject>),
    Skip(String),
    Fail(String),
}

impl Kit {
    /// Makes a kit for the backend of this name, which `connect` reaches.
    pub fn new<C, F>(backend: &'static str, connect: C) -> Self
    where
        C: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<Arc<dyn Backend>>> + Send + 'static,
    {
        Self {
            backend,
            connect: Arc::new(move || Box::pin(connect())),
            config: SandboxConfig::new(IMAGE),
            intruder: None,
            least: Least { memory_mb: 48, vcpus: 100 },
            trial_deadline: TRIAL_DEADLINE,
            parallel: 4,
        }
    }

    /// Sets the image that trials run in. Default: [`IMAGE`].
    #[must_use]
    pub fn with_image(mut self, image: impl Into<String>) -> Self {
        self.config.image = Some(image.into());
        self
    }

    /// Sets the config that trials start from, for backends that need more than an image.
    #[must_use]
    pub fn with_config(mut self, config: SandboxConfig) -> Self {
        self.config = config;
        self
    }

    /// Sets the program that plays the intruder in the suite `hostile`, which is skipped without it: package
    /// `agentkernel-intruder` of this repository, built static for what the sandboxes run on.
    #[must_use]
    pub fn with_intruder(mut self, program: impl Into<PathBuf>) -> Self {
        self.intruder = Some(program.into());
        self
    }

    /// Sets the least memory, in MiB, and processors, in thousandths, that the backend can limit to. Default: 48 and 100.
    #[must_use]
    pub fn with_least(mut self, memory_mb: u64, vcpus: u32) -> Self {
        self.least = Least { memory_mb, vcpus };
        self
    }

    /// Sets how long one trial can take. Default: [`TRIAL_DEADLINE`].
    #[must_use]
    pub fn with_trial_deadline(mut self, deadline: Duration) -> Self {
        self.trial_deadline = deadline;
        self
    }

    /// Sets how many trials run at once, unless `--test-threads` says so. Default: 4.
    #[must_use]
    pub fn with_parallel_trials(mut self, trials: usize) -> Self {
        self.parallel = trials.max(1);
        self
    }

    /// Returns the names of all trials.
    pub fn trials() -> Vec<String> {
        rule::all().map(Rule::name).collect()
    }

    /// Returns the names of the trials that need a capability or test the claim of it.
    pub fn trials_of(capability: Capability) -> Vec<String> {
        let of_it = rule::all().filter(|rule| rule.capabilities().any(|named| named == capability));
        of_it.map(Rule::name).collect()
    }

    /// Runs it with the arguments of the process, as the main function of a test without a harness.
    pub fn main(self) -> ExitCode {
        let (destinations, arguments) = match Destinations::take(std::env::args_os()) {
            Ok(taken) => taken,
            Err(what) => return told(&what),
        };
        let mut arguments = Arguments::from_iter(arguments);
        let Ok(runtime) = Runtime::new() else {
            return told("no runtime can be started");
        };
        panics::install();
        let connected = if arguments.list {
            Connected::Skip("listed only".to_owned())
        } else {
            runtime.block_on(self.connected())
        };
        arguments.test_threads.get_or_insert(self.parallel);
        let connected = Arc::new(connected);
        let ended = Arc::new(Mutex::new(Vec::new()));
        let watch = Watch::start(self.trial_deadline + trial::CLEANUP_DEADLINE + BLOCKED);
        let trials = rule::all().map(|rule| {
            let (connected, ended, handle) =
                (Arc::clone(&connected), Arc::clone(&ended), runtime.handle().clone());
            let watch = Arc::clone(&watch);
            libtest_mimic::Trial::ignorable_test(rule.name(), move || {
                watch.begins(rule.name());
                let trial = handle.block_on(tried(&connected, rule));
                watch.ends(&rule.name());
                let reason = trial.reason.clone().unwrap_or_default();
                let answer = match trial.outcome {
                    Outcome::Passed => Ok(Completion::Completed),
                    Outcome::Skipped => Ok(Completion::ignored_with(reason)),
                    Outcome::Failed => Err(Failed::from(reason)),
                };
                ended.lock().unwrap_or_else(PoisonError::into_inner).push(trial);
                answer
            })
        });
        let trials = trials.collect();
        let conclusion = libtest_mimic::run(&arguments, trials);
        let ended = std::mem::take(&mut *ended.lock().unwrap_or_else(PoisonError::into_inner));
        if !arguments.list
            && let Err(what) = destinations.write(self.verdict(&connected, ended))
        {
            return told(&what);
        }
        runtime.shutdown_timeout(Duration::from_secs(5));
        conclusion.exit_code()
    }

    /// Runs the trials that `wanted` accepts by name and returns how they ended, for tests of the kit and for reports.
    pub async fn run(&self, wanted: impl Fn(&str) -> bool) -> Verdict {
        panics::install();
        let connected = self.connected().await;
        let rules = rule::all().filter(|rule| wanted(&rule.name())).collect::<Vec<_>>();
        let trials = stream::iter(rules).map(|rule| tried(&connected, rule)).buffered(self.parallel);
        let trials = trials.collect().await;
        self.verdict(&connected, trials)
    }

    fn verdict(&self, connected: &Connected, trials: Vec<Trial>) -> Verdict {
        let health = match connected {
            Connected::Ready(subject) => Ok(&subject.health),
            Connected::Skip(reason) | Connected::Fail(reason) => Err(reason.as_str()),
        };
        Verdict::new(self.backend, health, publish::run(), trials)
    }

    async fn connected(&self) -> Connected {
        let asked = async {
            let backend = (self.connect)().await?;
            let health = backend.health().await?;
            Ok::<_, Error>((backend, health))
        };
        let asked = time::timeout(CONNECT_DEADLINE, asked).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Timeout, "connect to the backend", "it does not answer"))
        });
        let required = std::env::var(REQUIRED)
            .is_ok_and(|names| names.split(',').any(|name| name.trim() == self.backend));
        match asked {
            Ok((backend, health)) => Connected::Ready(Box::new(Subject {
                backend,
                health,
                config: self.config.clone(),
                intruder: self.intruder.clone(),
                least: self.least,
                deadline: self.trial_deadline,
            })),
            Err(error) if error.kind() == ErrorKind::Unavailable && !required => {
                Connected::Skip(format!("{} is not available: {error}", self.backend))
            }
            Err(error) => Connected::Fail(format!("{}: {}", self.backend, trial::explain(&error))),
        }
    }
}

impl Subject {
    pub(crate) fn capabilities(&self) -> Capabilities {
        self.health.capabilities
    }
}

async fn tried(connected: &Connected, rule: &'static Rule) -> Trial {
    let started = Instant::now();
    let (outcome, reason) = match connected {
        Connected::Ready(subject) => trial::run(subject, rule).await,
        Connected::Skip(reason) => (Outcome::Skipped, Some(reason.clone())),
        Connected::Fail(reason) => (Outcome::Failed, Some(reason.clone())),
    };
    let milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Trial::new(rule, outcome, reason, milliseconds)
}

#[expect(clippy::print_stderr, reason = "it runs in the place of a main function")]
fn told(what: &str) -> ExitCode {
    eprintln!("error: {what}");
    ExitCode::FAILURE
}
