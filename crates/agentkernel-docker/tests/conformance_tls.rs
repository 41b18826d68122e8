//! The suite that every backend passes, on this machine's Docker as if it were elsewhere: behind tcp and TLS.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test says so by failing")]
#[path = "support/authority.rs"]
mod authority;
#[path = "support/guest.rs"]
mod guest;
#[path = "support/tls_front.rs"]
mod tls_front;

use std::{
    process::ExitCode,
    sync::{Arc, LazyLock},
};

use agentkernel_conformance::Kit;
use agentkernel_core::Backend;
use agentkernel_docker::{DockerBackend, EngineKind, TlsFiles};
use authority::{Authority, put};
use tls_front::Front;
use tokio_rustls::rustls::version::{TLS12, TLS13};

struct Engine {
    address: String,
    files: tempfile::TempDir,
}

static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let authority = Authority::new("ours");
    let files = tempfile::tempdir().unwrap();
    put(files.path(), &authority, &authority.issue("client", 4000));
    let front = Front::start(&authority.issue("127.0.0.1", 4000), &authority, &[&TLS13, &TLS12]);
    Engine { address: format!("https://{}", front.address), files }
});

fn main() -> ExitCode {
    let kit = Kit::new("docker", || async {
        guest::built();
        let config = guest::config().with_kind(EngineKind::Docker).with_endpoint(&ENGINE.address);
        let config = config.with_tls(TlsFiles::in_dir(ENGINE.files.path()));
        let backend: Arc<dyn Backend> = DockerBackend::connect(config).await?;
        Ok(backend)
    });
    let test = std::env::current_exe().unwrap();
    let programs = test.ancestors().nth(2).unwrap();
    kit.with_intruder(programs.join("agentkernel-intruder")).main()
}
