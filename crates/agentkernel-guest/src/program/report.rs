//! What the guest finds out about the sandbox at boot.
use std::fs;
use std::io::{self, Read};

use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Resource, getpid, getrlimit};
use rustix::thread::{self, SecureComputingMode};

use super::cgroup::Cgroup;
use super::identity::{self, Identity, Rights, become_command};
use crate::protocol::Report;
use crate::sys::{self, Fork};

/// Measures. The rights are those of a process that went the way of a command.
pub(crate) fn measure(cgroup: &Cgroup, identity: &Identity, rights: Rights) -> io::Result<Report> {
    let limits = cgroup.limits();
    let [capabilities, bounding, no_new_privileges, seccomp] = measure_command(identity, rights)?;
    Ok(Report {
        memory_bytes: limits.memory,
        memory_and_swap_bytes: limits.memory_and_swap,
        pids: limits.pids,
        cpu_milli: limits.cpu_milli,
        open_files: getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX),
        capabilities,
        bounding,
        no_new_privileges: no_new_privileges == 1,
        seccomp: u8::try_from(seccomp).unwrap_or(u8::MAX),
        read_only: statvfs("/")?.f_flag.contains(StatVfsMountFlags::RDONLY),
        network: has_network(),
        pid: getpid().as_raw_nonzero().get().cast_unsigned(),
        uid: identity.uid,
        gid: identity.gid,
    })
}

fn measure_command(identity: &Identity, rights: Rights) -> io::Result<[u64; 4]> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    let pid = match sys::fork()? {
        Fork::Child => {
            let code = match become_command(identity, rights) {
                Ok(()) => {
                    let bytes: Vec<u8> =
                        rights_of_self().iter().flat_map(|number| number.to_le_bytes()).collect();
                    u8::from(rustix::io::write(&writer, &bytes) != Ok(bytes.len()))
                }
                Err((_, error)) => u8::try_from(error.raw_os_error().unwrap_or(libc::EIO)).unwrap_or(1),
            };
            sys::exit(code)
        }
        Fork::Parent(pid) => pid,
    };
    drop(writer);
    let mut bytes = [0u8; 32];
    let result = fs::File::from(reader).read_exact(&mut bytes);
    let status = sys::wait(pid, 0)?.map_or(0, |(_, status)| status);
    if result.is_err() {
        let source = io::Error::from_raw_os_error(libc::WEXITSTATUS(status));
        return Err(io::Error::other(format!("a command cannot be given its user and rights: {source}")));
    }
    let (words, _) = bytes.as_chunks::<8>();
    let mut numbers = words.iter().map(|word| u64::from_le_bytes(*word));
    Ok(std::array::from_fn(|_| numbers.next().unwrap_or(0)))
}

fn rights_of_self() -> [u64; 4] {
    // A failure must not look like few rights.
    let capabilities = thread::capabilities(None)
        .map_or(u64::MAX, |sets| (sets.effective | sets.permitted | sets.inheritable).bits());
    let seccomp = match thread::secure_computing_mode() {
        Ok(SecureComputingMode::Filter) => 2,
        Ok(SecureComputingMode::Strict) => 1,
        _ => 0,
    };
    [capabilities, identity::bounding(), thread::no_new_privs().unwrap_or(false).into(), seccomp]
}

fn has_network() -> bool {
    if let Ok(devices) = fs::read_to_string("/proc/net/dev") {
        let names =
            devices.lines().skip(2).filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
        // Kernels make these in every network namespace; they are down and lead nowhere.
        let idle = [
            "lo", "tunl0", "sit0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "ip6tnl0", "ip6gre0",
        ];
        return names.into_iter().any(|name| !idle.contains(&name));
    }
    fs::read_dir("/sys/class/net")
        .is_ok_and(|mut names| names.any(|name| name.is_ok_and(|it| it.file_name() != "lo")))
}
