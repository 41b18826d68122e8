//! The tree that a container's first process sees: its root, mounts, devices and names.
use std::{
    ffi::CString,
    fs,
    io::{self, Write},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use nix::sched::{CloneFlags, unshare};
use rustix::{
    fs::{CWD, FileType, Mode, makedev, mknodat},
    mount::{
        MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive,
        mount_change, mount_remount, unmount,
    },
};

use crate::call::state::{MountKind, Record};

/// Moves this process into namespaces and a tree of its own; `directory` is that of the container.
pub(crate) fn enter(directory: &Path, record: &Record, addresses: &[[u8; 4]]) -> io::Result<()> {
    unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWNET,
    )?;
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    let name = record.networks.first().map_or(record.id.as_str(), |one| one.hostname.as_str());
    rustix::system::sethostname(name.as_bytes())?;
    network(addresses)?;
    let root = directory.join("rootfs");
    names(&root, record, addresses)?;
    mount_bind(&root, &root)?;
    for (path, kind, flags, data) in [
        ("proc", "proc", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, ""),
        (
            "sys",
            "sysfs",
            MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RDONLY,
            "",
        ),
        ("dev", "tmpfs", MountFlags::NOSUID, "mode=755,size=64k"),
        (
            "dev/pts",
            "devpts",
            MountFlags::NOSUID | MountFlags::NOEXEC,
            "newinstance,ptmxmode=0666,mode=620,gid=5",
        ),
    ] {
        fs::create_dir_all(root.join(path))?;
        mount(kind, root.join(path), kind, flags, CString::new(data)?.as_c_str())?;
    }
    devices(&root.join("dev"))?;
    let shm = root.join("dev/shm");
    fs::create_dir_all(&shm)?;
    let size = format!("mode=1777,size={}", record.shm_size.unwrap_or(64 << 20));
    mount("shm", &shm, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, CString::new(size)?.as_c_str())?;
    for one in &record.mounts {
        one_mount(&root, one)?;
    }
    hide(&root, record)?;
    if record.read_only {
        mount_remount(&root, MountFlags::BIND | MountFlags::RDONLY, c"")?;
    }
    rustix::process::chdir(&root)?;
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

/// One interface for each network, with its address, and a default route through the first. Behind them is nobody: they
/// are bridges without a second port.
fn network(addresses: &[[u8; 4]]) -> io::Result<()> {
    let ip = |line: &str| -> io::Result<()> {
        let status = Command::new("/bin/busybox").arg("ip").args(line.split(' ')).status()?;
        if status.success() {
            Ok(())
        } else {
            Err(io::Error::other(format!("busybox ip {line} ended with {status}")))
        }
    };
    ip("link set lo up")?;
    for (number, [a, b, c, d]) in addresses.iter().enumerate() {
        ip(&format!("link add eth{number} type bridge"))?;
        ip(&format!("addr add {a}.{b}.{c}.{d}/24 dev eth{number}"))?;
        ip(&format!("link set eth{number} up"))?;
    }
    match addresses.first() {
        Some([a, b, c, _]) => ip(&format!("route add default via {a}.{b}.{c}.1")),
        None => Ok(()),
    }
}

fn names(root: &Path, record: &Record, addresses: &[[u8; 4]]) -> io::Result<()> {
    let mut hosts = "127.0.0.1 localhost\n".to_owned();
    for ([a, b, c, d], one) in addresses.iter().zip(&record.networks) {
        hosts.push_str(&format!("{a}.{b}.{c}.{d} {}\n", one.hostname));
    }
    let mut files = vec![("hosts", hosts)];
    if let Some(dns) = &record.dns {
        let gateway = addresses.first().map(|[a, b, c, _]| format!("{a}.{b}.{c}.1"));
        let servers =
            if dns.nameservers.is_empty() { gateway.into_iter().collect() } else { dns.nameservers.clone() };
        let mut text = servers.iter().map(|server| format!("nameserver {server}\n")).collect::<String>();
        for (word, values) in [("search", &dns.search_domains), ("options", &dns.options)] {
            if !values.is_empty() {
                text.push_str(&format!("{word} {}\n", values.join(" ")));
            }
        }
        files.push(("resolv.conf", text));
    }
    fs::create_dir_all(root.join("etc"))?;
    for (name, text) in files {
        let path = root.join("etc").join(name);
        // Never through a link of the image.
        let _ = fs::remove_file(&path);
        fs::File::options().create_new(true).write(true).open(&path)?.write_all(text.as_bytes())?;
    }
    Ok(())
}

fn devices(dev: &Path) -> io::Result<()> {
    let mode = Mode::from_raw_mode(0o666);
    for (name, major, minor) in
        [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)]
    {
        mknodat(CWD, dev.join(name), FileType::CharacterDevice, mode, makedev(major, minor))?;
        fs::set_permissions(dev.join(name), fs::Permissions::from_mode(0o666))?;
    }
    for (name, target) in [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        symlink(target, dev.join(name))?;
    }
    Ok(())
}

fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

fn one_mount(root: &Path, one: &crate::call::state::Mount) -> io::Result<()> {
    let target = below(root, &one.destination);
    if let MountKind::Tmpfs = one.kind {
        fs::create_dir_all(&target)?;
        let mode =
            if one.options.iter().any(|option| option.starts_with("mode=")) { "" } else { "mode=1777" };
        let options = one.options.iter().filter(|option| *option != "ro").map(String::as_str);
        let data = options.chain([mode]).filter(|option| !option.is_empty()).collect::<Vec<_>>().join(",");
        mount(
            "tmpfs",
            &target,
            "tmpfs",
            MountFlags::NOSUID | MountFlags::NODEV,
            CString::new(data)?.as_c_str(),
        )?;
    } else {
        if fs::metadata(&one.source)?.is_dir() {
            fs::create_dir_all(&target)?;
        } else {
            fs::create_dir_all(target.parent().unwrap_or(root))?;
            fs::File::options().create(true).append(true).open(&target)?;
        }
        mount_bind_recursive(one.source.trim_end_matches('/'), &target)?;
    }
    if one.options.iter().any(|option| option == "ro") {
        mount_remount(&target, MountFlags::BIND | MountFlags::RDONLY, c"")?;
    }
    Ok(())
}

fn hide(root: &Path, record: &Record) -> io::Result<()> {
    for path in &record.masked {
        let path = below(root, path);
        match fs::metadata(&path) {
            Ok(there) if there.is_dir() => mount("tmpfs", &path, "tmpfs", MountFlags::RDONLY, c"size=0")?,
            Ok(_) => mount_bind("/dev/null", &path)?,
            Err(_) => {}
        }
    }
    for path in &record.read_only_paths {
        let path = below(root, path);
        if path.exists() {
            mount_bind_recursive(&path, &path)?;
            mount_remount(&path, MountFlags::BIND | MountFlags::RDONLY, c"")?;
        }
    }
    Ok(())
}
