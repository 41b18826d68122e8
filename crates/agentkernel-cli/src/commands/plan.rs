//! `--dry-run`: what would be made, where, and what would enforce it. Nothing is.
use agentkernel_core::{Result, SandboxConfig, SandboxName};

use super::Outcome;
use crate::{
    context::Context,
    output::{Plan, View},
};

pub(super) async fn plan(context: &Context, config: &SandboxConfig, name: &SandboxName) -> Result<Outcome> {
    let selection = context.registry.select(context.choice, config).await?;
    let health = selection.backend.health().await?;
    let sandbox = selection.backend.sandbox(name.clone());
    let capabilities = sandbox.capabilities().await?;
    let spec = config.resolve(capabilities, sandbox.host())?;
    let backend = selection.backend.backend_type();
    let asked = |other: &agentkernel_core::BackendType| {
        selection.considered.iter().any(|considered| considered.backend == *other)
    };
    let not_asked = context.registry.backend_types().filter(|other| !asked(other)).collect();
    Ok(Outcome::Show(
        View::Plan(Box::new(Plan {
            name: name.clone(),
            backend,
            version: health.version,
            capabilities,
            considered: selection.considered,
            not_asked,
            is_chosen_by_caller: context.choice.is_some(),
            spec,
        })),
        false,
    ))
}
