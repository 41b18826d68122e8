//! What every verb has: the backends, the caller's choice among them, and how to print.
use std::{fmt, sync::Arc, time::Duration};

use agentkernel_core::{
    Backend, BackendType, Error, ErrorKind, Filter, Reap, Registry, Result, Sandbox, SandboxName,
};
use futures_util::future::join_all;
use tokio::{task::JoinHandle, time::timeout};

use crate::{
    args::{Global, Targets},
    backends, report,
    values::nearest,
};

/// How long a backend may take to say whether it has a sandbox, when several are asked.
const LOCATE: Duration = Duration::from_secs(2);
/// What every backend says of a sandbox that is not there.
const NO_SUCH_SANDBOX: &str = "there is no such sandbox";

pub(crate) struct Context {
    pub(crate) registry: Registry,
    pub(crate) choice: Option<BackendType>,
    pub(crate) json: bool,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("registry", &self.registry).field("choice", &self.choice).finish()
    }
}

impl Context {
    pub(crate) fn new(global: &Global) -> Result<Self> {
        let choice = global.backend.as_deref().filter(|name| !name.is_empty());
        let registry = backends::registry(choice);
        let find = |name| {
            registry.find(name).map_err(|error| {
                match nearest(name, registry.backend_types().map(BackendType::as_str)) {
                    Some(near) => error.with_hint(format!("did you mean `--backend {near}`?")),
                    None => error,
                }
            })
        };
        let choice = choice.map(find).transpose()?;
        Ok(Self { registry, choice, json: global.json })
    }

    /// The backends that a verb without a sandbox's name works on.
    pub(crate) fn backend_types(&self) -> Vec<BackendType> {
        self.choice.map_or_else(|| self.registry.backend_types().collect(), |choice| vec![choice])
    }

    /// Finds a sandbox: the embedded backend's, else an engine's. The only backend that is there is not asked, so that
    /// this works while its engine hangs; several are asked at once. Two that have the name are an error; one that is there and does not answer is taken where no
    /// other has it: then the verb itself finds out.
    pub(crate) async fn sandbox(&self, name: &SandboxName) -> Result<Arc<dyn Sandbox>> {
        let types = self.backend_types();
        if let Some(sandbox) = self.embedded(&types, name).await {
            return Ok(sandbox);
        }
        let connected = join_all(types.iter().map(|backend_type| self.registry.connect(*backend_type))).await;
        let mut sandboxes = Vec::new();
        let mut absent = None;
        for backend in connected {
            match backend {
                Ok(backend) => sandboxes.push(backend.sandbox(name.clone())),
                Err(error) => absent = absent.or(Some(error)),
            }
        }
        if sandboxes.len() < 2 {
            let nothing = || absent.unwrap_or_else(|| not_found(name));
            return sandboxes.pop().ok_or_else(nothing);
        }
        let answers = join_all(sandboxes.iter().map(|sandbox| timeout(LOCATE, sandbox.inspect()))).await;
        let (mut found, mut silent) = (Vec::new(), Vec::new());
        for (sandbox, answer) in sandboxes.into_iter().zip(answers) {
            match answer {
                Ok(Ok(_)) => found.push(sandbox),
                Ok(Err(error)) if error.kind() == ErrorKind::NotFound => {}
                Ok(Err(_)) | Err(_) => silent.push(sandbox),
            }
        }
        let (mut candidates, message) = if found.is_empty() {
            (silent, "several backends do not answer whether they have it")
        } else {
            (found, "several backends have a sandbox of this name")
        };
        if candidates.len() < 2 {
            return candidates.pop().ok_or_else(|| not_found(name));
        }
        let error = Error::new(ErrorKind::Conflict, "find sandbox", message)
            .with_context("name", name)
            .with_hint(format!("say which: `--backend {}`", candidates[0].backend_type()));
        Err(candidates
            .iter()
            .fold(error, |error, sandbox| error.with_context("backend", sandbox.backend_type())))
    }

    /// Finds what a verb works on. Labels that nothing has are an error, as a name is that nothing has.
    pub(crate) async fn targets(&self, targets: &Targets) -> Result<Vec<Target>> {
        if !targets.names.is_empty() {
            let named = |name: &SandboxName| Target { name: name.clone(), backend: None };
            return Ok(targets.names.iter().map(named).collect());
        }
        let filter = Filter { labels: targets.labels.iter().cloned().collect(), running: false };
        let filter = &filter;
        let found = self.ask_all(|backend| async move { backend.list(filter).await }).await?;
        if found.is_empty() {
            let none = Error::new(ErrorKind::NotFound, "find sandboxes", "no sandbox has these labels");
            return Err(targets
                .labels
                .iter()
                .fold(none, |error, (name, value)| error.with_context("label", format!("{name}={value}")))
                .with_hint("see `agentkernel list` and `agentkernel inspect NAME`"));
        }
        Ok(found.into_iter().map(|info| Target { name: info.name, backend: Some(info.backend) }).collect())
    }

    /// Finds the sandbox of a target.
    pub(crate) async fn target(&self, target: &Target) -> Result<Arc<dyn Sandbox>> {
        match target.backend {
            Some(backend) => Ok(self.registry.connect(backend).await?.sandbox(target.name.clone())),
            None => self.sandbox(&target.name).await,
        }
    }

    /// Adds the name that was most likely meant to the error that a sandbox is not there.
    pub(crate) async fn with_nearest(&self, error: Error) -> Error {
        let is_name = |(key, _): &&(&str, String)| matches!(*key, "sandbox" | "name");
        let Some((_, name)) = error.context().iter().find(is_name).filter(|_| is_absent(&error)) else {
            return error;
        };
        let filter = Filter::default();
        let filter = &filter;
        let list = self.ask_all(|backend| async move { backend.list(filter).await });
        // A hint is not worth a wait, and it fails as the verb did.
        let Ok(Ok(there)) = timeout(LOCATE, list).await else { return error };
        match nearest(name, there.iter().map(|info| info.name.as_ref())) {
            Some(near) => error.with_hint(format!("did you mean `{near}`? see `agentkernel list`")),
            None => error,
        }
    }

    /// Looks for a sandbox on the embedded backend: a look at a directory, so that engines are not asked for it.
    async fn embedded(&self, types: &[BackendType], name: &SandboxName) -> Option<Arc<dyn Sandbox>> {
        types.iter().find(|known| **known == BackendType::Linux)?;
        let sandbox = self.registry.connect(BackendType::Linux).await.ok()?.sandbox(name.clone());
        sandbox.inspect().await.is_ok().then_some(sandbox)
    }

    /// Asks every backend that is there. One that is not is passed over, unless there is no other.
    pub(crate) async fn ask_all<T, F: Future<Output = Result<Vec<T>>>>(
        &self,
        ask: impl Fn(Arc<dyn Backend>) -> F,
    ) -> Result<Vec<T>> {
        let mut all = Vec::new();
        for answer in self.answers(ask).await {
            all.extend(answer?);
        }
        Ok(all)
    }

    /// The same, but one that fails does not hide the others: it is told, and the result has `true`.
    pub(crate) async fn ask_each<T, F: Future<Output = Result<Vec<T>>>>(
        &self,
        ask: impl Fn(Arc<dyn Backend>) -> F,
    ) -> Result<(Vec<T>, bool)> {
        let answers = self.answers(ask).await;
        let is_anyone_there = answers.iter().any(Result::is_ok);
        let (mut all, mut is_failed) = (Vec::new(), false);
        for answer in answers {
            match answer {
                Err(error) if is_anyone_there => {
                    report::report(&error, false);
                    is_failed = true;
                }
                answer => all.extend(answer?),
            }
        }
        Ok((all, is_failed))
    }

    async fn answers<T, F: Future<Output = Result<Vec<T>>>>(
        &self,
        ask: impl Fn(Arc<dyn Backend>) -> F,
    ) -> Vec<Result<Vec<T>>> {
        let mut answers = join_all(self.backend_types().into_iter().map(|backend_type| {
            let ask = &ask;
            async move { ask(self.registry.connect(backend_type).await?).await }
        }))
        .await;
        if answers.iter().any(Result::is_ok) {
            let is_absent = |error: &Error| error.kind() == ErrorKind::Unavailable;
            answers.retain(|answer| !answer.as_ref().is_err_and(is_absent));
        }
        answers
    }
}

/// Removes what earlier processes left, beside the work of this one; what fails is left to `gc`, which tells.
pub(crate) fn reap(backend: Arc<dyn Backend>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let outcome = backend.reap(Reap::Remove).await;
        tracing::debug!(?outcome, "reaped");
    })
}

/// A sandbox that a verb works on.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: SandboxName,
    /// Where it is known to be.
    backend: Option<BackendType>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

/// Whether a sandbox is what was not found: an image or a file may be missing too.
fn is_absent(error: &Error) -> bool {
    error.kind() == ErrorKind::NotFound && error.message() == NO_SUCH_SANDBOX
}

pub(crate) fn not_found(name: &SandboxName) -> Error {
    Error::new(ErrorKind::NotFound, "find sandbox", NO_SUCH_SANDBOX)
        .with_context("name", name)
        .with_hint("see `agentkernel list`")
}
