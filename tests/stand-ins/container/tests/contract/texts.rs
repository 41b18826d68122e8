//! Rows of sections 0.2, 1, 2 and 3: exit codes and texts of well-formed calls, in the order of their effects.
use std::fs;

use crate::world::{
    Is::{self, Any, Empty, Error, Exactly, Has},
    Row, World, can_run, play,
};

const UNKNOWN_STOP: &str =
    "internalError: \"failed to stop container\" (cause: \"notFound: \"container with ID nope not found\"\")";
const UNKNOWN_DELETE: &str = "internalError: \"failed to delete container\" (cause: \"notFound: \"container with ID nope not found\"\")";
const STOPPED_KILL: &str = "internalError: \"failed to kill container\" (cause: \"invalidState: \"no runtime client exists: container is stopped\"\")";
const RUNNING_DELETE: &str = "internalError: \"failed to delete container\" (cause: \"invalidState: \"container up is running and can not be deleted\"\")";
const UNKNOWN_LOGS: &str = "failed to get logs for container nope (cause: \"internalError: \"failed to open container logs: notFound: \"container with ID nope not found\"\"\")";

const fn bad(says: &'static str, arguments: &'static [&'static str], text: &'static str) -> Row {
    Row(says, arguments, 1, Empty, Has(text))
}

const fn good(says: &'static str, arguments: &'static [&'static str], stdout: Is) -> Row {
    Row(says, arguments, 0, stdout, Any)
}

pub(crate) const ROWS: &[Row] = &[
    // 0.2, texts.
    Row(
        "0.2 exec on unknown id",
        &["exec", "nope", "true"],
        1,
        Empty,
        Error("get failed: container nope not found"),
    ),
    Row(
        "0.2 start on unknown id",
        &["start", "nope"],
        1,
        Empty,
        Error("get failed: container nope not found"),
    ),
    Row("0.2 exec on stopped", &["exec", "down", "true"], 1, Empty, Error("container down is not running")),
    Row(
        "0.2 inspect unknown: sorted; nothing on stdout",
        &["inspect", "zz", "up", "aa"],
        1,
        Empty,
        Error("container not found: aa, zz"),
    ),
    Row("0.2 stop unknown", &["stop", "nope"], 1, Empty, Error(UNKNOWN_STOP)),
    Row("0.2 stop on stopped: success, prints id", &["stop", "down"], 0, Exactly("down\n"), Empty),
    Row("0.2 kill on stopped", &["kill", "down"], 1, Empty, Error(STOPPED_KILL)),
    Row("0.2 delete unknown", &["delete", "nope"], 1, Empty, Error(UNKNOWN_DELETE)),
    Row("0.2 delete unknown, with -f too", &["delete", "-f", "nope"], 1, Empty, Error(UNKNOWN_DELETE)),
    Row("0.2 delete running, no -f", &["rm", "up"], 1, Empty, Error(RUNNING_DELETE)),
    Row(
        "0.2 run, name taken (checked before any pull)",
        &["run", "--name", "up", "no.such/image"],
        1,
        Empty,
        Error("container with id up already exists"),
    ),
    Row(
        "0.2 create, name taken",
        &["create", "--name", "up", "busybox"],
        1,
        Empty,
        Error("container already exists: up"),
    ),
    bad(
        "0.2 create, name taken: only AFTER the image was pulled",
        &["create", "--name", "up", "no.such/image"],
        "404",
    ),
    Row("0.2 bad name", &["create", "--name", "-x"], 64, Empty, Any),
    Row(
        "3 names: at least 2 characters",
        &["create", "--name=x", "busybox"],
        1,
        Empty,
        Error("container ID x is not a valid container ID"),
    ),
    bad(
        "3 names: no slash",
        &["create", "--name=a/b", "busybox"],
        "container ID a/b is not a valid container ID",
    ),
    bad(
        "3 at most 63 since 1.2.0",
        &["create", "--name=a123456789012345678901234567890123456789012345678901234567890123", "busybox"],
        "is not a valid container ID",
    ),
    Row(
        "0.2 unknown network",
        &["create", "--network", "nonet", "busybox"],
        1,
        Empty,
        Error("network nonet not found"),
    ),
    Row(
        "1.8 `none` must be the only --network",
        &["create", "--network=none", "--network=default", "busybox"],
        1,
        Empty,
        Error("no other networks may be created along with network none"),
    ),
    Row("0.2 image inspect unknown", &["image", "inspect", "nope"], 1, Empty, Error("image not found: nope")),
    Row(
        "0.2 image tag unknown source",
        &["image", "tag", "nope", "x"],
        1,
        Empty,
        Error("image with reference nope"),
    ),
    bad(
        "0.2 image delete unknown",
        &["image", "delete", "nope"],
        "failed to delete one or more images: [\"nope\"]",
    ),
    good("0.2 with `-f` exit 0", &["image", "rm", "-f", "nope"], Empty),
    bad("0.2 run of missing image: pulls; a registry/HTTP error", &["run", "no.such/image"], "404 Not Found"),
    bad(
        "0.2 platform missing in local image",
        &["create", "--platform=linux/s390x", "busybox"],
        "platform linux/s390x",
    ),
    Row("C10 logs unknown ends in three quotes", &["logs", "nope"], 1, Empty, Error(UNKNOWN_LOGS)),
    bad(
        "C9 a container that was never started has no log file",
        &["logs", "down"],
        "failed to open container logs",
    ),
    good("1.4 logs works on stopped; trailing newlines trimmed", &["logs", "ran"], Exactly("one\ntwo\n")),
    good("1.4 logs -n", &["logs", "-n", "1", "ran"], Exactly("two\n")),
    bad("0.2 missing executable", &["exec", "up", "foo"], "failed to find target executable foo"),
    bad(
        "8.3 everything after the id is the command",
        &["exec", "up", "-i", "sh"],
        "failed to find target executable -i",
    ),
    bad("8.4 `exec N -- cmd` tries `--`", &["exec", "up", "--", "ls"], "failed to find target executable --"),
    good("0.1 a `--` BEFORE the id is skipped", &["exec", "--", "up", "echo", "x"], Exactly("x\n")),
    good(
        "C1 and all behind it is plain",
        &["exec", "--", "up", "echo", "---x", "-=y"],
        Exactly("---x -=y\n"),
    ),
    good("0.1 --help behind the id is the command's", &["exec", "up", "echo", "--help"], Exactly("--help\n")),
    Row(
        "C10 run of a missing program",
        &["run", "--name", "bad-run", "busybox", "foo"],
        1,
        Empty,
        Has("failed to find target executable foo"),
    ),
    bad(
        "1.2 if start fails, run deletes the container",
        &["inspect", "bad-run"],
        "container not found: bad-run",
    ),
    bad("0.2 stats unknown", &["stats", "--no-stream", "--format=json", "nope"], "no such container: nope"),
    // 1.3, lifecycle.
    good("1.3 start of running: prints id, exit 0", &["start", "up"], Exactly("up\n")),
    Row(
        "1.3 start -a of running",
        &["start", "-a", "up"],
        1,
        Empty,
        Error("attach is currently unsupported on already running containers"),
    ),
    good("1.4 list hides all but running without -a", &["list", "-q"], Exactly("up\n")),
    good(
        "1.4 -q --format json gives JSON",
        &["list", "-q", "--format", "json"],
        Has("[{\"configuration\":{"),
    ),
    good(
        "1.2 stdout of create: the id only",
        &["create", "--name", "life", "busybox", "sh", "-c", "exit 3"],
        Exactly("life\n"),
    ),
    Row("1.3 attached start exits with program's code", &["start", "-a", "life"], 3, Empty, Empty),
    good("1.3 detached start prints the id", &["start", "life"], Exactly("life\n")),
    good("1.3 duplicates collapse", &["delete", "-f", "life", "life"], Exactly("life\n")),
    good(
        "1.2 stdout of run -d: the id only",
        &[
            "run",
            "-d",
            "--name=fast",
            "busybox",
            "sh",
            "-c",
            "trap 'exit 0' TERM; while :; do sleep 0.1; done",
        ],
        Exactly("fast\n"),
    ),
    good("1.3 stop prints each stopped id", &["stop", "fast"], Exactly("fast\n")),
    good("1.3 start again", &["start", "fast"], Exactly("fast\n")),
    good(
        "1.3 kill prints ids; SIG is KILL | SIGKILL | 9",
        &["kill", "-s", "SIGKILL", "fast"],
        Exactly("fast\n"),
    ),
    bad("1.3 an unknown signal", &["kill", "-s", "NOPE", "up"], "NOPE"),
    good("1.3 KILL waits and cleans up (>=1.0)", &["delete", "fast"], Exactly("fast\n")),
    Row(
        "0.2 run (attached): program's code",
        &["run", "--rm", "busybox", "sh", "-c", "exit 42"],
        42,
        Empty,
        Empty,
    ),
    Row(
        "0.2 program killed by signal N: 128+N",
        &["exec", "up", "sh", "-c", "kill -9 $$"],
        137,
        Empty,
        Empty,
    ),
    good("1.5 -d prints the container id", &["exec", "-d", "up", "true"], Exactly("up\n")),
    good(
        "1.5 `--ulimit` on exec is ignored",
        &["exec", "--ulimit", "nofile=7", "up", "sh", "-c", "[ $(ulimit -n) != 7 ]"],
        Empty,
    ),
    good("8.22 no -i: stdin is not read", &["exec", "up", "cat"], Empty),
    bad("8.22 `-it` with a non-tty fd 0 fails", &["exec", "-it", "up", "true"], "Error: "),
    bad("1.5 unknown user name: exit 1 at start", &["exec", "-u", "ghost", "up", "true"], "ghost"),
    good(
        "1.5 a numeric uid that is not in passwd is fine",
        &["exec", "-u", "4321", "up", "id", "-u"],
        Exactly("4321\n"),
    ),
    good(
        "C5 a cwd that is not there is made",
        &["exec", "-w", "/new/one", "up", "pwd"],
        Exactly("/new/one\n"),
    ),
    good(
        "3 a bare -e KEY inherits the caller's",
        &["exec", "-e", "CALLERS", "-e", "UNSET", "up", "sh", "-c", "echo $CALLERS-${UNSET-none}"],
        Exactly("own-none\n"),
    ),
    good("C2 `-e=` is an empty value", &["exec", "-e=", "up", "true"], Any),
    // 1.2 and 3, values.
    bad(
        "8.11 memory floor, bare number = bytes",
        &["create", "-m", "512", "busybox"],
        "minimum memory amount allowed is 200 MiB (got ",
    ),
    bad("3 memory: invalid symbol", &["create", "-m", "1x", "busybox"], "invalid symbol: x"),
    bad("3 memory: invalid size", &["create", "-m", "much", "busybox"], "invalid size"),
    good("3 decimals are allowed", &["create", "--name=dec", "-m", "1.5g", "busybox"], Exactly("dec\n")),
    bad("8.12 labels with a second `=`", &["create", "-l", "k=a=b", "busybox"], "invalid label format k=a=b"),
    bad(
        "C3 `YQ==` leaves something behind the second",
        &["create", "--label=k=YQ==", "busybox"],
        "invalid label format",
    ),
    bad("8.12 an empty label", &["create", "-l", "=", "busybox"], "invalid label format"),
    good(
        "C3 ONE trailing `=` is dropped silently",
        &["create", "--name=lab", "--label=k=YWI=", "busybox"],
        Exactly("lab\n"),
    ),
    bad(
        "8.13 -v host path must exist",
        &["create", "-v", "/no/such:/x", "busybox"],
        "path '/no/such' does not exist",
    ),
    bad("8.13 `:` count", &["create", "-v", "/tmp:/x:ro:y", "busybox"], "invalid volume format"),
    bad(
        "8.13 --mount bind source must be a directory",
        &["create", "--mount", "type=bind,source={tmp}/file,target=/x", "busybox"],
        "is not a directory",
    ),
    bad(
        "8.13 unknown mount key",
        &["create", "--mount", "type=bind,foo=1,target=/x", "busybox"],
        "unknown directive foo when parsing mount",
    ),
    bad(
        "3 missing destination",
        &["create", "--mount", "type=bind,source={tmp}/dir", "busybox"],
        "mount destination cannot be empty",
    ),
    bad(
        "3 a key without value",
        &["create", "--mount", "type=bind,source", "busybox"],
        "invalid directive format missing value",
    ),
    bad("8.15 port 0", &["create", "-p", "127.0.0.1:0:80", "busybox"], "port"),
    bad("8.15 port 1", &["create", "-p", "8080:1", "busybox"], "port"),
    bad("8.15 count mismatch", &["create", "-p", "8000-8002:80-81", "busybox"], "count"),
    bad("8.15 bad proto", &["create", "-p", "8000:80/sctp", "busybox"], "sctp"),
    bad("8.15 overlap", &["create", "-p", "8000:80", "-p", "8000:81", "busybox"], "overlap"),
    bad(
        "3 not usable with `--network none`",
        &["create", "--network=none", "-p", "8000:80", "busybox"],
        "port",
    ),
    bad("8.16 caps: unknown name", &["create", "--cap-drop", "FOO", "busybox"], "FOO"),
    bad("8.17 --ulimit unknown", &["create", "--ulimit", "foo=1", "busybox"], "foo"),
    bad("8.17 --ulimit twice", &["create", "--ulimit=nofile=1", "--ulimit=nofile=2", "busybox"], "duplicate"),
    bad("8.17 soft>hard", &["create", "--ulimit=nofile=9:8", "busybox"], "exceed"),
    Row(
        "1.2 a named volume is made, with a warning on stderr",
        &["create", "--name=vol", "-v", "made:/data", "busybox"],
        0,
        Exactly("vol\n"),
        Has("named volume was automatically created"),
    ),
    bad(
        "1.8 volume in use",
        &["volume", "delete", "made"],
        "delete failed for one or more volumes: [\"made\"]",
    ),
    // 1.6, 1.7, 1.8.
    Row(
        "1.6 local->local",
        &["cp", "/a", "/b"],
        1,
        Empty,
        Error("one of source or destination must be a container reference (container_id:path)"),
    ),
    Row(
        "1.6 container->container",
        &["cp", "up:/a", "down:/b"],
        1,
        Empty,
        Error("copying between containers is not supported"),
    ),
    Row("1.6 a relative container path", &["cp", "up:a", "/b"], 1, Empty, Error("invalid path given: up:a")),
    Row("1.6 any extra `:`", &["cp", "/a:b:c", "up:/b"], 1, Empty, Error("invalid path given: /a:b:c")),
    bad(
        "0.2 cp into stopped",
        &["cp", "{tmp}/file", "down:/x"],
        "failed to copy into container down (cause: \"invalidState: \"container down is not running\"\")",
    ),
    bad("0.2 cp out of stopped", &["cp", "down:/x", "{tmp}/y"], "failed to copy from container down"),
    bad("1.6 source must exist", &["cp", "{tmp}/none", "up:/x"], "source path does not exist: "),
    bad("1.6 `file/`", &["cp", "{tmp}/file/", "up:/x"], "source path is not a directory: "),
    good(
        "1.6 since 1.1 the final destination is printed",
        &["cp", "{tmp}/file", "up:/tmp"],
        Has("/tmp/file"),
    ),
    good(
        "1.6 file mode forced 0644",
        &["exec", "up", "stat", "-c", "%a %u", "/tmp/file"],
        Exactly("644 0\n"),
    ),
    good("1.7 pull: nothing on stdout", &["image", "pull", "--progress", "none", "alpine"], Empty),
    good("1.7 list -q prints short names with tag", &["image", "ls", "-q"], Has("alpine:latest\n")),
    good(
        "1.7 tag prints DST",
        &["image", "tag", "alpine", "mine"],
        Exactly("docker.io/library/mine:latest\n"),
    ),
    Row(
        "C11 load: a missing file, unquoted",
        &["image", "load", "-i", "/x"],
        1,
        Empty,
        Has("file does not exist: [\"path\": /x]"),
    ),
    bad("8.25 a docker-archive -> 1", &["image", "load", "-i", "{tmp}/docker.tar"], "oci-layout"),
    good("1.7 save", &["image", "save", "-o", "{tmp}/oci.tar", "alpine"], Any),
    good(
        "1.7 delete prints deleted refs",
        &["image", "rm", "alpine"],
        Exactly("docker.io/library/alpine:latest\n"),
    ),
    good(
        "1.7 load prints one reference per image",
        &["image", "load", "--input", "{tmp}/oci.tar"],
        Exactly("docker.io/library/alpine:latest\n"),
    ),
    good("1.8 network create prints NAME", &["network", "create", "--internal", "inner"], Exactly("inner\n")),
    bad("1.8 exists", &["network", "create", "inner"], "network inner already exists"),
    bad("1.8 unknown", &["network", "inspect", "nonet"], "network not found: nonet"),
    bad(
        "1.8 delete missing",
        &["network", "rm", "nonet"],
        "failed to delete one or more networks: [\"nonet\"]",
    ),
    bad("1.8 builtin", &["network", "rm", "default"], "cannot delete a builtin network: default"),
    good("1.8 in use", &["create", "--name=netted", "--network=inner", "busybox"], Any),
    bad(
        "1.8 in use",
        &["network", "rm", "inner"],
        "cannot delete subnet inner with referring containers: netted",
    ),
    good(
        "1.1 status: exit 0 = running",
        &["system", "status", "--format", "json"],
        Has("\"status\":\"running\""),
    ),
    good(
        "2.4 version: slashes and keys",
        &["system", "version", "--format", "json"],
        Has("[{\"appName\":\"container\",\"buildType\":\"release\""),
    ),
    good(
        "1.6 export of a running one since 1.2.1; -o overwrites",
        &["export", "-o", "{tmp}/file", "up"],
        Any,
    ),
];

const OLD: &[Row] = &[
    good("0.2 inspect unknown before 1.0.0: prints `[]`, exit 0", &["inspect", "nope"], Exactly("[]\n")),
    good("2.2 `status` is a string", &["list", "--format", "json"], Has("\"status\":\"running\"")),
    Row(
        "C13 File does not exist on stdout",
        &["image", "load", "-i", "/x"],
        1,
        Exactly("File does not exist /x\n"),
        Empty,
    ),
    good(
        "C13 `Loaded images:` on stdout",
        &["image", "load", "-i", "{tmp}/old.tar"],
        Has("Loaded images:\n"),
    ),
    bad("0.2 export of a running one", &["export", "-o", "{tmp}/out.tar", "up"], "container is not stopped"),
    bad("8.25 `export -o` on an existing file", &["export", "-o", "{tmp}/file", "down"], "exists"),
    good("1.4 list hides the stopped", &["list", "-q"], Exactly("up\n")),
    Row(
        "0.2 0.8-0.12 image inspect prints found ones, exit 1",
        &["image", "inspect", "nope", "busybox"],
        1,
        Has("\"name\" : \"docker.io\\/library\\/busybox:latest\""),
        Has("image inspect failed"),
    ),
    Row(
        "C13 image delete prints `Reclaimed ...` on stdout",
        &["image", "rm", "-f", "nope"],
        0,
        Has("Reclaimed"),
        Empty,
    ),
];

fn prepared(version: &'static str) -> World {
    let world = World::new(version);
    fs::write(world.path("file"), "text").unwrap();
    fs::create_dir(world.path("dir")).unwrap();
    let mut docker = tar::Builder::new(fs::File::create(world.path("docker.tar")).unwrap());
    docker.append_path_with_name(world.path("file"), "manifest.json").unwrap();
    docker.into_inner().unwrap();
    world.up("up");
    world.ok(&["create", "--name", "down", "busybox"]);
    world.ok(&["run", "--name", "ran", "busybox", "sh", "-c", "echo one; echo two; echo; echo"]);
    world.ok(&["image", "save", "-o", "{tmp}/old.tar", "busybox"]);
    world
}

#[test]
fn the_texts_of_1_2_are_those_of_the_reference() {
    if can_run() {
        play(&prepared("1.2"), ROWS);
    }
}

#[test]
fn the_texts_of_0_12_differ_where_the_reference_says() {
    if can_run() {
        play(&prepared("0.12"), OLD);
    }
}
