//! The engine's calls that this backend makes, each with a deadline and an error of ours. Only validated names and ids
//! get here: the client splices them into addresses as they are.
use std::{collections::HashMap, fmt, future::Future, time::Duration};

use agentkernel_core::{Error, Result, SandboxName};
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
        StartContainerOptions, UploadToContainerOptions,
    },
};
use bytes::Bytes;
use futures_util::StreamExt;
use hyper::{Method, Request};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{sync::oneshot, time::timeout};

use crate::{
    DockerConfig, EngineKind, accounts::mounted, endpoint::Endpoint, error, id::ContainerId, podman,
    transport,
};

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
        f.debug_struct("Engine").field("address", &self.endpoint.address).finish_non_exhaustive()
    }
}

impl Engine {
    /// Prepares the client: no I/O.
    pub(crate) fn new(endpoint: Endpoint, config: DockerConfig) -> Result<Self> {
        let address = endpoint.address.clone();
        let send = move |request: BollardRequest| transport::send(address.clone(), request);
        // The client's own timeout ends with the headers of an answer: ours are the ones that count.
        let docker = Docker::connect_with_custom_transport(
            send,
            Some("http://docker"),
            24 * 3600,
            API_DEFAULT_VERSION,
        )
        .map_err(|source| error::map("reach the engine", source, &endpoint))?;
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

    pub(crate) fn kind(&self) -> EngineKind {
        self.endpoint.kind
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
        // Podman answers about a container between two steps of its start or removal only.
        let deadline = match self.kind() {
            EngineKind::Docker => self.config.request_timeout,
            EngineKind::Podman => self.config.request_timeout.max(self.config.boot_timeout),
        };
        self.within(deadline, operation, call).await
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
            Err(_) => Err(error::timed_out(operation, self.kind())
                .with_context("seconds", format_args!("{:.1}", deadline.as_secs_f32()))),
        }
    }

    pub(crate) async fn info(&self) -> Result<SystemInfo> {
        self.ask("ask the engine what it can do", self.docker.info()).await
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

    /// Makes a container that is never started, to reach into what it mounts.
    pub(crate) async fn create_named(
        &self,
        name: &str,
        body: ContainerCreateBody,
    ) -> Result<ContainerCreateResponse> {
        let options = CreateContainerOptions { name: Some(name.to_owned()), ..Default::default() };
        self.order("put the guest there", self.docker.create_container(Some(options), body)).await
    }

    /// Unpacks an archive below a directory of a container.
    pub(crate) async fn upload(&self, id: &ContainerId, path: &str, archive: Bytes) -> Result<()> {
        let options = UploadToContainerOptions { path: path.to_owned(), ..Default::default() };
        let archive = bollard::body_full(archive);
        let call = self.docker.upload_to_container(id.as_str(), Some(options), archive);
        self.within(self.config.transfer_timeout, "put the guest there", call).await
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

    /// Mounts a container's root file system where Podman's service is, and returns where.
    pub(crate) async fn mount(&self, id: &ContainerId) -> Result<String> {
        let operation = "boot sandbox";
        let answer = self.order(operation, self.libpod(id, "mount")).await?;
        // A bare path in version 4, a JSON string in others.
        let bare = || String::from_utf8_lossy(&answer).trim().to_owned();
        Ok(serde_json::from_slice(&answer).unwrap_or_else(|_| bare()))
    }

    /// Takes back one [`mount`](Self::mount).
    pub(crate) async fn unmount(&self, id: &ContainerId) -> Result<()> {
        self.order("boot sandbox", self.libpod(id, "unmount")).await.map(drop)
    }

    async fn libpod(&self, id: &ContainerId, verb: &str) -> Result<Vec<u8>, EngineError> {
        let address = format!("/v4.0.0/libpod/containers/{}/{verb}", id.as_str());
        self.send(Method::POST, &address).await
    }

    /// Makes the root writable for its owner, as it is on Docker: on Podman it is only for who may pass over permissions.
    pub(crate) async fn open_root(&self, id: &ContainerId) -> Result<()> {
        if let Some(opened) = mounted::with_root(self, id, mounted::open_for_owner).await? {
            return opened.map_err(|source| {
                Error::unexpected("create sandbox", "its root cannot be made writable", source)
            });
        }
        let options = UploadToContainerOptions { path: "/".to_owned(), ..Default::default() };
        let archive = bollard::body_full(Bytes::from(podman::root_entry()?));
        self.order("create sandbox", self.docker.upload_to_container(id.as_str(), Some(options), archive))
            .await
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
        self.inspect_any(id.as_str()).await
    }

    /// Inspects whatever has a sandbox's name, ours or not. No id begins with the prefix: it has letters that no id has.
    pub(crate) async fn inspect_name(&self, name: &SandboxName) -> Result<Option<ContainerInspectResponse>> {
        absent_is_none(self.inspect_any(&container_name(name)).await)
    }

    async fn inspect_any(&self, name: &str) -> Result<ContainerInspectResponse> {
        let operation = "inspect sandbox";
        match self.kind() {
            EngineKind::Docker => {
                let none = None::<InspectContainerOptions>;
                self.ask(operation, self.docker.inspect_container(name, none)).await
            }
            EngineKind::Podman => {
                let address = format!("/containers/{name}/json");
                let mut answer = self.ask(operation, self.get(&address)).await?;
                podman::state(&mut answer["State"]["Status"]);
                self.read(operation, answer).map(podman::translate)
            }
        }
    }

    pub(crate) async fn list(&self, labels: Vec<String>, running: bool) -> Result<Vec<ContainerSummary>> {
        let operation = "list sandboxes";
        let mut filters = HashMap::from([("label".to_owned(), labels)]);
        if running {
            filters.insert("status".to_owned(), vec!["running".to_owned()]);
        }
        match self.kind() {
            EngineKind::Docker => {
                let options =
                    ListContainersOptions { all: true, filters: Some(filters), ..Default::default() };
                self.ask(operation, self.docker.list_containers(Some(options))).await
            }
            EngineKind::Podman => {
                let filters = serde_json::to_string(&filters).unwrap_or_default();
                let address = format!("/containers/json?all=true&filters={}", encode(&filters));
                let mut answer = self.ask(operation, self.get(&address)).await?;
                for container in answer.as_array_mut().into_iter().flatten() {
                    podman::state(&mut container["State"]);
                }
                self.read(operation, answer)
            }
        }
    }

    /// Asks without the client, which refuses whole answers for a word that it does not know.
    async fn get(&self, address: &str) -> Result<Value, EngineError> {
        Ok(serde_json::from_slice(&self.send(Method::GET, address).await?)?)
    }

    async fn send(&self, method: Method, address: &str) -> Result<Vec<u8>, EngineError> {
        let request = Request::builder().method(method).uri(format!("http://docker{address}"));
        let request = request.body(bollard::body_full(Bytes::new()));
        let response = transport::send(self.endpoint.address.clone(), request?).await?;
        let status_code = response.status().as_u16();
        let body = transport::collect(response.into_body()).await?;
        if status_code < 400 {
            return Ok(body);
        }
        let words = serde_json::from_slice::<Value>(&body).ok();
        let message = words.and_then(|words| words["message"].as_str().map(str::to_owned));
        Err(EngineError::DockerResponseServerError {
            status_code,
            message: message.unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned()),
        })
    }

    fn read<T: DeserializeOwned>(&self, operation: &'static str, answer: Value) -> Result<T> {
        serde_json::from_value(answer).map_err(|source| self.error(operation, source.into()))
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
            Err(_) => Err(error::timed_out("remove sandbox", self.kind()).with_hint(format!(
                "remove it by hand: {} rm -f {}",
                self.kind().command(),
                &id.as_str()[..12]
            ))),
        }
    }
}

/// Encodes a query's value.
fn encode(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
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
