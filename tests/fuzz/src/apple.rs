//! One input of each kind for what the Apple backend reads, of each version of `container`.
use serde_json::json;

use crate::seeds::{labelled, with_data};

pub(crate) fn answers() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for labels in labelled() {
        let configuration = json!({
            "id": "agentkernel-demo", "labels": labels, "readOnly": true, "capAdd": ["CAP_KILL"], "capDrop": ["ALL"],
            "image": {"reference": "docker.io/library/busybox:latest", "descriptor": {"digest": "sha256:1"}},
            "initProcess": {"environment": ["A=1"], "rlimits": [{"limit": "RLIMIT_NOFILE", "soft": 1, "hard": 2}]},
            "resources": {"cpus": 2, "memoryInBytes": 1 << 30}, "networks": [{"network": "default"}],
        });
        let new = json!([{
            "id": "agentkernel-demo", "configuration": configuration,
            "status": {"state": "running", "networks": [{"ipv4Address": "192.168.64.3/24"}]},
        }]);
        let old = json!([{"status": "stopped", "configuration": configuration, "networks": [{"address": "10.0.0.2/8"}]}]);
        all.extend([new, old]);
    }
    let descriptor = json!({"digest": "sha256:1", "size": 9});
    let built = json!({"created": "2025-03-10T00:00:00Z", "config": {"User": "1", "WorkingDir": "/", "Labels": {"a": "b"}}});
    let variant = json!({"platform": {"os": "linux", "architecture": "arm64"}, "size": 9, "config": built});
    all.extend([
        json!([{"id": "1", "configuration": {"name": "docker.io/a/b:1", "descriptor": descriptor}, "variants": [variant]}]),
        json!([{"name": "docker.io/library/b:1", "index": descriptor, "variants": [variant]}]),
        json!([{"reference": "b:1", "descriptor": descriptor, "fullSize": "4.1 MB"}]),
        json!([{"id": "v", "configuration": {"name": "v", "labels": {"agentkernel.volume": "v"}}}]),
        json!([{"id": "agentkernel-demo", "cpuUsageUsec": 1, "memoryUsageBytes": 2, "numProcesses": 3}]),
        json!({"status": "running"}),
    ]);
    all.iter().map(|answer| answer.to_string().into_bytes()).collect()
}

pub(crate) fn words() -> Vec<Vec<u8>> {
    [
        "container CLI version 1.2.2 (build: release, commit: 1a2b3c4)\n",
        "container CLI version 1.0.0-23-g7b94575 (build: debug)",
        "[1/2] Fetching image 45% (3 of 7 blobs)",
        "Error: get failed: container x not found",
        "Error: internalError: \"failed to list containers\" (cause: \"interrupted: \"XPC connection error: Connection invalid\"\")",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

pub(crate) fn archives() -> Vec<Vec<u8>> {
    let end = vec![0; 1024];
    let config = json!({"os": "linux", "architecture": "arm64", "rootfs": {"diff_ids": []}}).to_string();
    let manifest = json!([{"Config": "c.json", "RepoTags": ["a:b"], "Layers": []}]).to_string();
    let saved =
        [with_data("c.json", b'0', config.as_bytes()), with_data("manifest.json", b'0', manifest.as_bytes())];
    let index = json!({"manifests": [{"digest": format!("sha256:{}", "0".repeat(64)), "mediaType": "x"}]})
        .to_string();
    let layout = [
        with_data("oci-layout", b'0', b"{}"),
        with_data("index.json", b'0', index.as_bytes()),
        with_data(&format!("blobs/sha256/{}", "0".repeat(64)), b'0', b"{\"manifests\":[]}"),
    ];
    let root = with_data("./etc/passwd", b'0', b"root:x:0:0::/:/bin/sh\n");
    vec![
        [saved.concat(), end.clone()].concat(),
        [layout.concat(), end.clone()].concat(),
        [root, end].concat(),
        vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ]
}

pub(crate) fn inside() -> Vec<Vec<u8>> {
    [
        "\u{5}a\u{1e}0123456789abcdef run 7 8\u{1e}b\u{1e}0123456789abcdef code 3\u{1e}",
        "\u{1}\u{1e}x",
        "\u{9}plain",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
