//! The backends that this program is built with. The only file that names them.
use agentkernel_core::Registry;

/// Makes the registry, in the order of preference. A backend that is `chosen` may ask on a terminal for what it needs.
pub(crate) fn registry(chosen: Option<&str>) -> Registry {
    let registry = Registry::new();
    // Only Apple's asks.
    let _chosen = chosen;
    #[cfg(any(target_os = "macos", feature = "apple-any-host"))]
    let registry = {
        use agentkernel_apple::{AppleBackend, AppleConfig, apple_system_running, start_apple_system};

        /// Asks a person; nobody is asked without a terminal.
        async fn agrees(question: &'static str) -> bool {
            use std::io::{IsTerminal, stderr, stdin};
            if !stdin().is_terminal() || !stderr().is_terminal() || !crate::terminal::can_read_stdin() {
                return false;
            }
            crate::report::note(&format!("{question} [y/N]"));
            let asked = tokio::task::spawn_blocking(|| {
                let mut answer = String::new();
                stdin().read_line(&mut answer).is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
            });
            asked.await.unwrap_or(false)
        }

        let may_ask = chosen == Some("apple");
        let connect = move || async move {
            let backend = AppleBackend::connect(AppleConfig::default()).await?;
            let question =
                "Apple's containers do not run. Start them, and download a kernel if there is none?";
            if may_ask && !apple_system_running().await? && agrees(question).await {
                start_apple_system(&AppleConfig::default().with_kernel_download(true)).await?;
            }
            Ok(backend as std::sync::Arc<dyn agentkernel_core::Backend>)
        };
        let backend_type = agentkernel_core::BackendType::Apple;
        registry.with(backend_type, AppleBackend::UPPER_BOUND, Box::new(move || Box::pin(connect())))
    };
    #[cfg(all(feature = "linux", target_os = "linux"))]
    let registry = registry.with(
        agentkernel_core::BackendType::Linux,
        agentkernel_linux::UPPER_BOUND,
        Box::new(|| {
            Box::pin(async {
                let backend =
                    agentkernel_linux::LinuxBackend::connect(agentkernel_linux::LinuxConfig::default())
                        .await?;
                Ok(backend as std::sync::Arc<dyn agentkernel_core::Backend>)
            })
        }),
    );
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
