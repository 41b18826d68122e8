//! Measures, in one run: where the time of a start goes, and a command through the library against one through the
//! Engine API. Prints medians and ratios.
//!
//! Usage: `bench_exec [COMMANDS [STARTS]]`; `AGENTKERNEL_GUEST` names the guest, `DOCKER_HOST` the engine's socket; the
//! image is `agentkernel-test`.
#![expect(clippy::print_stdout, reason = "it prints what it measured")]
use std::{
    error::Error,
    time::{Duration, Instant},
};

use agentkernel_core::{Backend, ExecOptions, ExecSpec, SandboxConfig, SandboxExt};
use agentkernel_docker::{DockerBackend, DockerConfig};
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker, models::ExecConfig};
use futures_util::StreamExt;
use hyper::{Uri, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

const IMAGE: &str = "agentkernel-test";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut numbers = std::env::args().skip(1).map(|number| number.parse::<usize>());
    let commands = numbers.next().transpose()?.unwrap_or(200);
    let starts = numbers.next().transpose()?.unwrap_or(20);
    let (mut health, mut create, mut boot, mut first, mut end) =
        (Series::default(), Series::default(), Series::default(), Series::default(), Series::default());
    for index in 0..starts {
        let backend = DockerBackend::connect(DockerConfig::default()).await?;
        let sandbox = backend.sandbox(format!("bench-{}-{index}", std::process::id()).parse()?);
        let capabilities = health.time(backend.health()).await?.capabilities;
        let spec = SandboxConfig::new(IMAGE).resolve(capabilities, sandbox.host())?;
        create.time(sandbox.create(&spec)).await?;
        boot.time(sandbox.boot()).await?;
        let main = ExecSpec::new(["true"], ExecOptions::default())?.main();
        first.time(async { sandbox.spawn(&main).await?.collect().await }).await?;
        end.time(sandbox.remove()).await?;
    }
    for (what, series) in
        [("health", &health), ("create", &create), ("boot", &boot), ("command", &first), ("remove", &end)]
    {
        println!("{what:8} {:9.3} ms", series.median());
    }
    let run = [&health, &create, &boot, &first].map(Series::median).iter().sum::<f64>();
    println!("run      {run:9.3} ms without the removal");
    let backend = DockerBackend::connect(DockerConfig::default()).await?;
    let sandbox = backend.sandbox(format!("bench-{}", std::process::id()).parse()?);
    sandbox.start(&SandboxConfig::new(IMAGE)).await?;
    let id = sandbox.inspect().await?.id;
    let engine = Docker::connect_with_custom_transport(send, Some("http://docker"), 60, API_DEFAULT_VERSION)?;
    let (mut ours, mut theirs) = (Series::default(), Series::default());
    for _ in 0..commands {
        ours.time(async { sandbox.exec(&["true"]).await }).await?;
    }
    for _ in 0..commands.min(50) {
        theirs.time(engine_exec(&engine, &id)).await?;
    }
    let ratio = ours.median() / theirs.median();
    println!("library exec {:.3} ms, Engine API exec {:.3} ms: {ratio:.4}", ours.median(), theirs.median());
    sandbox.stop().await?;
    Ok(())
}

fn socket() -> String {
    let named = std::env::var("DOCKER_HOST").unwrap_or_default();
    named.strip_prefix("unix://").unwrap_or("/var/run/docker.sock").to_owned()
}

/// Creates, starts to the end of output, and inspects: what the Engine API needs for one command.
async fn engine_exec(engine: &Docker, id: &str) -> Result<(), bollard::errors::Error> {
    let config = ExecConfig {
        // The image's own path: the container's user is root and it has no capability.
        cmd: Some(vec!["true".to_owned()]),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..ExecConfig::default()
    };
    let exec = engine.create_exec(id, config).await?.id;
    if let bollard::exec::StartExecResults::Attached { mut output, .. } =
        engine.start_exec(&exec, None).await?
    {
        while let Some(part) = output.next().await {
            part?;
        }
    }
    engine.inspect_exec(&exec).await.map(drop)
}

async fn send(
    mut request: BollardRequest,
) -> Result<hyper::Response<hyper::body::Incoming>, bollard::errors::Error> {
    let stream = UnixStream::connect(socket()).await?;
    if let Some(path) = request.uri().path_and_query().cloned() {
        *request.uri_mut() = Uri::from(path);
    }
    request.headers_mut().insert("host", hyper::header::HeaderValue::from_static("docker"));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection.with_upgrades());
    Ok(sender.send_request(request).await?)
}

/// Times of one kind.
#[derive(Default)]
struct Series(Vec<Duration>);

impl Series {
    async fn time<T>(&mut self, work: impl Future<Output = T>) -> T {
        let begin = Instant::now();
        let result = work.await;
        self.0.push(begin.elapsed());
        result
    }

    /// Returns the median in milliseconds.
    fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort();
        sorted.get(sorted.len() / 2).map_or(0.0, Duration::as_secs_f64) * 1e3
    }
}
