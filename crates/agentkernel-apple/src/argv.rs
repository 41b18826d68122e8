//! The pure planner: every command line of `container` that there is, and no other.
//!
//! Options stand before the id, each as one `--option=value`, and none with an empty value, which would take the next
//! argument. One `--` stands before an image or id that untrusted arguments follow: without it, an argument of theirs
//! that begins with `---` or `-=` would be read as an option, behind the id too.
mod create;
mod exec;

use agentkernel_core::{Error, ErrorKind, ImageRef, Result, SandboxName, VolumeName};
pub(crate) use create::Create;
pub(crate) use exec::{Exec, Stdin, exec_script, relay, talk};

use crate::{command::Line, mounts};

/// The image of a config without one.
pub(crate) const DEFAULT_IMAGE: &str = "busybox";
/// What a sandbox's container is called, before its name.
pub(crate) const PREFIX: &str = "agentkernel-";
/// Holds the name of a volume of ours.
pub(crate) const VOLUME_LABEL: &str = "agentkernel.volume";
/// Variables that would change what `container` itself does, and are no secrets: they go as arguments.
const OWN: [&str; 12] =
    ["HOME", "LANG", "LANGUAGE", "LOGNAME", "OLDPWD", "PATH", "PWD", "SHELL", "TERM", "TMPDIR", "TZ", "USER"];

/// Returns what a sandbox's container is called.
pub(crate) fn container_name(name: &SandboxName) -> String {
    format!("{PREFIX}{name}")
}

pub(crate) fn version() -> Line {
    ["--version"].into()
}

pub(crate) fn system_status() -> Line {
    ["system", "status", "--format=json"].into()
}

pub(crate) fn system_start(may_install_kernel: bool) -> Line {
    let kernel = if may_install_kernel { "--enable-kernel-install" } else { "--disable-kernel-install" };
    ["system", "start", kernel].into()
}

pub(crate) fn list() -> Line {
    ["list", "--all", "--format=json"].into()
}

pub(crate) fn inspect(id: &str) -> Line {
    ["inspect", id].into()
}

pub(crate) fn start(id: &str) -> Line {
    ["start", id].into()
}

pub(crate) fn stop(id: &str, seconds: u64) -> Line {
    ["stop", &format!("--time={seconds}"), id].into()
}

pub(crate) fn kill(id: &str) -> Line {
    ["kill", id].into()
}

pub(crate) fn delete(id: &str) -> Line {
    ["delete", "--force", id].into()
}

pub(crate) fn stats(id: &str) -> Line {
    ["stats", "--no-stream", "--format=json", id].into()
}

/// The last line of what the first process wrote.
pub(crate) fn last_log(id: &str) -> Line {
    ["logs", "-n=1", id].into()
}

pub(crate) fn image_inspect(image: &ImageRef) -> Line {
    ["image", "inspect", image.as_str()].into()
}

/// How a pull shows how far it is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shown {
    Nothing,
    Plain,
}

pub(crate) fn image_pull(image: &ImageRef, arch: &str, shown: Shown) -> Line {
    let progress = match shown {
        Shown::Nothing => "--progress=none",
        Shown::Plain => "--progress=plain",
    };
    let platform = format!("--platform=linux/{arch}");
    ["image", "pull", progress, &platform, image.as_str()].into()
}

pub(crate) fn image_list() -> Line {
    ["image", "list", "--format=json"].into()
}

pub(crate) fn image_delete(image: &ImageRef) -> Line {
    ["image", "delete", image.as_str()].into()
}

/// Reads the archive from stdin.
pub(crate) fn image_load() -> Line {
    ["image", "load"].into()
}

/// Gives what was loaded another name; `None` for what cannot be a name.
pub(crate) fn image_tag(loaded: &str, name: &str) -> Option<Line> {
    let is_name = loaded.starts_with(|c: char| c.is_ascii_alphanumeric())
        && loaded.bytes().all(|byte| byte.is_ascii_graphic())
        && loaded.len() <= 512;
    is_name.then(|| ["image", "tag", loaded, name].into())
}

pub(crate) fn volume_create(name: &VolumeName) -> Line {
    let label = format!("--label={VOLUME_LABEL}={name}");
    ["volume", "create", &label, &mounts::volume_name(name)].into()
}

pub(crate) fn volume_list() -> Line {
    ["volume", "list", "--format=json"].into()
}

pub(crate) fn volume_delete(name: &VolumeName) -> Line {
    ["volume", "delete", &mounts::volume_name(name)].into()
}

/// Writes the archive to stdout.
pub(crate) fn export(id: &str) -> Line {
    ["export", id].into()
}

/// Docker's command, not ours: writes the archive to stdout.
pub(crate) fn docker_save(image: &ImageRef, arch: Option<&str>) -> Line {
    match arch {
        Some(arch) => ["save", &format!("--platform=linux/{arch}"), image.as_str()].into(),
        None => ["save", image.as_str()].into(),
    }
}

/// Returns the name that OCI has for the architecture of this machine.
pub(crate) fn host_arch() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        "x86_64" => "amd64",
        other => other,
    }
}

/// Returns whether a variable would change what `container` itself does.
fn is_own(name: &str) -> bool {
    let begins = [
        "AGENTKERNEL_",
        "CF",
        "CONTAINER",
        "DYLD_",
        "LC_",
        "LD_",
        "Malloc",
        "NS",
        "OS_",
        "SSH_",
        "SWIFT",
        "XPC_",
        "_",
    ];
    OWN.contains(&name) || begins.iter().any(|begin| name.starts_with(begin))
}

/// Bytes as an argument: `container` replaces what is not UTF-8, so that is refused before.
pub(crate) fn text(bytes: &[u8], field: &'static str) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| {
        Error::new(ErrorKind::Unsupported, "call `container`", "it takes only UTF-8 (`raw_bytes`)")
            .with_context("backend", "apple")
            .with_context("field", field)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_without_untrusted_arguments() {
        let shown = |line: Line| line.argv.join(" ");
        assert_eq!(shown(stop("x", 3)), "stop --time=3 x");
        assert_eq!(shown(delete("x")), "delete --force x");
        assert_eq!(shown(list()), "list --all --format=json");
        assert_eq!(shown(stats("x")), "stats --no-stream --format=json x");
        assert_eq!(shown(last_log("x")), "logs -n=1 x");
        assert_eq!(shown(system_start(false)), "system start --disable-kernel-install");
        let image = "alpine:3.20".parse().unwrap();
        assert_eq!(
            shown(image_pull(&image, "arm64", Shown::Nothing)),
            "image pull --progress=none --platform=linux/arm64 alpine:3.20"
        );
    }
}
