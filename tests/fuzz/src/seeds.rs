//! One input of each kind for every target, made with the real types.
use std::collections::BTreeMap;

use agentkernel_guest::protocol::*;
use agentkernel_host::StateLabels;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

fn frames<F>(frames: &[F], encode: fn(&F, u32, &mut Vec<u8>)) -> Vec<Vec<u8>> {
    let (mut all, mut stream) = (Vec::new(), vec![5]);
    for (channel, frame) in (1..).zip(frames) {
        let mut bytes = Vec::new();
        encode(frame, channel, &mut bytes);
        stream.extend_from_slice(&bytes);
        // Kind and payload, as the target takes them.
        let mut one = vec![bytes.get(4).copied().unwrap_or_default()];
        one.extend(bytes.iter().skip(HEADER_LEN));
        all.push(one);
    }
    all.push(stream);
    all
}

fn failure() -> FromGuest {
    FromGuest::Failed(Failure::new(FailureCode::NotFound, 2, "it is not there"))
}

fn metadata() -> FromGuest {
    let kind = FileKind::File;
    FromGuest::Metadata(FileMetadata { kind, size: 9, mode: 0o644, uid: 1, gid: 2, modified: 3 })
}

fn command() -> FromGuest {
    FromGuest::Command(Box::new(CommandEntry {
        id: 1,
        argv: vec![b"sleep".to_vec(), b"9".to_vec()],
        exit: Some(Status::Signal(9)),
        running: true,
        detached: true,
        main: false,
        age_ms: 17,
    }))
}

pub(crate) fn from_guest() -> Vec<Vec<u8>> {
    let all = [
        FromGuest::Hello { version: VERSION, min_version: MIN_VERSION },
        FromGuest::Report(Box::new(Report {
            memory_bytes: Some(1 << 20),
            open_files: 64,
            ..Report::default()
        })),
        FromGuest::Pong(1),
        FromGuest::Started { id: 1 },
        FromGuest::Stdout(b"out".to_vec()),
        FromGuest::Stderr(b"err".to_vec()),
        FromGuest::Eof,
        FromGuest::Credit(4096),
        command(),
        FromGuest::Entry(DirectoryEntry { name: b"name".to_vec(), kind: FileKind::Symlink }),
        metadata(),
        FromGuest::Stats(ResourceStats { cpu_usec: Some(1), memory_bytes: None, pids: Some(2) }),
        FromGuest::Accepted { channel: GUEST_CHANNEL | 1 },
        FromGuest::Exited(Status::Code(3)),
        FromGuest::Done,
        failure(),
    ];
    frames(&all, FromGuest::encode)
}

/// What an honest guest answers to what the target asks, in its order; and a guest that refuses everything.
pub(crate) fn client() -> Vec<Vec<u8>> {
    let started = || FromGuest::Started { id: 1 };
    let data = || FromGuest::Stdout(b"data".to_vec());
    let exited = || FromGuest::Exited(Status::Code(0));
    let credit = || FromGuest::Credit(WINDOW);
    let (done, entry) = (
        || FromGuest::Done,
        || FromGuest::Entry(DirectoryEntry { name: b"name".to_vec(), kind: FileKind::File }),
    );
    let accepted = FromGuest::Accepted { channel: GUEST_CHANNEL | 1 };
    let answers: [Vec<FromGuest>; 15] = [
        vec![started(), data(), FromGuest::Stderr(b"err".to_vec()), exited()],
        vec![started(), credit(), data(), exited()],
        vec![command(), done()],
        vec![started(), data(), exited()],
        vec![FromGuest::Stats(ResourceStats::default()), done()],
        vec![started(), data(), done()],
        vec![credit(), done()],
        vec![metadata(), done()],
        vec![entry(), entry(), done()],
        vec![done()],
        vec![done()],
        vec![started(), data(), done()],
        vec![credit(), done()],
        vec![started(), data(), FromGuest::Eof, done()],
        vec![started(), accepted, done()],
    ];
    let (mut all, mut refused) = (vec![2], vec![0]);
    for (channel, frames) in (1..).zip(&answers) {
        let mut one = vec![1];
        for frame in frames {
            frame.encode(channel, &mut one);
        }
        all.extend_from_slice(&one[1..]);
        failure().encode(channel, &mut refused);
    }
    data().encode(GUEST_CHANNEL | 1, &mut all);
    done().encode(GUEST_CHANNEL | 1, &mut all);
    FromGuest::Pong(0).encode(0, &mut all);
    let mut hello = vec![0x83];
    FromGuest::Hello { version: VERSION, min_version: 1 }.encode(0, &mut hello);
    vec![all, refused, hello]
}

pub(crate) fn to_guest() -> Vec<Vec<u8>> {
    let path = || b"/tmp/file".to_vec();
    let all = [
        ToGuest::Hello { version: VERSION, min_version: MIN_VERSION },
        ToGuest::Configure(Box::new(Configure {
            lease: true,
            deadline_ms: Some(1000),
            user: Some(b"user".to_vec()),
            cwd: Some(b"/".to_vec()),
            env: vec![b"A=b".to_vec()],
            ..Configure::default()
        })),
        ToGuest::Ping(1),
        ToGuest::Shutdown { grace_ms: 5 },
        ToGuest::Request(Request::Spawn(Spawn {
            argv: vec![b"/none".to_vec(), b"\xff".to_vec()],
            env: vec![b"A=b".to_vec()],
            cwd: Some(b"/".to_vec()),
            user: Some(b"1:1".to_vec()),
            tty: Some((24, 80)),
            stdin: true,
            timeout_ms: Some(9),
            main: false,
            detached: true,
        })),
        ToGuest::Request(Request::Attach { id: 1, replay: true }),
        ToGuest::Request(Request::Commands),
        ToGuest::Request(Request::Open { path: path() }),
        ToGuest::Request(Request::Write { path: path(), mode: Some(0o600), parents: true }),
        ToGuest::Request(Request::Metadata { path: path() }),
        ToGuest::Request(Request::ReadDir { path: path() }),
        ToGuest::Request(Request::CreateDir { path: path(), recursive: true }),
        ToGuest::Request(Request::RemovePath { path: path(), recursive: false }),
        ToGuest::Request(Request::Pack { path: path() }),
        ToGuest::Request(Request::Unpack { path: path() }),
        ToGuest::Request(Request::Connect { port: 80 }),
        ToGuest::Request(Request::Listen { address: ([127, 0, 0, 1], 80).into() }),
        ToGuest::Request(Request::Stats),
        ToGuest::Data(b"data".to_vec()),
        ToGuest::Eof,
        ToGuest::Credit(4096),
        ToGuest::Close,
        ToGuest::Signal(15),
        ToGuest::Resize { rows: 24, columns: 80 },
        ToGuest::Detach,
    ];
    frames(&all, ToGuest::encode)
}

/// Makes a tar header, with its checksum.
fn header(name: &str, kind: u8, size: u64, target: &str) -> Vec<u8> {
    let mut block = vec![0; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0001750\0");
    put(116, b"0001750\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000007\0");
    put(148, b"        ");
    put(156, &[kind]);
    put(157, target.as_bytes());
    put(257, b"ustar\x0000");
    let sum = block.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

pub(crate) fn with_data(name: &str, kind: u8, data: &[u8]) -> Vec<u8> {
    let mut all = header(name, kind, data.len() as u64, "");
    all.extend_from_slice(data);
    all.resize(all.len().next_multiple_of(512), 0);
    all
}

pub(crate) fn archives() -> Vec<Vec<u8>> {
    let end = vec![0; 1024];
    let parts = [
        with_data("file", b'0', b"content"),
        header("directory/", b'5', 0, ""),
        header("link", b'2', 0, "../up"),
        header("hard", b'1', 0, "file"),
        [with_data("pax", b'x', b"13 path=long\n12 size=9999\n"), header("short", b'0', 0, "")].concat(),
        [with_data("gnu", b'L', b"a/long/name\0"), header("short", b'0', 0, "")].concat(),
        header("fifo", b'6', 0, ""),
    ];
    let mut all = parts.iter().map(|part| [part.as_slice(), &end].concat()).collect::<Vec<_>>();
    all.push([parts.concat(), end].concat());
    all
}

fn state(config: Value) -> Option<StateLabels> {
    Some(StateLabels {
        name: "demo".parse().ok()?,
        run_id: "0123456789abcdef".to_owned(),
        config: serde_json::from_value(config).ok()?,
        owner: Some(agentkernel_core::Owner::new("host", "boot", 1, 2, 3, 0)),
        created: 10,
        deadline: Some(20),
    })
}

/// The labels of a small sandbox and of one with everything.
pub(crate) fn labelled() -> Vec<BTreeMap<String, String>> {
    let everything = json!({
        "image": "busybox", "vcpus": 1500, "memory_mb": 64, "pids": 16, "open_files": 128,
        "read_only": true, "labels": {"a": "b"}, "lifetime": "detached", "network": "full",
    });
    let states = [json!({"image": "busybox"}), everything];
    states.into_iter().filter_map(state).filter_map(|state| state.encode().ok()).collect()
}

pub(crate) fn labels() -> Vec<Vec<u8>> {
    let lines = |labels: &BTreeMap<String, String>| {
        let get = |name| labels.get(name).cloned().unwrap_or_default();
        let (version, name) = (get(StateLabels::VERSION_LABEL), get(StateLabels::NAME_LABEL));
        let state = get(StateLabels::STATE_LABEL);
        let json = URL_SAFE_NO_PAD.decode(&state).unwrap_or_default();
        let head = format!("{version}\n{name}\n");
        [[head.as_bytes(), state.as_bytes()].concat(), [head.as_bytes(), &json].concat()]
    };
    labelled().iter().flat_map(lines).collect()
}

pub(crate) fn containers() -> Vec<Vec<u8>> {
    let container = |labels: &BTreeMap<String, String>| {
        json!({
            "Id": "ab".repeat(32),
            "Name": "/agentkernel-demo",
            "Image": "sha256:1",
            "State": {"Status": "exited", "ExitCode": 137, "Pid": 7},
            "Config": {"Labels": labels, "NetworkDisabled": true},
            "HostConfig": {
                "Memory": 67_108_864, "MemorySwap": 67_108_864, "NanoCpus": 1_500_000_000i64, "PidsLimit": 16,
                "Ulimits": [{"Name": "nofile", "Soft": 128, "Hard": 128}], "ReadonlyRootfs": true,
                "NetworkMode": "none", "CapDrop": ["ALL"], "CapAdd": ["CAP_KILL"],
                "SecurityOpt": ["no-new-privileges"],
                "Mounts": [{"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": true}],
            },
            "Mounts": [{"Destination": "/b"}],
            "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "172.17.0.2"}}},
        })
        .to_string()
        .into_bytes()
    };
    labelled().iter().map(container).collect()
}

fn texts(all: &[Value]) -> Vec<Vec<u8>> {
    all.iter().map(|one| one.to_string().into_bytes()).collect()
}

pub(crate) fn systems() -> Vec<Vec<u8>> {
    texts(&[json!({
        "OSType": "linux", "KernelVersion": "6.1.0", "ServerVersion": "20.10.24", "MemoryLimit": true,
        "SwapLimit": true, "CpuCfsQuota": true, "PidsLimit": true, "Warnings": ["No blkio support"],
        "SecurityOptions": ["name=seccomp,profile=default", "name=rootless"],
    })])
}

pub(crate) fn images() -> Vec<Vec<u8>> {
    texts(&[json!({
        "Id": "sha256:1", "RepoDigests": ["busybox@sha256:2"], "Created": "2024-02-29T12:00:00.5Z", "Size": 4,
        "Config": {"User": "user", "WorkingDir": "/work"},
    })])
}

pub(crate) fn progress() -> Vec<Vec<u8>> {
    let line = |id: &str, status: &str| {
        json!({"id": id, "status": status, "progressDetail": {"current": 5, "total": 10}}).to_string()
    };
    let all = ["Pulling fs layer", "Waiting", "Downloading", "Download complete", "Pull complete"];
    let one = all.map(|status| line("a", status));
    let several = ["a", "b", "c", "d"].map(|id| line(id, "Downloading"));
    [one.join("\n"), several.join("\n"), line("a", "Already exists")].map(String::into_bytes).to_vec()
}

pub(crate) fn loads() -> Vec<Vec<u8>> {
    let mut gzip = vec![0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3, b'n', 0, 1, 4, 0, 0xfb, 0xff];
    gzip.extend_from_slice(b"file");
    vec![
        b"Loaded image: localhost:5000/a/busybox:1".to_vec(),
        format!("Loaded image ID: sha256:{}", "ab".repeat(32)).into_bytes(),
        with_data("manifest.json", b'0', b"[]"),
        header("bin/", b'5', 0, ""),
        gzip,
    ]
}

pub(crate) fn archive_heads() -> Vec<Vec<u8>> {
    let head =
        |mode: u32, block: Vec<u8>| [&mode.to_le_bytes()[..], &5i64.to_le_bytes()[..], &block].concat();
    vec![head(1 << 27, header("passwd", b'2', 0, "../x")), head(0o644, header("passwd", b'0', 0, ""))]
}

pub(crate) fn context_files() -> Vec<Vec<u8>> {
    let endpoint = json!({"Name": "fuzz", "Endpoints": {"docker": {"Host": "unix:///run/docker.sock"}}});
    texts(&[json!({"currentContext": "fuzz", "auths": {}}), endpoint])
}

fn words(all: &[&str]) -> Vec<Vec<u8>> {
    all.iter().map(|one| one.as_bytes().to_vec()).collect()
}

pub(crate) fn addresses() -> Vec<Vec<u8>> {
    words(&["unix:///run/docker.sock", "tcp://127.0.0.1:2375", "npipe:////./pipe/x", &"ab".repeat(32)])
}

pub(crate) fn values() -> Vec<Vec<u8>> {
    words(&[
        "pids",
        "1.5",
        "crates.io",
        "localhost:5000/a/busybox:1.2@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        "root-container",
        "CAP_NET_ADMIN",
        "demo-1",
        "/tmp/./a//b",
        "SIGTERM",
        "1000:1000",
        "127.0.0.1:8080:80",
        "[::1]:8080:80",
        "NAME=value",
        r#"{"image":"busybox","vcpus":1500,"mounts":[{"source":"/a","target":"/b","read_only":true}]}"#,
    ])
}
