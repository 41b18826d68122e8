//! Meeting the guest of an engine elsewhere. Its first process gets a key on stdin, which is then nothing but the lease;
//! each client has the engine start a relay, and proves through it that it knows the key.
use std::time::Duration;

use agentkernel_core::{Error, ErrorKind, Result, SandboxName};
use agentkernel_host::{Configure, GuestClient, GuestKey, INIT_UID, Report, RunDir};
use tokio::{
    io::{AsyncWriteExt, ReadHalf, WriteHalf},
    time::timeout,
};

use crate::{
    accounts,
    backend::Shared,
    boot::ended,
    hijack::{Hijacked, Outputs, Words, with_words},
    id::ContainerId,
};

/// How long the engine may take to take over the key.
const KEY_DEADLINE: Duration = Duration::from_secs(5);

/// The stdin of a sandbox's first process. An owned sandbox ends when this is dropped, or this process dies.
pub(crate) struct Lease(#[expect(dead_code, reason = "it is held, and dropped")] Hijacked);

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lease")
    }
}

/// Starts a container and meets its guest.
pub(crate) async fn meet(
    shared: &Shared,
    id: &ContainerId,
    run_dir: &RunDir,
    configure: Configure,
) -> Result<(GuestClient, Report, Lease)> {
    let key = GuestKey::new()?;
    // Before the start, so that no lease is ever late.
    let mut stdin = shared.engine.attach_stdin(id).await?;
    shared.engine.start(id).await?;
    let told = timeout(KEY_DEADLINE, async {
        stdin.write_all(key.as_bytes()).await?;
        stdin.flush().await
    });
    told.await
        .map_err(|_| Error::new(ErrorKind::Timeout, "boot sandbox", "the engine does not take its key"))?
        .map_err(|source| {
            Error::new(ErrorKind::Disconnected, "boot sandbox", "the engine closed the sandbox's stdin")
                .with_source(source)
        })?;
    let met = async {
        let (reader, writer, words) = relay(shared, id).await?;
        let patience = shared.engine.config().boot_timeout;
        GuestClient::prove_and_configure(reader, writer, &key, configure, patience)
            .await
            .map_err(|error| with_words(error, &words))
    };
    match met.await {
        Ok((client, report)) => {
            run_dir.write_key(&key)?;
            Ok((client, report, Lease(stdin)))
        }
        Err(error) => Err(ended(shared, id).await?.unwrap_or(error)),
    }
}

/// Connects to a guest that was met before, by this process or another.
pub(crate) async fn reach(
    shared: &Shared,
    id: &ContainerId,
    run_dir: &RunDir,
    targets: &[String],
    name: &SandboxName,
) -> Result<GuestClient> {
    let key = run_dir.read_key()?;
    // To start a relay the engine looks up its user inside, as at a start.
    accounts::check(&shared.engine, id, name, targets, false).await?;
    let (reader, writer, words) = relay(shared, id).await?;
    GuestClient::prove(reader, writer, &key).await.map_err(|error| with_words(error, &words))
}

type Relay = (Outputs<ReadHalf<Hijacked>>, WriteHalf<Hijacked>, Words);

/// Has the engine start a relay. It has the guest's own uid, which no command has, and no capability.
async fn relay(shared: &Shared, id: &ContainerId) -> Result<Relay> {
    let argv = shared.guest().await?.with_verb("relay");
    let stream = shared.engine.exec(id, &argv, &format!("{INIT_UID}:{INIT_UID}")).await?;
    let (reader, writer) = tokio::io::split(stream);
    let (outputs, words) = Outputs::new(reader);
    Ok((outputs, writer, words))
}
