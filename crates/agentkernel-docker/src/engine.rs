//! The engine's calls that this backend makes, each with a deadline and an error of ours. Only validated names and ids
//! get here: the client splices them into addresses as they are.
use std::{collections::HashMap, fmt, future::Future, time::Duration};

use agentkernel_core::{Result, SandboxName};
use bollard::{
    API_DEFAULT_VERSION, BollardRequest, Docker,
    container::PathStatResponse,
    errors::Error as EngineError,
    models::{
        ContainerCreateBody, ContainerCreateResponse, ContainerInspectResponse, ContainerSummary, SystemInfo,
    },
    query_parameters::{
        ContainerArchiveInfoOptions, CreateContainerOptions, DownloadFromContainerOptions,
        InspectContainerOptions, KillContainerOptions, ListContainersOptions, RemoveContainerOptions,
        StartContainerOptions,
    },
};
use futures_util::StreamExt;
use tokio::{sync::oneshot, time::timeout};

use crate::{DockerConfig, endpoint::Endpoint, error, id::ContainerId, transport};

/// What every container's name begins with.
pub(crate) const PREFIX: &str = "agentkernel-";

/// How long the answer to a create is waited for by nobody but who removes what was made.
const LATEST: Duration = Duration::from_secs(600);

/// An engine.
#[derive(Clone)]
pub(crate) struct Engine {
    docker: Docker,
    endpoint: Endpoint,
    config: DockerConfig,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("socket", &self.endpoint.path).finish_non_exhaustive()
    }
}

impl Engine {
    /// Prepares the client: no I/O.
    pub(crate) fn new(endpoint: Endpoint, config: DockerConfig) -> Result<Self> {
        let socket = endpoint.path.clone();
        let send = move |request: BollardRequest| transport::send(socket.clone(), request);
        // The client's own timeout ends with the headers of an answer: ours are the ones that count.
        let docker = Docker::connect_with_custom_transport(
            send,
            Some("http://docker"),
            24 * 3600,
            API_DEFAULT_VERSION,
        )
        .map_err(|source| error::map("reach the Docker engine", source, &endpoint))?;
        Ok(Self { docker, endpoint, config })
    }

    pub(crate) fn docker(&self) -> &Docker {
        &self.docker
    }

    pub(crate) fn config(&self) -> &DockerConfig {
        &self.config
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Maps an error of a stream of the client's.
    pub(crate) fn error(&self, operation: &'static str, source: EngineError) -> agentkernel_core::Error {
        error::map(operation, source, &self.endpoint)
    }

    /// Asks a question: the answer comes within the request timeout.
    pub(crate) async fn ask<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T> {
        self.within(self.config.request_timeout, operation, call).await
    }

    /// Gives an order: making, starting and removing take longer than answering.
    pub(crate) async fn order<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T> {
        self.within(self.config.boot_timeout, operation, call).await
    }

    pub(crate) async fn within<T>(
        &self,
        deadline: Duration,
        operation: &'static str,
        call: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T> {
        match timeout(deadline, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(source)) => Err(error::map(operation, source, &self.endpoint)),
            Err(_) => Err(error::timed_out(operation)
                .with_context("seconds", format_args!("{:.1}", deadline.as_secs_f32()))),
        }
    }

    pub(crate) async fn info(&self) -> Result<SystemInfo> {
        self.ask("ask the Docker engine what it can do", self.docker.info()).await
    }

    pub(crate) async fn create(
        &self,
        name: &SandboxName,
        body: ContainerCreateBody,
    ) -> Result<ContainerCreateResponse> {
        let options = CreateContainerOptions { name: Some(container_name(name)), ..Default::default() };
        let (sender, receiver) = oneshot::channel();
        let engine = self.clone();
        // A task of its own: an engine that answers after the deadline has made what nobody knows of.
        tokio::spawn(async move {
            let made = timeout(LATEST, engine.docker.create_container(Some(options), body)).await;
            let Ok(made) = made else { return };
            let Err(Ok(late)) = sender.send(made) else { return };
            let Ok(id) = ContainerId::read(&late.id) else { return };
            if let Err(error) = engine.remove(&id).await {
                tracing::debug!(%error, "a container that came too late stays until it is reaped");
            }
        });
        let gone = |_| EngineError::RequestTimeoutError;
        self.order("create sandbox", async { receiver.await.map_err(gone)? }).await
    }

    pub(crate) async fn start(&self, id: &ContainerId) -> Result<()> {
        self.order("boot sandbox", self.docker.start_container(id.as_str(), None::<StartContainerOptions>))
            .await
    }

    /// Looks at what there is at a path of a container, with its mounts in place; opens nothing there.
    pub(crate) async fn stat_path(&self, id: &ContainerId, path: &str) -> Result<PathStatResponse> {
        let options = ContainerArchiveInfoOptions { path: path.to_owned() };
        self.ask("boot sandbox", self.docker.get_container_archive_info(id.as_str(), Some(options))).await
    }

    /// Returns the beginning of the archive of a path, at least 512 bytes unless it is shorter.
    pub(crate) async fn archive_head(&self, id: &ContainerId, path: &str) -> Result<Vec<u8>> {
        let options = DownloadFromContainerOptions { path: path.to_owned() };
        let mut archive = self.docker.download_from_container(id.as_str(), Some(options));
        let read = async {
            let mut head = Vec::new();
            while head.len() < 512 {
                let Some(part) = archive.next().await else { break };
                head.extend_from_slice(&part?);
            }
            Ok(head)
        };
        self.ask("boot sandbox", read).await
    }

    pub(crate) async fn inspect(&self, id: &ContainerId) -> Result<ContainerInspectResponse> {
        let none = None::<InspectContainerOptions>;
        self.ask("inspect sandbox", self.docker.inspect_container(id.as_str(), none)).await
    }

    /// Inspects whatever has a sandbox's name, ours or not. No id begins with the prefix: it has letters that no id has.
    pub(crate) async fn inspect_name(&self, name: &SandboxName) -> Result<Option<ContainerInspectResponse>> {
        let none = None::<InspectContainerOptions>;
        let name = container_name(name);
        absent_is_none(self.ask("inspect sandbox", self.docker.inspect_container(&name, none)).await)
    }

    pub(crate) async fn list(&self, labels: Vec<String>, running: bool) -> Result<Vec<ContainerSummary>> {
        let mut filters = HashMap::from([("label".to_owned(), labels)]);
        if running {
            filters.insert("status".to_owned(), vec!["running".to_owned()]);
        }
        let options = ListContainersOptions { all: true, filters: Some(filters), ..Default::default() };
        self.ask("list sandboxes", self.docker.list_containers(Some(options))).await
    }

    pub(crate) async fn kill(&self, id: &ContainerId) -> Result<()> {
        let options = KillContainerOptions { signal: "SIGKILL".to_owned() };
        self.order("stop sandbox", self.docker.kill_container(id.as_str(), Some(options))).await
    }

    /// Removes a container, running or not, with its anonymous volumes, and waits until it is gone.
    pub(crate) async fn remove(&self, id: &ContainerId) -> Result<()> {
        let options = RemoveContainerOptions { force: true, v: true, link: false };
        let removal = async {
            loop {
                let removed = self.docker.remove_container(id.as_str(), Some(options.clone())).await;
                let tell = |source| Some(error::map("remove sandbox", source, &self.endpoint));
                let failure = match removed {
                    Ok(()) => None,
                    Err(source) => tell(source),
                };
                match failure.as_ref().map(|failure| (error::status(failure), failure)) {
                    None | Some((Some(404), _)) => return Ok(()),
                    // Somebody else's removal is under way, or the container ended between two steps of ours.
                    Some((Some(409), _)) => tokio::time::sleep(Duration::from_millis(10)).await,
                    Some((Some(500), why)) if error::says(why, "is not running") => {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    Some(_) => return failure.map_or(Ok(()), Err),
                }
            }
        };
        match timeout(self.config.boot_timeout, removal).await {
            Ok(result) => result,
            Err(_) => Err(error::timed_out("remove sandbox")
                .with_hint(format!("remove it by hand: docker rm -f {}", &id.as_str()[..12]))),
        }
    }
}

/// Makes "there is no such object" an answer.
pub(crate) fn absent_is_none<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(failure) if error::status(&failure) == Some(404) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Returns the engine's name of a sandbox.
pub(crate) fn container_name(name: &SandboxName) -> String {
    format!("{PREFIX}{name}")
}
