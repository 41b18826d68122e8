//! `list`, `inspect`, `logs`, `stats` (reference 1.4 and 2).
#![expect(clippy::print_stdout, reason = "a command prints")]

use std::{
    fs,
    io::{Read, Write},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::call::{
    Host,
    control::Version::{V1_0, V1_2},
    failure::{Outcome, failed, gap},
    foundation::{self, without_nulls},
    grammar::Call,
    runtime,
    state::{MountKind, Record, Status},
    verbs::network,
};

/// `configuration`, section 2.1.
fn configuration(host: &Host, record: &Record) -> Value {
    let version = host.version();
    let process = &record.process;
    let mounts = record.mounts.iter().map(|mount| {
        let kind = match &mount.kind {
            MountKind::Bind => json!({"virtiofs": {}}),
            MountKind::Tmpfs => json!({"tmpfs": {}}),
            MountKind::Volume(name) => {
                json!({"volume": {"cache": {"on": {}}, "format": "ext4", "name": name, "sync": {"fsync": {}}}})
            }
        };
        json!({"destination": mount.destination, "options": mount.options, "source": mount.source, "type": kind})
    });
    let networks = record.networks.iter().map(|one| {
        json!({"network": one.network, "options": {"hostname": one.hostname, "mtu": one.mtu, "macAddress": one.mac}})
    });
    let user = if process.user.is_empty() {
        json!({"id": {"uid": 0, "gid": 0}})
    } else {
        json!({"raw": {"userString": process.user}})
    };
    let is_new = version >= V1_0;
    without_nulls(json!({
        "capAdd": record.cap_add,
        "capDrop": record.cap_drop,
        "creationDate": is_new.then(|| foundation::date(record.created, version)),
        "dns": record.dns,
        "id": record.id,
        "image": {"descriptor": record.descriptor, "reference": record.reference},
        "initProcess": {
            "arguments": process.arguments, "environment": process.environment, "executable": process.executable,
            "rlimits": process.limits, "supplementalGroups": process.groups, "terminal": process.terminal,
            "user": user, "workingDirectory": process.directory,
        },
        "labels": record.labels,
        "mounts": mounts.collect::<Vec<_>>(),
        "networks": networks.collect::<Vec<_>>(),
        "platform": {
            "architecture": record.arch, "os": "linux", "variant": (record.arch == "arm64").then_some("v8"),
        },
        "publishedPorts": record.ports,
        "publishedSockets": [],
        "readOnly": record.read_only,
        "resources": {
            "cpus": record.cpus, "memoryInBytes": record.memory, "cpuOverhead": is_new.then_some(1),
        },
        "rosetta": record.rosetta,
        "runtimeHandler": "container-runtime-linux",
        "shmSize": record.shm_size,
        "ssh": false,
        "stopSignal": record.stop_signal.as_ref().filter(|_| is_new),
        "sysctls": {},
        "useInit": record.init,
        "virtualization": false,
    }))
}

/// The networks of a running container, as the status has them.
fn networks(host: &Host, record: &Record, status: &Status) -> Outcome<Vec<Value>> {
    let mut all = Vec::new();
    for (one, last) in record.networks.iter().zip(&status.addresses) {
        let subnet = network::find(host, &one.network)?.map_or(64, |network| network.subnet);
        all.push(without_nulls(json!({
            "network": one.network,
            "hostname": one.hostname,
            "ipv4Address": format!("192.168.{subnet}.{last}/24"),
            "ipv4Gateway": format!("192.168.{subnet}.1"),
            "ipv6Address": format!("fd5a:8e1c:77a1:3c0::{last:x}/64"),
            "macAddress": one.mac.clone().unwrap_or_else(|| format!("f2:1c:9b:4e:{subnet:02x}:{last:02x}")),
            "mtu": one.mtu,
            "variant": (host.version() >= V1_2).then_some("reserved"),
        })));
    }
    Ok(all)
}

fn describe(host: &Host, record: &Record, status: Option<&Status>) -> Outcome<Value> {
    let configuration = configuration(host, record);
    let networks = status.map(|status| networks(host, record, status)).transpose()?.unwrap_or_default();
    let state = if status.is_some() { "running" } else { "stopped" };
    let started = status.map(|status| foundation::date(status.started, host.version()));
    Ok(without_nulls(if host.version() >= V1_0 {
        json!({
            "configuration": configuration, "id": record.id,
            "status": {"networks": networks, "startedDate": started, "state": state},
        })
    } else {
        json!({"status": state, "configuration": configuration, "networks": networks, "startedDate": started})
    }))
}

pub(crate) fn list(host: &Host, call: &Call) -> Outcome {
    let mut shown = Vec::new();
    for record in host.records()? {
        let status = host.running(&record.id)?;
        if status.is_some() || call.has("--all") {
            shown.push((record, status));
        }
    }
    let format = call.get("--format").unwrap_or("table");
    if format == "json" {
        let all = shown.iter().map(|(record, status)| describe(host, record, status.as_ref()));
        println!("{}", foundation::compact(&Value::Array(all.collect::<Outcome<_>>()?), host.version()));
        return Ok(0);
    }
    if format != "table" {
        return gap(format!("--format {format}"));
    }
    if call.has("--quiet") {
        shown.iter().for_each(|(record, _)| println!("{}", record.id));
        return Ok(0);
    }
    println!("ID  IMAGE  OS  ARCH  STATE  IP  CPUS  MEMORY  STARTED");
    for (record, status) in &shown {
        let networks =
            status.as_ref().map(|status| networks(host, record, status)).transpose()?.unwrap_or_default();
        let ips =
            networks.iter().filter_map(|one| one.get("ipv4Address")?.as_str()).collect::<Vec<_>>().join(",");
        let state = if status.is_some() { "running" } else { "stopped" };
        println!(
            "{}  {}  linux  {}  {state}  {ips}  {}  {} MB",
            record.id,
            record.reference,
            record.arch,
            record.cpus,
            record.memory >> 20
        );
    }
    Ok(0)
}

pub(crate) fn inspect(host: &Host, call: &Call) -> Outcome {
    let mut ids = call.positionals.clone();
    ids.sort();
    ids.dedup();
    let mut shown = Vec::new();
    let mut missing = Vec::new();
    for id in ids {
        match host.record(&id)? {
            Some(record) => shown.push(describe(host, &record, host.running(&id)?.as_ref())?),
            None => missing.push(id),
        }
    }
    if host.version() < V1_0 {
        // One compact line, and what is missing is just not there.
        println!("{}", foundation::compact(&Value::Array(shown), host.version()));
        return Ok(0);
    }
    if !missing.is_empty() {
        return failed(format!("container not found: {}", missing.join(", ")));
    }
    println!("{}", foundation::pretty(&Value::Array(shown), host.version()));
    Ok(0)
}

pub(crate) fn logs(host: &Host, call: &Call) -> Outcome {
    let id = call.first();
    let wrap = |cause: String| {
        format!(
            "failed to get logs for container {id} (cause: \"internalError: \"failed to open container logs: {cause}\"\")"
        )
    };
    if host.record(id)?.is_none() {
        return failed(wrap(format!("notFound: \"container with ID {id} not found\"")));
    }
    let name = if call.has("--boot") { "boot.log" } else { "log" };
    let Ok(mut file) = fs::File::open(host.directory(id).join(name)) else {
        return failed(wrap(format!("notFound: \"{name}\"")));
    };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let Ok(text) = String::from_utf8(bytes) else {
        return failed("failed to convert container logs to utf8");
    };
    let text = text.trim_end_matches('\n');
    let lines = text.lines().collect::<Vec<_>>();
    let wanted = call.integer("-n").and_then(|count| usize::try_from(count).ok()).unwrap_or(lines.len());
    for line in lines.iter().skip(lines.len().saturating_sub(wanted)) {
        println!("{line}");
    }
    // Never ends by itself, even after the container stops.
    while call.has("--follow") {
        thread::sleep(Duration::from_millis(100));
        let mut more = Vec::new();
        file.read_to_end(&mut more)?;
        std::io::stdout().write_all(&more)?;
        std::io::stdout().flush()?;
    }
    Ok(0)
}

pub(crate) fn stats(host: &Host, call: &Call) -> Outcome {
    let mut running = Vec::new();
    if call.positionals.is_empty() {
        for record in host.records()? {
            running.extend(host.running(&record.id)?.map(|status| (record, status)));
        }
    }
    for id in &call.positionals {
        let Some(record) = host.record(id)? else {
            return failed(format!("no such container: {id}"));
        };
        running.extend(host.running(id)?.map(|status| (record, status)));
    }
    let format = call.get("--format").unwrap_or("table");
    if format == "table" && !call.has("--no-stream") {
        return gap("the stream of a table");
    }
    // Two samples.
    thread::sleep(Duration::from_secs(2));
    let all = running.iter().map(|(record, status)| runtime::statistics(record, status)).collect::<Vec<_>>();
    match format {
        "json" => println!("{}", foundation::compact(&Value::Array(all), host.version())),
        "table" => {
            println!("Container ID  Cpu %  Memory Usage  Net Rx/Tx  Block I/O  Pids");
            for one in all {
                println!(
                    "{}  0.00%  {}  0/0  0/0  {}",
                    one["id"], one["memoryUsageBytes"], one["numProcesses"]
                );
            }
        }
        other => return gap(format!("--format {other}")),
    }
    Ok(0)
}
