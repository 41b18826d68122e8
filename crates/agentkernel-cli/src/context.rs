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

    /// Finds a sandbox. A single backend is not asked, so that this works while its engine hangs; several are asked at
    /// once, and two that have the name are an error.
    pub(crate) async fn sandbox(&self, name: &SandboxName) -> Result<Arc<dyn Sandbox>> {
        let types = self.backend_types();
        if let [only] = types.as_slice() {
            return Ok(self.registry.connect(*only).await?.sandbox(name.clone()));
        }
        let answers = join_all(types.iter().map(|backend_type| async {
            let ask = async {
                let sandbox = self.registry.connect(*backend_type).await?.sandbox(name.clone());
                sandbox.inspect().await.map(|_| sandbox)
            };
            timeout(LOCATE, ask).await
        }))
        .await;
        // A backend that is not there or does not answer has no say: that is not known to be the one.
        let mut found = answers.into_iter().filter_map(|answer| answer.ok()?.ok());
        match (found.next(), found.next()) {
            (Some(sandbox), None) => Ok(sandbox),
            (Some(one), Some(other)) => Err(Error::new(
                ErrorKind::Conflict,
                "find sandbox",
                "two backends have a sandbox of this name",
            )
            .with_context("name", name)
            .with_context("backend", one.backend_type())
            .with_context("backend", other.backend_type())
            .with_hint(format!("say which: `--backend {}`", one.backend_type()))),
            (None, _) => Err(not_found(name)),
        }
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
