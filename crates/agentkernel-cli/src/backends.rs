//! The backends that this program is built with. The only file that names them.
use agentkernel_core::Registry;

/// Makes the registry, in the order of preference.
pub(crate) fn registry() -> Registry {
    let registry = Registry::new();
    #[cfg(feature = "docker")]
    let registry = [agentkernel_docker::EngineKind::Docker, agentkernel_docker::EngineKind::Podman]
        .into_iter()
        .fold(registry, engine);
    registry
}

#[cfg(feature = "docker")]
fn engine(registry: Registry, kind: agentkernel_docker::EngineKind) -> Registry {
    use agentkernel_docker::{DockerBackend, DockerConfig};
    registry.with(
        kind.backend_type(),
        kind.upper_bound(),
        Box::new(move || {
            Box::pin(async move {
                let backend = DockerBackend::connect(DockerConfig::default().with_kind(kind)).await?;
                Ok(backend as std::sync::Arc<dyn agentkernel_core::Backend>)
            })
        }),
    )
}
