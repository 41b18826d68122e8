//! `volume` (reference 1.8 and 2.4): directories instead of block images.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command prints")]

use std::{collections::BTreeMap, fs, path::PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::call::{
    Host,
    control::Version,
    failure::{Outcome, failed, gap},
    foundation,
    grammar::Call,
    state::{MountKind, now, read, write},
    values,
};

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Volume {
    created: u64,
    labels: BTreeMap<String, String>,
    size: Option<u64>,
}

fn directory(host: &Host) -> PathBuf {
    host.root.join("volumes")
}

/// Where its files are.
pub(crate) fn data(host: &Host, name: &str) -> PathBuf {
    directory(host).join(name).join("data")
}

pub(crate) fn find(host: &Host, name: &str) -> Outcome<Option<Volume>> {
    if name.contains('/') || name.starts_with('.') {
        return Ok(None);
    }
    read(&directory(host).join(name).join("volume.json"))
}

pub(crate) fn make(host: &Host, name: &str, call: Option<&Call>) -> Outcome<()> {
    let is_name = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    if !is_name {
        return failed(format!("invalid volume name '{name}'"));
    }
    if find(host, name)?.is_some() {
        return failed(format!("volume '{name}' already exists"));
    }
    let labels = call.map_or(&[][..], |call| call.all("--label"));
    let labels = labels.iter().map(|text| values::label(text)).collect::<Outcome<BTreeMap<_, _>>>()?;
    let size = call.and_then(|call| call.get("-s")).map(values::size).transpose()?;
    // A fresh ext4 has it.
    fs::create_dir_all(data(host, name).join("lost+found"))?;
    write(&directory(host).join(name).join("volume.json"), &Volume { created: now(), labels, size })
}

pub(crate) fn create(host: &Host, call: &Call) -> Outcome {
    if call.has("--opt") {
        return gap("--opt");
    }
    make(host, call.first(), Some(call))?;
    println!("{}", call.first());
    Ok(0)
}

fn all(host: &Host) -> Outcome<BTreeMap<String, Volume>> {
    let mut volumes = BTreeMap::new();
    for entry in fs::read_dir(directory(host)).into_iter().flatten() {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some(volume) = find(host, &name)? {
            volumes.insert(name, volume);
        }
    }
    Ok(volumes)
}

fn describe(host: &Host, name: &str, volume: &Volume) -> Value {
    let date = foundation::date(volume.created, host.version());
    let source = directory(host).join(name).join("volume.img");
    let is_new = host.version() >= Version::V1_0;
    let mut flat = json!({
        "name": name, "driver": "local", "format": "ext4", "source": source,
        "labels": volume.labels, "options": {}, "sizeInBytes": volume.size,
    });
    flat[if is_new { "creationDate" } else { "createdAt" }] = date;
    let flat = foundation::without_nulls(flat);
    if is_new { json!({"id": name, "configuration": flat}) } else { flat }
}

pub(crate) fn list(host: &Host, call: &Call) -> Outcome {
    let volumes = all(host)?;
    match call.get("--format").unwrap_or("table") {
        "json" => {
            let all = volumes.iter().map(|(name, volume)| describe(host, name, volume)).collect();
            println!("{}", foundation::compact(&Value::Array(all), host.version()));
        }
        "table" if call.has("--quiet") => volumes.keys().for_each(|name| println!("{name}")),
        "table" => {
            println!("NAME  TYPE  DRIVER  OPTIONS");
            volumes.keys().for_each(|name| println!("{name}  named  local"));
        }
        other => return gap(format!("--format {other}")),
    }
    Ok(0)
}

pub(crate) fn inspect(host: &Host, call: &Call) -> Outcome {
    let mut shown = Vec::new();
    for name in &call.positionals {
        match find(host, name)? {
            Some(volume) => shown.push(describe(host, name, &volume)),
            None => return failed(format!("volume '{name}' not found")),
        }
    }
    println!("{}", foundation::pretty(&Value::Array(shown), host.version()));
    Ok(0)
}

pub(crate) fn delete(host: &Host, call: &Call) -> Outcome {
    if call.has("--all") {
        return gap("volume delete --all");
    }
    if call.positionals.is_empty() {
        return failed("no volumes specified and --all not supplied");
    }
    let records = host.records()?;
    let mut kept = Vec::new();
    for name in &call.positionals {
        let uses = |kind: &MountKind| matches!(kind, MountKind::Volume(used) if used == name);
        let is_used = records.iter().any(|record| record.mounts.iter().any(|mount| uses(&mount.kind)));
        if is_used {
            eprintln!(
                "volume '{name}' is currently in use and cannot be accessed by another container, or deleted."
            );
            kept.push(name);
        } else if find(host, name)?.is_none() {
            eprintln!("volume '{name}' not found");
            kept.push(name);
        } else {
            fs::remove_dir_all(directory(host).join(name))?;
            println!("{name}");
        }
    }
    if kept.is_empty() { Ok(0) } else { failed(format!("delete failed for one or more volumes: {kept:?}")) }
}
