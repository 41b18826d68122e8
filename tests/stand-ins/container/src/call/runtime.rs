//! How commands really run: a supervisor per process, namespaces per container, and sessions over pipes.
//!
//! A call starts a supervisor (the same executable in another role) that outlives it. The supervisor starts the
//! process, carries its output, and says how it ended. That of a container's first process is the container: it
//! holds the lock that says "running".
mod limits;
mod ports;
mod process;
mod session;
mod signals;
mod supervisor;
mod tree;

use std::{
    env, fs,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::call::{
    Host,
    failure::{Outcome, failed, gap},
    state::{Process, Record, Status, read, uuid, write},
};

pub(crate) use session::{Attach, Session};

const SUPERVISOR: &str = "__stand-in-supervisor";

/// Plays the role that this word names; the exit code, unless it is no such word.
pub(crate) fn role(word: &str) -> Option<u8> {
    match word {
        SUPERVISOR => Some(supervisor::main()),
        process::FIRST => Some(process::first()),
        process::SECOND => Some(process::second()),
        _ => None,
    }
}

/// What a supervisor is told.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Launch {
    /// The directory of the container.
    directory: std::path::PathBuf,
    record: Record,
    process: Process,
    /// The name of the process in errors.
    name: String,
    /// PID 1 of the container that runs already; none if this is to be it.
    inside: Option<i32>,
    /// One address per attachment, with its prefix.
    addresses: Vec<[u8; 4]>,
    /// Where the process' stdin can be opened.
    stdin: Option<String>,
    is_attached: bool,
    window: Option<(u16, u16)>,
    delay_ms: u64,
}

/// What a supervisor says, one line each.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum Report {
    Started,
    Failed(String),
    Exited(i32),
}

/// What a supervisor is told later.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum Order {
    Window(u16, u16),
    Signal(i32),
}

fn wrapped(name: &str, id: &str, cause: &str) -> String {
    format!(
        "failed to start process {name} in container {id} (cause: \"internalError: \"failed to start process (cause: \"internalError: \"startProcess: failed to start process: internalError: \"vmexec error: internalError: \"{cause}\"\"\"\")\"\")"
    )
}

/// The next address of each attachment; 1 is the gateway.
fn addresses(host: &Host, record: &Record) -> Outcome<Vec<[u8; 4]>> {
    let _lock = host.lock()?;
    let file = host.root.join("next-address.json");
    let mut all = Vec::new();
    for one in &record.networks {
        let last = read::<u8>(&file)?.unwrap_or(2);
        write(&file, &if last >= 254 { 2 } else { last + 1 })?;
        let subnet =
            crate::call::verbs::network::find(host, &one.network)?.map_or(64, |network| network.subnet);
        all.push([192, 168, subnet, last]);
    }
    Ok(all)
}

/// Starts a container that does not run; the caller holds its lock.
pub(crate) fn start(host: &Host, record: &Record, attach: Option<Attach>) -> Outcome<Session> {
    for other in host.records()? {
        let volume = |one: &Record| {
            one.mounts
                .iter()
                .filter(|mount| matches!(mount.kind, crate::call::state::MountKind::Volume(_)))
                .map(|mount| mount.source.clone())
                .collect::<Vec<_>>()
        };
        let shared = volume(&other).into_iter().any(|source| volume(record).contains(&source));
        if shared && other.id != record.id && host.running(&other.id)?.is_some() {
            // A block image can be attached once.
            return failed(
                "failed to bootstrap container (cause: \"unknown: \"The storage device attachment is invalid.\"\")",
            );
        }
    }
    let launch = Launch {
        directory: host.directory(&record.id),
        record: record.clone(),
        process: record.process.clone(),
        name: record.id.clone(),
        inside: None,
        addresses: addresses(host, record)?,
        stdin: None,
        is_attached: attach.is_some(),
        window: None,
        delay_ms: host.control.start_delay_ms,
    };
    session::launch(launch, attach)
}

/// Starts one more process in a container that runs.
pub(crate) fn exec(
    host: &Host,
    record: &Record,
    process: Process,
    status: &Status,
    attach: Option<Attach>,
) -> Outcome<Session> {
    let launch = Launch {
        directory: host.directory(&record.id),
        record: record.clone(),
        process,
        name: uuid().to_ascii_uppercase(),
        inside: Some(status.pid),
        addresses: Vec::new(),
        stdin: None,
        is_attached: attach.is_some(),
        window: None,
        delay_ms: 0,
    };
    session::launch(launch, attach)
}

fn send(pid: i32, signal: i32) -> Outcome<()> {
    let (Some(pid), Some(signal)) =
        (rustix::process::Pid::from_raw(pid), rustix::process::Signal::from_named_raw(signal))
    else {
        return gap(format!("signal {signal}"));
    };
    match rustix::process::kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A signal to PID 1, and to nothing else.
pub(crate) fn signal(host: &Host, id: &str, signal: i32) -> Outcome<()> {
    match host.running(id)? {
        Some(status) => send(status.pid, signal),
        None => Ok(()),
    }
}

/// Kills PID 1, and with it the whole container, and waits until it is gone.
pub(crate) fn kill(host: &Host, id: &str) -> Outcome<()> {
    signal(host, id, 9)?;
    if host.wait_stopped(id, Duration::from_secs(10))? { Ok(()) } else { gap(format!("{id} did not die")) }
}

/// The processes of the container of this PID 1, as this machine counts them.
fn processes(init: i32) -> Vec<String> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let wanted = namespace(&init.to_string());
    let names = fs::read_dir("/proc").into_iter().flatten().flatten();
    names
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .filter(|name| wanted.is_some() && namespace(name) == wanted)
        .collect()
}

/// One element of `stats`, measured.
pub(crate) fn statistics(record: &Record, status: &Status) -> Value {
    let pids = processes(status.pid);
    let (mut ticks, mut pages) = (0, 0);
    for pid in &pids {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect::<Vec<_>>();
        let number =
            |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        ticks += number(11) + number(12);
        pages += number(21);
    }
    let (mut received, mut sent) = (0_u64, 0_u64);
    let network = fs::read_to_string(format!("/proc/{}/net/dev", status.pid)).unwrap_or_default();
    for line in
        network.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| name.trim() != "lo")
    {
        let numbers =
            line.1.split_whitespace().map(|number| number.parse::<u64>().unwrap_or(0)).collect::<Vec<_>>();
        received += numbers.first().copied().unwrap_or(0);
        sent += numbers.get(8).copied().unwrap_or(0);
    }
    json!({
        "blockReadBytes": 0, "blockWriteBytes": 0, "cpuUsageUsec": ticks * 10_000, "id": record.id,
        "memoryLimitBytes": record.memory, "memoryUsageBytes": pages * 4096, "networkRxBytes": received,
        "networkTxBytes": sent, "numProcesses": pids.len(),
    })
}

/// Does the work of this very call in another process, and gives its answer to nobody.
pub(crate) fn lose_answer() -> Outcome<()> {
    let mut switches = env::var("AGENTKERNEL_STANDIN_CONTROL")
        .ok()
        .and_then(|text| serde_json::from_str::<Value>(&text).ok())
        .unwrap_or_else(|| json!({}));
    switches["crash"] = json!([]);
    let mut child = Command::new(env::current_exe()?)
        .args(env::args_os().skip(1))
        .env("AGENTKERNEL_STANDIN_CONTROL", switches.to_string())
        .env("AGENTKERNEL_STANDIN_UNRECORDED", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let end = Instant::now() + Duration::from_secs(2);
    while child.try_wait()?.is_none() && Instant::now() < end {
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
