//! The syntax of values (reference 3): pure, each with the error text of the reference where that has one.
use std::collections::HashSet;

use crate::call::{
    failure::{Outcome, failed},
    state::{Limit, Port},
};

/// Swift's `split(separator:maxSplits:)`: empty pieces are left out and do not count.
pub(crate) fn split(text: &str, separator: char, max: usize) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while pieces.len() < max {
        match rest.split_once(separator) {
            Some(("", behind)) => rest = behind,
            Some((piece, behind)) => {
                pieces.push(piece);
                rest = behind;
            }
            None => break,
        }
    }
    if !rest.is_empty() {
        pieces.push(rest);
    }
    pieces
}

/// Bytes; a bare number is bytes, units are binary.
pub(crate) fn size(text: &str) -> Outcome<u64> {
    let trimmed = text.trim_start().to_ascii_lowercase();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let Ok(number) = number.parse::<f64>() else {
        return failed("invalid size");
    };
    let exponent = match unit.trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return failed(format!("invalid symbol: {unit}")),
    };
    let bytes = number * 1024_f64.powi(exponent);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates, and is not negative"
    )]
    Ok(bytes as u64)
}

/// `-m`: whole MiB, and 200 of them at least.
pub(crate) fn memory(text: &str) -> Outcome<u64> {
    let bytes = size(text)? >> 20 << 20;
    if bytes < 200 << 20 {
        return failed(format!("minimum memory amount allowed is 200 MiB (got {bytes} bytes)"));
    }
    Ok(bytes)
}

/// `K=V`; one `=` at the end is lost, anything behind a second one is an error (correction 3).
pub(crate) fn label(text: &str) -> Outcome<(String, String)> {
    match split(text, '=', 2).as_slice() {
        [key] => Ok(((*key).to_owned(), String::new())),
        [key, value] => Ok(((*key).to_owned(), (*value).to_owned())),
        _ => failed(format!("invalid label format {text}")),
    }
}

/// `K=V`, or `K` alone, which is the caller's own, and nothing if the caller has none.
pub(crate) fn env(text: &str) -> Option<String> {
    if text.contains('=') {
        Some(text.to_owned())
    } else {
        std::env::var(text).ok().map(|value| format!("{text}={value}"))
    }
}

/// A number or a range, as first port and count.
fn range(text: &str, what: &str) -> Outcome<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        // "Ports > 1": neither 0 nor 1.
        (Ok(first), Ok(last)) if first > 1 && last >= first => Ok((first, last - first + 1)),
        _ => failed(format!("invalid publish {what} port: {text}")),
    }
}

fn port(text: &str) -> Outcome<Port> {
    let (ports, proto) = text.rsplit_once('/').unwrap_or((text, "tcp"));
    let proto = proto.to_ascii_lowercase();
    if !["tcp", "udp"].contains(&proto.as_str()) {
        return failed(format!("invalid publish protocol: {proto}"));
    }
    let Some((front, inside)) = ports.rsplit_once(':') else {
        return failed(format!("invalid publish value: {text}"));
    };
    let (address, outside) = match front.rsplit_once(':') {
        Some((address, outside)) => (address.trim_start_matches('[').trim_end_matches(']'), outside),
        None => ("0.0.0.0", front),
    };
    if address.parse::<std::net::IpAddr>().is_err() {
        return failed(format!("invalid publish IP address: {address}"));
    }
    let (host_port, count) = range(outside, "host")?;
    let (container_port, inside_count) = range(inside, "container")?;
    if count != inside_count {
        return failed(format!("publish host and container port counts are not equal: {text}"));
    }
    Ok(Port { host_address: address.to_owned(), host_port, container_port, count, proto })
}

/// `-p`: at most 64, none over another.
pub(crate) fn ports(texts: &[String]) -> Outcome<Vec<Port>> {
    let ports = texts.iter().map(|text| port(text)).collect::<Outcome<Vec<_>>>()?;
    if ports.len() > 64 {
        return failed("cannot exceed more than 64 port publish descriptors");
    }
    let mut taken = HashSet::new();
    for port in &ports {
        for offset in 0..port.count {
            if !taken.insert((port.host_port + offset, &port.proto)) {
                return failed("host ports for different publish port specs may not overlap");
            }
        }
    }
    Ok(ports)
}

/// What `--ulimit` knows, by rustix' names in `runtime::process`.
pub(crate) const LIMITS: &[&str] = &[
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

fn limit(text: &str) -> Outcome<Limit> {
    let Some((name, values)) = text.split_once('=') else {
        return failed(format!("invalid ulimit format: {text}"));
    };
    let name = name.to_ascii_lowercase();
    if !LIMITS.contains(&name.as_str()) {
        return failed(format!("unsupported ulimit type: {name}"));
    }
    let value = |text: &str| match text {
        "unlimited" | "-1" => Ok(u64::MAX),
        number => number.parse::<u64>().or_else(|_| failed(format!("invalid ulimit value: {number}"))),
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let (soft, hard) = (value(soft)?, value(hard)?);
    if soft > hard {
        return failed(format!("ulimit soft limit {soft} cannot exceed hard limit {hard}"));
    }
    Ok(Limit { limit: format!("RLIMIT_{}", name.to_ascii_uppercase()), soft, hard })
}

pub(crate) fn limits(texts: &[String]) -> Outcome<Vec<Limit>> {
    let limits = texts.iter().map(|text| limit(text)).collect::<Outcome<Vec<_>>>()?;
    let mut seen = HashSet::new();
    match limits.iter().find(|limit| !seen.insert(&limit.limit)) {
        Some(twice) => failed(format!("duplicate ulimit type: {}", twice.limit)),
        None => Ok(limits),
    }
}

/// In the order of their numbers.
pub(crate) const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// `ALL`, or the name with `CAP_` as the configuration shows it.
pub(crate) fn capability(text: &str) -> Outcome<String> {
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    match bare {
        "ALL" => Ok("ALL".to_owned()),
        name if CAPABILITIES.contains(&name) => Ok(format!("CAP_{name}")),
        _ => failed(format!("invalid capability: {text}")),
    }
}

/// The numbers of what is left: adds beat `drop ALL`, drops by name beat adds.
pub(crate) fn effective(add: &[String], drop: &[String]) -> Vec<usize> {
    let has = |list: &[String], name: &str| list.iter().any(|item| item.strip_prefix("CAP_") == Some(name));
    let all = |list: &[String]| list.iter().any(|item| item == "ALL");
    (0..CAPABILITIES.len())
        .filter(|number| {
            let name = CAPABILITIES.get(*number).copied().unwrap_or_default();
            let base = !all(drop) && DEFAULT_CAPABILITIES.contains(&name);
            (base || all(add) || has(add, name)) && !has(drop, name)
        })
        .collect()
}

const SIGNALS: [(&str, i32); 31] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// `KILL`, `SIGKILL` or `9`, with Linux' numbers.
pub(crate) fn signal(text: &str) -> Outcome<i32> {
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    let found = SIGNALS.iter().find(|(name, number)| *name == bare || number.to_string() == bare);
    match found {
        Some((_, number)) => Ok(*number),
        None => failed(format!("invalid signal: {text}")),
    }
}

/// The name of a container: `^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`.
pub(crate) fn is_name(text: &str) -> bool {
    let mut characters = text.chars();
    characters.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && text.len() >= 2
        && characters.all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

#[cfg(test)]
mod tests {
    use super::{effective, label, memory, size, split};

    #[test]
    fn labels_follow_swift_split() {
        let stored = |text: &str| label(text).ok();
        let pair = |key: &str, value: &str| Some((key.to_owned(), value.to_owned()));
        assert_eq!(stored("k=v"), pair("k", "v"));
        assert_eq!(stored("k"), pair("k", ""));
        assert_eq!(stored("k=YWI="), pair("k", "YWI"));
        assert_eq!(stored("k==v"), pair("k", "v"));
        assert_eq!(stored("=v"), pair("v", ""));
        assert_eq!(stored("k=a=b"), None);
        assert_eq!(stored("k=YQ=="), None);
        assert_eq!(stored("="), None);
        assert_eq!(split("a:b:c:d", ':', 2), ["a", "b", "c:d"]);
    }

    #[test]
    fn a_bare_number_is_bytes() {
        assert_eq!(size("1.5g").ok(), Some(1_610_612_736));
        assert_eq!(size("512").ok(), Some(512));
        assert_eq!(size("1KiB").ok(), Some(1024));
        assert!(size("1x").is_err());
        assert!(size("").is_err());
        assert!(memory("512").is_err());
        assert_eq!(memory("200m").ok(), Some(200 << 20));
    }

    #[test]
    fn an_added_capability_beats_drop_all_and_a_dropped_one_beats_add_all() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(effective(&list(&[]), &list(&["ALL"])), Vec::<usize>::new());
        assert_eq!(effective(&list(&["CAP_KILL"]), &list(&["ALL"])), [5]);
        assert_eq!(effective(&list(&["ALL"]), &list(&["CAP_CHOWN"])).len(), 40);
        assert_eq!(effective(&list(&[]), &list(&[])).len(), 14);
    }
}
