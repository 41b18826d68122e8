//! What Podman says of a container, in Docker's words: its answers have the same fields with other content. Read from
//! Podman 4.3; what a container really has is measured by the guest in any case.
pub(crate) mod this_machine;

use std::collections::BTreeSet;

use agentkernel_core::{Error, Result};
use bollard::models::{ContainerInspectResponse, HostConfig, Mount, MountPoint, MountType};
use serde_json::Value;

use crate::engine::PREFIX;

/// What a container has unless it is dropped, on every version.
const DEFAULTS: [&str; 11] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// What the inspection of older versions takes for defaults too.
const OLD_DEFAULTS: [&str; 3] = ["AUDIT_WRITE", "MKNOD", "NET_RAW"];

/// Translates an inspection.
pub(crate) fn translate(mut found: ContainerInspectResponse) -> ContainerInspectResponse {
    let Some(mut host) = found.host_config.take() else { return found };
    // `NetworkDisabled` is not kept; a container without network has a namespace of its own in any case.
    if let Some(config) = &mut found.config {
        config.network_disabled = Some(host.network_mode.as_deref() == Some("none"));
    }
    for limit in host.ulimits.iter_mut().flatten() {
        limit.name = limit.name.take().map(|name| {
            let name = name.to_ascii_lowercase();
            name.strip_prefix("rlimit_").unwrap_or(&name).to_owned()
        });
    }
    capabilities(&mut host);
    // Its own namespace has two names: nobody joins it unless told to by whoever may use the engine.
    if host.ipc_mode.as_deref() == Some("shareable") {
        host.ipc_mode = Some("private".to_owned());
    }
    if host.pid_mode.as_deref() == Some("private") {
        host.pid_mode = None;
    }
    let binds = host.binds.take().map_or(0, |binds| binds.len());
    let points = found.mounts.iter().flatten();
    let points = points.filter(|point| matches!(point.typ.as_deref(), Some("bind" | "volume")));
    let (count, named) = (points.clone().count(), points.filter(|point| !is_anonymous(point)).map(mount));
    host.mounts = Some(named.collect());
    // What is bound and not listed as mounted stays to be seen.
    host.binds = Some(vec![String::new(); binds.saturating_sub(count)]);
    found.host_config = Some(host);
    found
}

/// Both lists are differences from defaults: what is dropped of them, and what is added to them.
fn capabilities(host: &mut HostConfig) {
    let short = |name: &String| name.to_ascii_uppercase().trim_start_matches("CAP_").to_owned();
    let dropped = host.cap_drop.iter().flatten().map(short).collect::<BTreeSet<_>>();
    let mut kept = host.cap_add.iter().flatten().map(short).collect::<BTreeSet<_>>();
    let is_old = OLD_DEFAULTS.iter().any(|name| dropped.contains(*name));
    let old = OLD_DEFAULTS.iter().filter(|_| is_old);
    let defaults = DEFAULTS.iter().chain(old).filter(|name| !dropped.contains(**name));
    kept.extend(defaults.map(|name| (*name).to_owned()));
    host.cap_drop = Some(vec!["ALL".to_owned()]);
    host.cap_add = Some(kept.into_iter().collect());
}

/// An image's own volume has an id for a name.
fn is_anonymous(point: &MountPoint) -> bool {
    point.typ.as_deref() == Some("volume")
        && point.name.as_deref().is_some_and(|name| name.len() == 64 && !name.starts_with(PREFIX))
}

fn mount(point: &MountPoint) -> Mount {
    let is_volume = point.typ.as_deref() == Some("volume");
    Mount {
        typ: Some(if is_volume { MountType::VOLUME } else { MountType::BIND }),
        source: if is_volume { point.name.clone() } else { point.source.clone() },
        target: point.destination.clone(),
        read_only: Some(point.rw != Some(true)),
        ..Mount::default()
    }
}

/// Returns the status that Docker answers with where Podman's is 500.
pub(crate) fn status(status: u16, words: &str) -> u16 {
    const SAME: [(&str, u16); 5] = [
        ("no such container", 404),
        ("no such volume", 404),
        ("already in use", 409),
        ("being used", 409),
        ("container state improper", 409),
    ];
    let same = SAME.iter().find(|(part, _)| status == 500 && words.contains(part));
    same.map_or(status, |(_, status)| *status)
}

/// Returns an archive of nothing but a directory `.` of mode 755.
pub(crate) fn root_entry() -> Result<Vec<u8>> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o755);
    header.set_size(0);
    let mut archive = tar::Builder::new(Vec::new());
    let appended = archive.append_data(&mut header, ".", std::io::empty());
    appended
        .and_then(|()| archive.into_inner())
        .map_err(|source| Error::unexpected("make an archive", "it cannot be written", source))
}

/// Returns the name that people gave an image: without what Podman completes short ones with.
pub(crate) fn short_name(name: &str) -> &str {
    let short = name.strip_prefix("localhost/").or_else(|| name.strip_prefix("docker.io/library/"));
    short.unwrap_or(name)
}

/// Replaces the names of states that Docker does not have.
pub(crate) fn state(state: &mut Value) {
    let known = match state.as_str() {
        Some("stopped") => "exited",
        Some("configured" | "initialized") => "created",
        _ => return,
    };
    *state = Value::from(known);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Podman 4.3.1 answered to a create with everything.
    const ANSWER: &str = include_str!("../tests/golden/podman-inspect.json");

    #[test]
    fn an_answer_of_podmans_reads_as_dockers() {
        let host = translate(serde_json::from_str(ANSWER).unwrap()).host_config.unwrap();
        assert_eq!(host.cap_drop.unwrap(), ["ALL"]);
        assert_eq!(host.cap_add.unwrap(), ["KILL", "NET_RAW", "SETGID", "SETUID"]);
        let limits = host.ulimits.unwrap();
        assert_eq!(
            limits.iter().map(|limit| limit.name.as_deref().unwrap()).collect::<Vec<_>>(),
            ["nofile", "core", "nproc"]
        );
        let mounts = host.mounts.unwrap();
        let told = mounts.iter().map(|mount| (mount.target.as_deref().unwrap(), mount.read_only.unwrap()));
        assert_eq!(told.collect::<Vec<_>>(), [("/cache", false), ("/etc/hosts", true), ("/ttt", false)]);
        assert_eq!(
            (host.binds.unwrap().len(), host.pid_mode, host.ipc_mode.as_deref()),
            (0, None, Some("private"))
        );
    }

    #[test]
    fn the_archive_of_the_root_is_one_directory() {
        let archive = root_entry().unwrap();
        let mut archive = tar::Archive::new(archive.as_slice());
        let entries = archive.entries().unwrap().map(Result::unwrap).collect::<Vec<_>>();
        let [root] = entries.as_slice() else { panic!("{}", entries.len()) };
        assert_eq!((root.path().unwrap().to_str(), root.header().mode().unwrap()), (Some("."), 0o755));
        assert!(root.header().entry_type().is_dir());
    }

    #[test]
    fn names_are_as_they_were_given() {
        assert_eq!(short_name("localhost/agentkernel-test:latest"), "agentkernel-test:latest");
        assert_eq!(short_name("docker.io/library/busybox:latest"), "busybox:latest");
        assert_eq!(short_name("quay.io/a/b:c"), "quay.io/a/b:c");
    }

    #[test]
    fn statuses_are_dockers() {
        let words = "container 4b does not exist in database: no such container";
        assert_eq!((status(500, words), status(400, words), status(500, "x")), (404, 400, 500));
        assert_eq!(status(500, "the container name \"x\" is already in use by 1f"), 409);
        assert_eq!(status(500, "can only kill running containers: container state improper"), 409);
    }

    #[test]
    fn a_capability_that_was_not_dropped_is_seen() {
        let mut answer: ContainerInspectResponse = serde_json::from_str(ANSWER).unwrap();
        answer.host_config.as_mut().unwrap().cap_drop.as_mut().unwrap().retain(|name| name != "CHOWN");
        assert!(translate(answer).host_config.unwrap().cap_add.unwrap().contains(&"CHOWN".to_owned()));
    }

    #[test]
    fn a_bind_that_is_not_listed_as_mounted_is_seen() {
        let mut answer: ContainerInspectResponse = serde_json::from_str(ANSWER).unwrap();
        answer.host_config.as_mut().unwrap().binds.as_mut().unwrap().push("/:/host".into());
        assert_eq!(translate(answer).host_config.unwrap().binds.unwrap().len(), 1);
    }
}
