//! Choosing a backend, and saying why.
use std::{fmt, pin::Pin, sync::Arc};

use serde::Serialize;
use tokio::sync::OnceCell;

use crate::{Backend, BackendType, Capabilities, Error, ErrorKind, Result, SandboxConfig};

/// Connects to a backend; called at most once with success.
pub type Connect =
    Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Arc<dyn Backend>>> + Send>> + Send + Sync + 'static>;

/// The backends that a program was built with, in the order of preference.
#[derive(Default)]
pub struct Registry {
    entries: Vec<Entry>,
}

struct Entry {
    backend_type: BackendType,
    upper_bound: Capabilities,
    connect: Connect,
    connected: OnceCell<Arc<dyn Backend>>,
}

/// What became of one backend in a selection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Considered {
    /// The backend.
    pub backend: BackendType,
    /// Why it was chosen or passed over.
    pub reason: String,
}

/// A chosen backend, and the reasons.
#[derive(Debug)]
pub struct Selection {
    /// The backend.
    pub backend: Arc<dyn Backend>,
    /// Every backend that was considered, the chosen one last.
    pub considered: Vec<Considered>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.backend_types()).finish()
    }
}

/// Refuses a backend that has not the image and cannot fetch it.
async fn check_image(backend: &dyn Backend, config: &SandboxConfig) -> Result<()> {
    let (Some(images), Some(image)) = (backend.images(), &config.image) else { return Ok(()) };
    if images.pulls() || images.inspect(&image.parse()?).await?.is_some() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::NotFound, "choose a backend", "it has no such image and pulls none")
        .with_context("backend", backend.backend_type())
        .with_context("image", image))
}

impl Registry {
    /// Makes an empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a backend after those already there. `upper_bound` is what it can do at best.
    #[must_use]
    pub fn with(mut self, backend_type: BackendType, upper_bound: Capabilities, connect: Connect) -> Self {
        self.entries.push(Entry { backend_type, upper_bound, connect, connected: OnceCell::new() });
        self
    }

    /// Returns the backends in order.
    pub fn backend_types(&self) -> impl Iterator<Item = BackendType> {
        self.entries.iter().map(|entry| entry.backend_type)
    }

    /// Returns what a backend can do at best, anywhere.
    pub fn upper_bound(&self, backend_type: BackendType) -> Option<Capabilities> {
        self.entries.iter().find(|entry| entry.backend_type == backend_type).map(|entry| entry.upper_bound)
    }

    /// Returns the backend with this name.
    ///
    /// # Errors
    /// `InvalidConfig` if the program has no such backend.
    pub fn find(&self, name: &str) -> Result<BackendType> {
        self.backend_types().find(|known| known.as_str() == name).ok_or_else(|| {
            let known = self.backend_types().map(BackendType::as_str).collect::<Vec<_>>().join(", ");
            Error::new(ErrorKind::InvalidConfig, "choose a backend", "there is no such backend")
                .with_context("backend", name)
                .with_hint(format!("use one of: {known}"))
        })
    }

    /// Connects to a backend, or returns the connection made before.
    pub async fn connect(&self, backend_type: BackendType) -> Result<Arc<dyn Backend>> {
        let entry =
            self.entries.iter().find(|entry| entry.backend_type == backend_type).ok_or_else(|| {
                Error::new(ErrorKind::InvalidConfig, "choose a backend", "this program has no such backend")
                    .with_context("backend", backend_type)
            })?;
        entry.connected.get_or_try_init(|| (entry.connect)()).await.map(Arc::clone)
    }

    /// Chooses the backend for a config: the caller's choice, or the first that is available and can enforce it.
    ///
    /// # Errors
    /// The choice's own error if one was made. Without a choice, `Unavailable` if none can be reached and `Unsupported`
    /// if none that can be reached can enforce the config; both tell every backend's reason.
    pub async fn select(&self, choice: Option<BackendType>, config: &SandboxConfig) -> Result<Selection> {
        if let Some(choice) = choice {
            let backend = self.connect(choice).await?;
            let considered = vec![Considered { backend: choice, reason: "chosen by the caller".to_owned() }];
            self.check(&*backend, config).await?;
            return Ok(Selection { backend, considered });
        }
        let mut considered = Vec::new();
        let mut first_error: Option<Error> = None;
        for entry in &self.entries {
            let attempt = async {
                let backend = self.connect(entry.backend_type).await?;
                self.check(&*backend, config).await?;
                check_image(&*backend, config).await?;
                Ok::<_, Error>(backend)
            };
            match attempt.await {
                Ok(backend) => {
                    let reason = "the first that is available and can enforce what was asked for".to_owned();
                    considered.push(Considered { backend: entry.backend_type, reason });
                    return Ok(Selection { backend, considered });
                }
                Err(error) => {
                    considered.push(Considered { backend: entry.backend_type, reason: error.to_string() });
                    // What a reachable backend cannot do tells more than that another one is not installed.
                    let better = first_error.as_ref().is_none_or(|first| {
                        first.kind() == ErrorKind::Unavailable && error.kind() != ErrorKind::Unavailable
                    });
                    if better {
                        first_error = Some(error);
                    }
                }
            }
        }
        match (first_error, considered.as_slice()) {
            (Some(error), [_]) => Err(error),
            (Some(error), _) => {
                let hint = error.hint().unwrap_or("see `agentkernel backends`").to_owned();
                let all = Error::new(error.kind(), "choose a backend", "no backend can run this")
                    .with_source(error)
                    .with_hint(hint);
                Err(considered
                    .iter()
                    .fold(all, |all, one| all.with_context(one.backend.as_str(), &one.reason)))
            }
            (None, _) => {
                Err(Error::new(ErrorKind::Unavailable, "choose a backend", "this program has no backend"))
            }
        }
    }

    /// Checks the config against the backend, and on refusal names the backends that could enforce it.
    async fn check(&self, backend: &dyn Backend, config: &SandboxConfig) -> Result<()> {
        let has = backend.health().await?.capabilities;
        let sandbox_free_host = crate::HostContext {
            cwd: "/".into(),
            home: Some("/".into()),
            owner: crate::Owner::new("", "", 0, 0, 0, 0),
        };
        let Err(error) = config.resolve(has, &sandbox_free_host) else { return Ok(()) };
        if error.kind() != ErrorKind::Unsupported {
            return Err(error);
        }
        let error = error.with_context("backend", backend.backend_type());
        let could = self
            .entries
            .iter()
            .filter(|entry| entry.backend_type != backend.backend_type())
            .filter(|entry| config.resolve(entry.upper_bound, &sandbox_free_host).is_ok())
            .map(|entry| entry.backend_type.as_str())
            .collect::<Vec<_>>();
        if could.is_empty() {
            return Err(error);
        }
        Err(error.with_hint(format!("a backend that could: `--backend {}`", could.join("` or `--backend "))))
    }
}
