//! The options of every command, with the version that brought them (reference 1).
use crate::call::{
    control::Version::{self, V0_12, V1_0, V1_2},
    grammar::{
        Opt,
        Takes::{self, Integer, Nothing, Number, OneOf, Text},
    },
};

const fn opt(names: &'static [&'static str], value: &'static str, takes: Takes, since: Version) -> Opt {
    Opt { names, value, takes, since }
}
const fn flag(names: &'static [&'static str]) -> Opt {
    opt(names, "", Nothing, V0_12)
}
const fn text(names: &'static [&'static str], value: &'static str) -> Opt {
    opt(names, value, Text, V0_12)
}

pub(crate) const DEBUG: &[Opt] = &[flag(&["--debug"])];
pub(crate) const ALL: &[Opt] = &[flag(&["--all", "-a"])];
pub(crate) const QUIET: &[Opt] = &[flag(&["--quiet", "-q"])];
pub(crate) const FORCE: &[Opt] = &[flag(&["--force", "-f"])];
/// The newer one first: the first that this version has is taken.
pub(crate) const FORMAT: &[Opt] = &[
    opt(&["--format"], "format", OneOf(&["json", "table", "yaml", "toml"]), V1_0),
    opt(&["--format"], "format", OneOf(&["json", "table", "yaml"]), V0_12),
];
pub(crate) const PROCESS: &[Opt] = &[
    text(&["--env", "-e"], "env"),
    text(&["--env-file"], "env-file"),
    opt(&["--uid"], "uid", Integer, V0_12),
    opt(&["--gid"], "gid", Integer, V0_12),
    text(&["--user", "-u"], "user"),
    text(&["--workdir", "-w", "--cwd"], "dir"),
    flag(&["--interactive", "-i"]),
    flag(&["--tty", "-t"]),
    text(&["--ulimit"], "limit"),
];
pub(crate) const DETACH: &[Opt] = &[flag(&["--detach", "-d"])];
pub(crate) const RESOURCES: &[Opt] =
    &[opt(&["--cpus", "-c"], "cpus", Integer, V0_12), text(&["--memory", "-m"], "memory")];
pub(crate) const PLATFORM: &[Opt] =
    &[text(&["--arch", "-a"], "arch"), text(&["--os"], "os"), text(&["--platform"], "platform")];
pub(crate) const MANAGEMENT: &[Opt] = &[
    text(&["--name"], "name"),
    text(&["--cidfile"], "cidfile"),
    flag(&["--detach", "-d"]),
    flag(&["--rm", "--remove"]),
    text(&["--label", "-l"], "label"),
    text(&["--entrypoint"], "cmd"),
    text(&["--volume", "-v"], "volume"),
    text(&["--mount"], "mount"),
    text(&["--tmpfs"], "tmpfs"),
    text(&["--publish", "-p"], "spec"),
    text(&["--publish-socket"], "spec"),
    text(&["--network"], "network"),
    flag(&["--no-dns"]),
    text(&["--dns"], "ip"),
    text(&["--dns-domain"], "domain"),
    text(&["--dns-option"], "option"),
    text(&["--dns-search"], "domain"),
    flag(&["--ssh"]),
    flag(&["--rosetta"]),
    flag(&["--virtualization"]),
    text(&["--kernel", "-k"], "path"),
    opt(&["--kernel-arg"], "arg", Text, V1_2),
    flag(&["--read-only"]),
    flag(&["--init"]),
    text(&["--init-image"], "image"),
    text(&["--runtime"], "runtime"),
    text(&["--cap-add"], "cap"),
    text(&["--cap-drop"], "cap"),
    opt(&["--shm-size"], "size", Text, V1_0),
    opt(&["--masked-path"], "path", Text, V1_2),
    opt(&["--read-only-path"], "path", Text, V1_2),
];
pub(crate) const FETCH: &[Opt] = &[
    opt(&["--scheme"], "scheme", OneOf(&["http", "https", "auto"]), V0_12),
    opt(&["--max-concurrent-downloads"], "max-concurrent-downloads", Integer, V0_12),
];
pub(crate) const PROGRESS: &[Opt] =
    &[opt(&["--progress"], "type", OneOf(&["auto", "none", "ansi", "plain", "color"]), V0_12)];
pub(crate) const ATTACH: &[Opt] = &[flag(&["--attach", "-a"]), flag(&["--interactive", "-i"])];
pub(crate) const STOP: &[Opt] =
    &[text(&["--signal", "-s"], "signal"), opt(&["--time", "-t"], "time", Integer, V0_12)];
pub(crate) const KILL: &[Opt] = &[text(&["--signal", "-s"], "signal")];
pub(crate) const LOGS: &[Opt] =
    &[flag(&["--boot"]), flag(&["--follow", "-f"]), opt(&["-n"], "n", Integer, V0_12)];
pub(crate) const STATS: &[Opt] = &[flag(&["--no-stream"])];
pub(crate) const OUTPUT: &[Opt] = &[text(&["--output", "-o"], "output")];
pub(crate) const INPUT: &[Opt] = &[text(&["--input", "-i"], "input")];
pub(crate) const VERBOSE: &[Opt] = &[flag(&["--verbose", "-v"])];
pub(crate) const SYSTEM_START: &[Opt] = &[
    text(&["--app-root", "-a"], "app-root"),
    text(&["--install-root"], "install-root"),
    text(&["--log-root"], "log-root"),
    flag(&["--enable-kernel-install"]),
    flag(&["--disable-kernel-install"]),
    opt(&["--timeout"], "timeout", Number, V0_12),
];
pub(crate) const PREFIX: &[Opt] = &[text(&["--prefix", "-p"], "prefix")];
pub(crate) const NETWORK_CREATE: &[Opt] = &[
    flag(&["--internal"]),
    text(&["--label"], "label"),
    text(&["--option"], "option"),
    text(&["--plugin"], "plugin"),
    text(&["--subnet"], "subnet"),
    text(&["--subnet-v6"], "subnet-v6"),
];
pub(crate) const VOLUME_CREATE: &[Opt] =
    &[text(&["-s"], "size"), text(&["--label"], "label"), text(&["--opt"], "opt")];
