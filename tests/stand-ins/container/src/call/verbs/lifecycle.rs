//! `start`, `stop`, `kill`, `delete` (reference 1.3).
#![expect(clippy::print_stdout, reason = "a command prints")]

use std::{thread, time::Duration};

use crate::call::{
    Host,
    control::{Version, Wedge},
    failure::{Outcome, failed},
    grammar::Call,
    runtime::{self, Attach},
    state::lock,
    values,
};

/// `validate()` of `stop`, `kill` and `delete`.
pub(crate) fn check_ids(_: &Host, call: &Call) -> Outcome<()> {
    match (call.has("--all"), call.positionals.is_empty()) {
        (false, true) => failed("no containers specified and --all not supplied"),
        (true, false) => failed("explicitly supplied container IDs conflict with the --all flag"),
        _ => Ok(()),
    }
}

pub(crate) fn start(host: &Host, call: &Call) -> Outcome {
    let id = call.first();
    let Some(record) = host.record(id)? else {
        return failed(format!("get failed: container {id} not found"));
    };
    let attach = call.has("--attach") || call.has("--interactive");
    let own = lock(&host.directory(id).join("lock"))?;
    if host.running(id)?.is_some() {
        if attach {
            return failed("attach is currently unsupported on already running containers");
        }
        println!("{id}");
        return Ok(0);
    }
    if let Some(gone) = record.mounts.iter().find(|mount| !mount.is_there()) {
        return failed(format!("mount source path '{}' does not exist", gone.source));
    }
    let attach =
        attach.then(|| Attach::new(host, call.has("--interactive"), record.process.terminal)).transpose()?;
    let is_attached = attach.is_some();
    let session = runtime::start(host, &record, attach)?;
    drop(own);
    if !is_attached {
        println!("{id}");
        return Ok(0);
    }
    let ended = session.follow();
    if ended.is_late {
        runtime::kill(host, id)?;
        return failed("failed to start container: CancellationError()");
    }
    Ok(ended.code)
}

/// Does it to every id; what failed is one error per line, in the code form.
fn each(host: &Host, call: &Call, one: impl Fn(&str) -> Outcome<()>) -> Outcome {
    let mut ids = if call.has("--all") {
        let mut ids = Vec::new();
        for record in host.records()? {
            if host.running(&record.id)?.is_some() || call.has("--force") {
                ids.push(record.id);
            }
        }
        ids
    } else {
        call.positionals.clone()
    };
    ids.sort();
    ids.dedup();
    let mut errors = Vec::new();
    for id in ids {
        match one(&id) {
            Ok(()) => println!("{id}"),
            Err(crate::call::failure::Failure::Failed(error)) => errors.push(error),
            Err(other) => return Err(other),
        }
    }
    if errors.is_empty() { Ok(0) } else { failed(errors.join("\n")) }
}

fn unknown<T>(verb: &str, id: &str) -> Outcome<T> {
    failed(format!(
        "internalError: \"failed to {verb} container\" (cause: \"notFound: \"container with ID {id} not found\"\")"
    ))
}

pub(crate) fn stop(host: &Host, call: &Call) -> Outcome {
    let limit =
        Duration::from_secs(call.integer("--time").and_then(|time| u64::try_from(time).ok()).unwrap_or(5));
    let asked = call.get("--signal").map(values::signal).transpose()?;
    each(host, call, |id| {
        let Some(record) = host.record(id)? else { return unknown("stop", id) };
        let _own = lock(&host.directory(id).join("lock"))?;
        if host.running(id)?.is_none() {
            return Ok(());
        }
        // Before 1.0 the image's own signal was not looked at.
        let of_image = record.stop_signal.as_deref().filter(|_| host.version() >= Version::V1_0);
        let of_image = of_image.and_then(|signal| values::signal(signal).ok());
        runtime::signal(host, id, asked.or(of_image).unwrap_or(15))?;
        if host.wait_stopped(id, limit)? { Ok(()) } else { runtime::kill(host, id) }
    })
}

pub(crate) fn kill(host: &Host, call: &Call) -> Outcome {
    let signal = values::signal(call.get("--signal").unwrap_or("KILL"))?;
    each(host, call, |id| {
        if host.record(id)?.is_none() {
            return unknown("kill", id);
        }
        if host.running(id)?.is_none() {
            return failed(
                "internalError: \"failed to kill container\" (cause: \"invalidState: \"no runtime client exists: container is stopped\"\")",
            );
        }
        // KILL waits for the end since 1.0.
        if signal == 9 && host.version() >= Version::V1_0 {
            runtime::kill(host, id)
        } else {
            runtime::signal(host, id, signal)
        }
    })
}

pub(crate) fn delete(host: &Host, call: &Call) -> Outcome {
    match host.control.wedged_delete {
        Some(Wedge::Hang) => loop {
            thread::sleep(Duration::from_secs(3600));
        },
        Some(Wedge::Fail) => {
            return failed(
                "internalError: \"failed to delete container\" (cause: \"internalError: \"deleteProcess: exec does not exist\"\")",
            );
        }
        None => {}
    }
    if call.has("--all") && !call.has("--force") {
        // Skips running ones silently.
        for record in host.records()? {
            if host.running(&record.id)?.is_none() {
                host.erase(&record.id)?;
                println!("{}", record.id);
            }
        }
        return Ok(0);
    }
    each(host, call, |id| {
        if host.record(id)?.is_none() {
            return unknown("delete", id);
        }
        let _own = lock(&host.directory(id).join("lock"))?;
        if host.running(id)?.is_some() {
            if !call.has("--force") {
                return failed(format!(
                    "internalError: \"failed to delete container\" (cause: \"invalidState: \"container {id} is running and can not be deleted\"\")"
                ));
            }
            runtime::kill(host, id)?;
        }
        host.erase(id)
    })
}
