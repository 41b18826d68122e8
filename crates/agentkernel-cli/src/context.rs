//! What every verb has: the backends, the caller's choice among them, and how to print.
use std::{fmt, sync::Arc, time::Duration};

use agentkernel_core::{
    Backend, BackendType, Error, ErrorKind, Reap, Registry, Result, Sandbox, SandboxName,
};
use futures_util::future::join_all;
use tokio::{task::JoinHandle, time::timeout};

use crate::{args::Global, backends};

/// How long a backend may take to say whether it has a sandbox, when several are asked.
const LOCATE: Duration = Duration::from_secs(2);

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
        let registry = backends::registry();
        let choice = global.backend.as_deref().filter(|name| !name.is_empty());
        let choice = choice.map(|name| registry.find(name)).transpose()?;
        Ok(Self { registry, choice, json: global.json })
    }

    /// The backends that a verb without a sandbox's name works on.
    pub(crate) fn backend_types(&self) -> Vec<BackendType> {
        self.choice.map_or_else(|| self.registry.backend_types().collect(), |choice| vec![choice])
    }

    /// Finds a sandbox. The only backend that is there is not asked, so that this works while its engine hangs; several
    /// are asked at once. Two that have the name are an error; one that is there and does not answer is taken where no
    /// other has it: then the verb itself finds out.
    pub(crate) async fn sandbox(&self, name: &SandboxName) -> Result<Arc<dyn Sandbox>> {
        let types = self.backend_types();
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

    /// Asks every backend that is there. One that is not is passed over, unless there is no other.
    pub(crate) async fn ask_all<T, F: Future<Output = Result<Vec<T>>>>(
        &self,
        ask: impl Fn(Arc<dyn Backend>) -> F,
    ) -> Result<Vec<T>> {
        let answers = join_all(self.backend_types().into_iter().map(|backend_type| {
            let ask = &ask;
            async move { ask(self.registry.connect(backend_type).await?).await }
        }))
        .await;
        let is_anyone_there = answers.iter().any(Result::is_ok);
        let mut all = Vec::new();
        for answer in answers {
            match answer {
                Err(error) if is_anyone_there && error.kind() == ErrorKind::Unavailable => {}
                answer => all.extend(answer?),
            }
        }
        Ok(all)
    }
}

/// Removes what earlier processes left, beside the work of this one; what fails is left to `gc`, which tells.
pub(crate) fn reap(backend: Arc<dyn Backend>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let outcome = backend.reap(Reap::Remove).await;
        tracing::debug!(?outcome, "reaped");
    })
}

pub(crate) fn not_found(name: &SandboxName) -> Error {
    Error::new(ErrorKind::NotFound, "find sandbox", "there is no such sandbox")
        .with_context("name", name)
        .with_hint("see `agentkernel list`")
}
