//! `network` (reference 1.8 and 2.4): names and shapes; every container has a network namespace of its own.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command prints")]

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::call::{
    Host,
    control::Version,
    failure::{Outcome, failed, gap},
    foundation,
    grammar::Call,
    state::{now, read, write},
    values,
};

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Network {
    mode: String,
    created: u64,
    labels: BTreeMap<String, String>,
    options: BTreeMap<String, String>,
    /// The third byte of its addresses.
    pub(crate) subnet: u8,
}

fn file(host: &Host) -> PathBuf {
    host.root.join("networks.json")
}

fn all(host: &Host) -> Outcome<BTreeMap<String, Network>> {
    let builtin = Network {
        mode: "nat".to_owned(),
        created: now(),
        labels: BTreeMap::from([("com.apple.container.resource.role".to_owned(), "builtin".to_owned())]),
        options: BTreeMap::new(),
        subnet: 64,
    };
    Ok(read(&file(host))?.unwrap_or_else(|| BTreeMap::from([("default".to_owned(), builtin)])))
}

pub(crate) fn find(host: &Host, name: &str) -> Outcome<Option<Network>> {
    Ok(all(host)?.remove(name))
}

fn is_name(name: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=63).contains(&name.len())
        && name.starts_with(edge)
        && name.ends_with(edge)
        && name.chars().all(|c| edge(c) || "._-".contains(c))
}

pub(crate) fn create(host: &Host, call: &Call) -> Outcome {
    let name = call.first();
    if !is_name(name) {
        return failed(format!("invalid network name {name}"));
    }
    if call.has("--subnet") || call.has("--subnet-v6") || call.has("--plugin") {
        return gap("--subnet, --subnet-v6 and --plugin");
    }
    let pairs =
        |key: &str| call.all(key).iter().map(|text| values::label(text)).collect::<Outcome<BTreeMap<_, _>>>();
    let _lock = host.lock()?;
    let mut networks = all(host)?;
    if networks.contains_key(name) {
        return failed(format!("network {name} already exists"));
    }
    let taken = networks.values().map(|network| network.subnet).collect::<Vec<_>>();
    let Some(subnet) = (65..=254).find(|subnet| !taken.contains(subnet)) else {
        return failed("no subnet is left");
    };
    let network = Network {
        mode: if call.has("--internal") { "hostOnly" } else { "nat" }.to_owned(),
        created: now(),
        labels: pairs("--label")?,
        options: pairs("--option")?,
        subnet,
    };
    networks.insert(name.to_owned(), network);
    write(&file(host), &networks)?;
    println!("{name}");
    Ok(0)
}

fn describe(host: &Host, name: &str, network: &Network) -> Value {
    let status = json!({
        "ipv4Subnet": format!("192.168.{}.0/24", network.subnet),
        "ipv4Gateway": format!("192.168.{}.1", network.subnet),
    });
    if host.version() < Version::V1_0 {
        let config = json!({"id": name, "mode": network.mode, "labels": network.labels});
        return json!({"id": name, "state": "running", "config": config, "status": status});
    }
    json!({
        "id": name,
        "configuration": {
            "name": name, "mode": network.mode, "creationDate": foundation::date(network.created, host.version()),
            "labels": network.labels, "plugin": "container-network-vmnet", "options": network.options,
        },
        "status": status,
    })
}

pub(crate) fn list(host: &Host, call: &Call) -> Outcome {
    let networks = all(host)?;
    match call.get("--format").unwrap_or("table") {
        "json" => {
            let all = networks.iter().map(|(name, network)| describe(host, name, network)).collect();
            println!("{}", foundation::compact(&Value::Array(all), host.version()));
        }
        "table" if call.has("--quiet") => networks.keys().for_each(|name| println!("{name}")),
        "table" => {
            println!("NETWORK  SUBNET");
            for (name, network) in networks {
                println!("{name}  192.168.{}.0/24", network.subnet);
            }
        }
        other => return gap(format!("--format {other}")),
    }
    Ok(0)
}

pub(crate) fn inspect(host: &Host, call: &Call) -> Outcome {
    let networks = all(host)?;
    let mut shown = Vec::new();
    for name in &call.positionals {
        match networks.get(name) {
            Some(network) => shown.push(describe(host, name, network)),
            None if host.version() >= Version::V1_0 => return failed(format!("network not found: {name}")),
            None => {}
        }
    }
    println!("{}", foundation::pretty(&Value::Array(shown), host.version()));
    Ok(0)
}

pub(crate) fn delete(host: &Host, call: &Call) -> Outcome {
    if call.has("--all") {
        return gap("network delete --all");
    }
    if call.positionals.is_empty() {
        return failed("no networks specified and --all not supplied");
    }
    let _lock = host.lock()?;
    let mut networks = all(host)?;
    let missing = call.positionals.iter().filter(|name| !networks.contains_key(*name)).collect::<Vec<_>>();
    if !missing.is_empty() {
        return failed(format!("failed to delete one or more networks: {missing:?}"));
    }
    let records = host.records()?;
    let mut kept = Vec::new();
    for name in &call.positionals {
        if name == "default" {
            return failed(format!("cannot delete a builtin network: {name}"));
        }
        let users = records.iter().filter(|record| record.networks.iter().any(|one| &one.network == name));
        let users = users.map(|record| record.id.as_str()).collect::<Vec<_>>();
        if users.is_empty() {
            networks.remove(name);
            println!("{name}");
        } else {
            eprintln!("cannot delete subnet {name} with referring containers: {}", users.join(", "));
            kept.push(name);
        }
    }
    write(&file(host), &networks)?;
    if kept.is_empty() { Ok(0) } else { failed(format!("delete failed for one or more networks: {kept:?}")) }
}
