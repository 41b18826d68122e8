//! Linux: `/proc`.
use std::{fs, io, os::unix::fs::MetadataExt};

use agentkernel_core::{Error, ErrorKind, Owner, Result};
use rustix::net::SendFlags;

/// A peer that has closed is an error and no signal.
pub(crate) const QUIET: SendFlags = SendFlags::NOSIGNAL;

/// Returns this process as an owner.
pub(crate) fn this_process() -> Result<Owner> {
    let pid = std::process::id();
    let read = || {
        let host_id = read_line("/etc/machine-id").or_else(|_| read_line("/var/lib/dbus/machine-id"));
        let boot_id = read_line("/proc/sys/kernel/random/boot_id")?;
        // A container often has no machine id: the boot then stands for the machine.
        let host_id = host_id.ok().filter(|id| !id.is_empty()).unwrap_or_else(|| boot_id.clone());
        let uid = rustix::process::geteuid().as_raw();
        Ok(Owner::new(host_id, boot_id, pid_namespace()?, pid, start_time("self")?, uid))
    };
    read().map_err(|source: io::Error| {
        Error::new(ErrorKind::Unavailable, "find out who this process is", "/proc does not tell")
            .with_source(source)
            .with_hint("mount /proc")
    })
}

/// Returns when a process of our namespace started: `Some(None)` if there is none, `None` if that is not known.
pub(crate) fn started(pid: u32) -> Option<Option<u64>> {
    match start_time(&pid.to_string()) {
        Ok(started) => Some(Some(started)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(None),
        Err(_) => None,
    }
}

fn read_line(path: &str) -> io::Result<String> {
    Ok(fs::read_to_string(path)?.trim().to_owned())
}

fn pid_namespace() -> io::Result<u64> {
    fs::metadata("/proc/self/ns/pid").map(|namespace| namespace.ino())
}

/// Reads the start time: field 22 of proc_pid_stat(5), counted after the name, which may hold anything.
fn start_time(process: &str) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = after_name.split_ascii_whitespace().nth(19).and_then(|field| field.parse().ok());
    field.ok_or_else(|| io::Error::other("the start time cannot be read"))
}
