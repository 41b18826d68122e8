//! What a shell is told of names that only the backends know. Called by `main` before anything else of the command.
use std::{ffi::OsStr, time::Duration};

use agentkernel_core::Filter;
use clap_complete::{ArgValueCompleter, CompletionCandidate};
use futures_util::future::join_all;
use tokio::{runtime::Builder, time::timeout};

use crate::backends;

/// How long a person who pressed the tabulator key is kept waiting.
const PATIENCE: Duration = Duration::from_secs(1);

/// Completes the names of sandboxes.
pub(crate) fn sandbox() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let current = current.to_string_lossy().into_owned();
        let names = sandboxes().into_iter().filter(|name| name.starts_with(&current));
        names.map(CompletionCandidate::new).collect()
    })
}

/// Completes the names of backends.
pub(crate) fn backend() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let current = current.to_string_lossy().into_owned();
        let names =
            backends::registry(None).backend_types().map(|backend| backend.to_string()).collect::<Vec<_>>();
        names.into_iter().filter(|name| name.starts_with(&current)).map(CompletionCandidate::new).collect()
    })
}

/// Asks every backend; what does not answer in time has no names.
fn sandboxes() -> Vec<String> {
    let Ok(runtime) = Builder::new_current_thread().enable_all().build() else { return Vec::new() };
    let registry = &backends::registry(None);
    let asked = async {
        join_all(registry.backend_types().map(|backend| {
            let names =
                async move { registry.connect(backend).await.ok()?.list(&Filter::default()).await.ok() };
            timeout(PATIENCE, names)
        }))
        .await
    };
    let names = runtime.block_on(asked);
    runtime.shutdown_background();
    names.into_iter().flatten().flatten().flatten().map(|info| info.name.to_string()).collect()
}
