//! `create` and `run` (reference 1.2).
#![expect(clippy::print_stdout, reason = "a command prints")]

use std::fs;

use crate::call::{
    Host,
    failure::{Outcome, failed},
    grammar::Call,
    runtime::{self, Attach},
    state::{Record, lock, uuid, write},
    verbs::{create as configuration, image, system},
};

/// The effects in the order of the real one, so that each failure leaves behind what it does there.
fn make(host: &Host, call: &Call, is_run: bool) -> Outcome<Record> {
    let id = configuration::id(host, call)?;
    if is_run && host.record(&id)?.is_some() {
        return failed(format!("container with id {id} already exists"));
    }
    let arch = image::arch(host, call)?;
    let progress = matches!(call.get("--progress"), Some("plain" | "ansi" | "color"));
    let found = match host.image(call.first())? {
        Some(found) => found,
        None => image::fetch(host, call.first(), progress)?,
    };
    let variant = host.variant_for(&found.1, &arch)?;
    system::check_kernel(host)?;
    let record = configuration::record(host, call, id, found, &variant)?;
    let directory = host.directory(&record.id);
    if host.record(&record.id)?.is_some() {
        return failed(format!("container already exists: {}", record.id));
    }
    let beside = host.root.join("containers").join(format!(".new-{}", uuid()));
    fs::create_dir_all(&beside)?;
    write(&beside.join("config.json"), &record)?;
    host.clone_tree(&variant, &beside.join("rootfs"))?;
    let _lock = host.lock()?;
    if fs::rename(&beside, &directory).is_err() {
        fs::remove_dir_all(&beside)?;
        return failed(format!("container already exists: {}", record.id));
    }
    Ok(record)
}

fn cidfile(call: &Call, record: &Record) -> Outcome<()> {
    match call.get("--cidfile") {
        Some(path) if fs::write(path, &record.id).is_err() => {
            failed(format!("failed to create cidfile at {path}"))
        }
        _ => Ok(()),
    }
}

pub(crate) fn create(host: &Host, call: &Call) -> Outcome {
    let record = make(host, call, false)?;
    cidfile(call, &record)?;
    println!("{}", record.id);
    Ok(0)
}

pub(crate) fn run(host: &Host, call: &Call) -> Outcome {
    let is_detached = call.has("--detach");
    let attach = (!is_detached)
        .then(|| Attach::new(host, call.has("--interactive"), call.has("--tty")))
        .transpose()?;
    let record = make(host, call, true)?;
    let own = lock(&host.directory(&record.id).join("lock"))?;
    let started = cidfile(call, &record).and_then(|()| runtime::start(host, &record, attach));
    drop(own);
    let session = match started {
        Ok(session) => session,
        Err(error) => {
            host.erase(&record.id)?;
            return Err(error);
        }
    };
    if is_detached {
        println!("{}", record.id);
        return Ok(0);
    }
    let ended = session.follow();
    if ended.is_late {
        // The real one deletes the container that it failed to run (correction 4).
        runtime::kill(host, &record.id)?;
        host.erase(&record.id)?;
        return failed("failed to run container: CancellationError()");
    }
    if record.remove {
        host.wait_stopped(&record.id, std::time::Duration::from_secs(10))?;
    }
    Ok(ended.code)
}
