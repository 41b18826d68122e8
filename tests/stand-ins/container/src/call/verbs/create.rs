//! From the options of `run` and `create` to a configuration (reference 1.2 and 3).
use std::{collections::BTreeMap, fs};

use serde_json::Value;

use crate::call::{
    Host,
    control::Version,
    failure::{Outcome, failed, gap, usage},
    grammar::Call,
    state::{Attachment, Dns, Process, Record, now, uuid},
    store::Variant,
    values,
    verbs::{image, mounts, network},
};

/// `validate()` of `run` and `create`.
pub(crate) fn check(host: &Host, call: &Call) -> Outcome<()> {
    let has_dns = ["--dns", "--dns-domain", "--dns-option", "--dns-search"].iter().any(|key| call.has(key));
    if call.has("--no-dns") && has_dns && host.version() >= Version::V1_0 {
        return usage(
            "`--no-dns` cannot be used with `--dns`, `--dns-domain`, `--dns-option` or `--dns-search`",
        );
    }
    Ok(())
}

/// The id of the container to be: `--name`, or a UUID.
pub(crate) fn id(host: &Host, call: &Call) -> Outcome<String> {
    let Some(name) = call.get("--name") else { return Ok(uuid()) };
    let is_new = host.version() >= Version::V1_2;
    if values::is_name(name) && !(is_new && name.len() > 63) {
        return Ok(name.to_owned());
    }
    failed(if is_new {
        format!("container ID {name} is not a valid container ID")
    } else {
        format!("invalid entity name {name}")
    })
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let items = value.and_then(Value::as_array).cloned().unwrap_or_default();
    items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// `-e` and `--env-file` of a call.
pub(crate) fn environment(call: &Call) -> Outcome<Vec<String>> {
    let mut all = Vec::new();
    for path in call.all("--env-file") {
        let Ok(text) = fs::read_to_string(path) else {
            return failed(format!("envfile at {path} does not exist"));
        };
        for line in
            text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let name = line.split('=').next().unwrap_or_default();
            if name.is_empty() || name.contains(char::is_whitespace) {
                return failed(format!("invalid variable name {name:?} in {path}"));
            }
            all.extend(values::env(line));
        }
    }
    all.extend(call.all("--env").iter().filter_map(|text| values::env(text)));
    Ok(all)
}

/// Later ones replace earlier ones of the same key, in place.
fn without_duplicates(environment: Vec<String>) -> Vec<String> {
    let key = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let mut all: Vec<String> = Vec::new();
    for entry in environment {
        match all.iter_mut().find(|old| key(old) == key(&entry)) {
            Some(old) => *old = entry,
            None => all.push(entry),
        }
    }
    all
}

/// `--user`, or `--uid` and `--gid`; groups beside.
pub(crate) fn user(call: &Call, inherited: &str) -> Outcome<(String, Vec<u32>)> {
    let number = |key: &str| match call.integer(key).map(u32::try_from) {
        Some(Ok(number)) => Ok(Some(number)),
        Some(Err(_)) => failed(format!("invalid value for {key}")),
        None => Ok(None),
    };
    let (uid, gid) = (number("--uid")?, number("--gid")?);
    Ok(match (call.get("--user"), uid, gid) {
        (Some(user), _, _) => (user.to_owned(), Vec::new()),
        (None, Some(uid), Some(gid)) => (format!("{uid}:{gid}"), Vec::new()),
        (None, Some(uid), None) => (uid.to_string(), Vec::new()),
        (None, None, gid) => (inherited.to_owned(), gid.into_iter().collect()),
    })
}

fn process(host: &Host, call: &Call, config: &Value) -> Outcome<Process> {
    let text = |key: &str| config.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let mut environment = strings(config.get("Env"))
        .iter()
        // Before 1.2 a bare name takes its value from whoever calls (correction 6).
        .filter(|entry| entry.contains('=') || host.version() < Version::V1_2)
        .filter_map(|entry| values::env(entry))
        .collect::<Vec<_>>();
    environment.extend(self::environment(call)?);
    let entry = call.get("--entrypoint").filter(|entry| !entry.is_empty());
    let mut words = match entry {
        Some(entry) => vec![entry.to_owned()],
        None => strings(config.get("Entrypoint")),
    };
    match call.command() {
        // `--entrypoint` drops the image's CMD too.
        [] if entry.is_none() => words.extend(strings(config.get("Cmd"))),
        command => words.extend_from_slice(command),
    }
    if words.is_empty() {
        return failed("command/entrypoint not specified for container process");
    }
    let executable = words.remove(0);
    let (user, groups) = user(call, text("User").unwrap_or_default())?;
    Ok(Process {
        executable,
        arguments: words,
        environment: without_duplicates(environment),
        directory: call.get("--workdir").or(text("WorkingDir")).unwrap_or("/").to_owned(),
        user,
        groups,
        limits: values::limits(call.all("--ulimit"))?,
        terminal: call.has("--tty"),
    })
}

fn attachments(host: &Host, call: &Call, id: &str) -> Outcome<Vec<Attachment>> {
    let asked = call.all("--network");
    if asked.iter().any(|name| name == "none") {
        if asked.len() > 1 {
            return failed("no other networks may be created along with network none");
        }
        return Ok(Vec::new());
    }
    let default = ["default".to_owned()];
    let asked = if asked.is_empty() { &default } else { asked };
    let mut all = Vec::new();
    for text in asked {
        let mut parts = text.split(',');
        let name = parts.next().unwrap_or_default();
        let (mut mac, mut mtu) = (None, Some(1280));
        for part in parts {
            match part.split_once('=') {
                Some(("mac", value)) => mac = Some(value.to_owned()),
                Some(("mtu", value)) => match value.parse() {
                    Ok(value) => mtu = Some(value),
                    Err(_) => return failed(format!("invalid mtu value {value}")),
                },
                _ => return failed(format!("unknown network property {part}")),
            }
        }
        if network::find(host, name)?.is_none() {
            return failed(format!("network {name} not found"));
        }
        let mtu = (host.version() >= Version::V0_12).then_some(mtu).flatten();
        all.push(Attachment { network: name.to_owned(), hostname: id.to_owned(), mtu, mac });
    }
    Ok(all)
}

/// Everything that is looked at once the image is there.
pub(crate) fn record(
    host: &Host,
    call: &Call,
    id: String,
    image: (String, Value),
    variant: &Variant,
) -> Outcome<Record> {
    for key in [
        "--publish-socket",
        "--ssh",
        "--virtualization",
        "--kernel",
        "--kernel-arg",
        "--init-image",
        "--runtime",
    ] {
        if call.has(key) {
            return gap(key);
        }
    }
    let config = variant.config.get("config").cloned().unwrap_or_default();
    let mut labels = BTreeMap::new();
    for text in call.all("--label") {
        labels.extend([values::label(text)?]);
    }
    let capabilities =
        |key: &str| call.all(key).iter().map(|text| values::capability(text)).collect::<Outcome<Vec<_>>>();
    let networks = attachments(host, call, &id)?;
    let ports = values::ports(call.all("--publish"))?;
    if networks.is_empty() && !ports.is_empty() {
        return failed("cannot publish ports without a network");
    }
    let dns = Dns {
        nameservers: call.all("--dns").to_vec(),
        options: call.all("--dns-option").to_vec(),
        search_domains: call.all("--dns-search").to_vec(),
        domain: call.get("--dns-domain").map(str::to_owned),
    };
    let arch = image::arch(host, call)?;
    Ok(Record {
        process: process(host, call, &config)?,
        remove: call.has("--rm"),
        created: now(),
        reference: image.0,
        descriptor: image.1,
        rosetta: call.has("--rosetta") || (arch == "amd64" && host.control.arch() == "arm64"),
        arch,
        labels,
        mounts: mounts::mounts(host, call)?,
        networks,
        ports,
        cpus: call.integer("--cpus").unwrap_or(4),
        memory: values::memory(call.get("--memory").unwrap_or("1g"))?,
        read_only: call.has("--read-only"),
        init: call.has("--init"),
        cap_add: capabilities("--cap-add")?,
        cap_drop: capabilities("--cap-drop")?,
        dns: (!call.has("--no-dns")).then_some(dns),
        shm_size: call.get("--shm-size").map(values::size).transpose()?,
        stop_signal: config.get("StopSignal").and_then(Value::as_str).map(str::to_owned),
        masked: call.all("--masked-path").to_vec(),
        read_only_paths: call.all("--read-only-path").to_vec(),
        id,
    })
}
