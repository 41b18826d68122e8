//! The contract from outside: object safety, `Send`, and selection with reasons.
use std::{pin::Pin, sync::Arc};

use agentkernel_core::{
    Backend, BackendType, Capabilities, Capability, Error, ErrorKind, ExecControl, ExecSession, Filter,
    Health, ImageStore, Isolation, Reap, Reaped, Registry, Result, Sandbox, SandboxConfig, SandboxExt,
    SandboxInfo, SandboxName, VolumeStore, async_trait,
};

/// Every trait of the contract can be used through `dyn`.
fn _object_safe(
    _: &dyn Backend,
    _: &dyn Sandbox,
    _: &dyn ImageStore,
    _: &dyn VolumeStore,
    _: &dyn ExecControl,
) {
}

const fn send_and_sync<T: Send + Sync>() {}
const fn send<T: Send>() {}
const _: () = {
    send_and_sync::<Arc<dyn Sandbox>>();
    send_and_sync::<Arc<dyn Backend>>();
    send_and_sync::<Error>();
    send_and_sync::<Registry>();
    send::<ExecSession>();
};

/// Futures of the contract can be spawned.
fn _futures_are_send(sandbox: Arc<dyn Sandbox>) -> Pin<Box<dyn Future<Output = Result<()>> + Send>> {
    Box::pin(async move {
        sandbox.exec(&["true"]).await?;
        sandbox.stop().await
    })
}

#[derive(Debug)]
struct Stub(BackendType, Capabilities);

#[async_trait]
impl Backend for Stub {
    fn backend_type(&self) -> BackendType {
        self.0
    }
    async fn health(&self) -> Result<Health> {
        Ok(Health { version: "1".into(), capabilities: self.1, warnings: vec![] })
    }
    async fn probe(&self) -> Result<()> {
        unreachable!("selection starts nothing")
    }
    fn sandbox(&self, _: SandboxName) -> Arc<dyn Sandbox> {
        unreachable!("selection makes no sandbox")
    }
    async fn list(&self, _: &Filter) -> Result<Vec<SandboxInfo>> {
        Ok(vec![])
    }
    async fn reap(&self, _: Reap) -> Result<Vec<Reaped>> {
        Ok(vec![])
    }
    fn images(&self) -> Option<&dyn ImageStore> {
        None
    }
    fn volumes(&self) -> Option<&dyn VolumeStore> {
        None
    }
}

fn with(registry: Registry, backend: BackendType, has: Option<Capabilities>) -> Registry {
    let everything = Capabilities::new(Isolation::RootContainer).with_all(Capability::ALL);
    registry.with(
        backend,
        everything,
        Box::new(move || {
            Box::pin(async move {
                let has =
                    has.ok_or_else(|| Error::new(ErrorKind::Unavailable, "connect", "nothing listens"))?;
                Ok(Arc::new(Stub(backend, has)) as Arc<dyn Backend>)
            })
        }),
    )
}

fn everything() -> Capabilities {
    Capabilities::new(Isolation::RootContainer).with_all(Capability::ALL)
}

#[tokio::test]
async fn the_first_available_backend_is_chosen_and_the_reasons_told() {
    let registry =
        with(with(Registry::new(), BackendType::Linux, None), BackendType::Docker, Some(everything()));
    let selection = registry.select(None, &SandboxConfig::default()).await.unwrap();
    assert_eq!(selection.backend.backend_type(), BackendType::Docker);
    assert_eq!(selection.considered[0].reason, "failed to connect: nothing listens");
}

#[tokio::test]
async fn a_backend_that_cannot_enforce_the_config_is_passed_over() {
    let weak = everything().without(Capability::PidsLimit);
    let registry =
        with(with(Registry::new(), BackendType::Linux, Some(weak)), BackendType::Docker, Some(everything()));
    let mut config = SandboxConfig::default();
    config.pids = Some(5);
    let selection = registry.select(None, &config).await.unwrap();
    assert_eq!(selection.backend.backend_type(), BackendType::Docker);
}

#[tokio::test]
async fn a_choice_is_never_replaced_and_the_refusal_names_who_could() {
    let weak = everything().without(Capability::PidsLimit);
    let registry =
        with(with(Registry::new(), BackendType::Linux, Some(weak)), BackendType::Docker, Some(everything()));
    let mut config = SandboxConfig::default();
    config.pids = Some(5);
    let error = registry.select(Some(BackendType::Linux), &config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(error.hint(), Some("a backend that could: `--backend docker`"));
}

#[tokio::test]
async fn with_no_backend_at_all_every_reason_is_told() {
    let registry = with(with(Registry::new(), BackendType::Docker, None), BackendType::Podman, None);
    let error = registry.select(None, &SandboxConfig::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("docker: ") && error.to_string().contains("podman: "));
}

#[tokio::test]
async fn a_config_that_is_wrong_everywhere_is_refused_as_such() {
    let registry = with(Registry::new(), BackendType::Docker, Some(everything()));
    let mut config = SandboxConfig::default();
    config.cwd = Some("relative".into());
    let error = registry.select(None, &config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
}
