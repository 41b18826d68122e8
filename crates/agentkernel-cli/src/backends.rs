//! The backends that this program is built with. The only file that names them.
use agentkernel_core::Registry;

/// Makes the registry, in the order of preference.
pub(crate) fn registry() -> Registry {
    let registry = Registry::new();
    #[cfg(feature = "docker")]
    let registry = registry.with(
        agentkernel_core::BackendType::Docker,
        agentkernel_docker::DockerBackend::UPPER_BOUND,
        Box::new(|| {
            Box::pin(async {
                let backend =
                    agentkernel_docker::DockerBackend::connect(agentkernel_docker::DockerConfig::default())
                        .await?;
                Ok(backend as std::sync::Arc<dyn agentkernel_core::Backend>)
            })
        }),
    );
    registry
}
