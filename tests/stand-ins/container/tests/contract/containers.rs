//! What a configuration does inside, and how it is shown (reference 1.2, 2, 3 and 5).
use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::world::{World, can_run};

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn json_since_1_0_is_sorted_and_nested_under_status() {
    if !can_run() {
        return;
    }
    let world = World::new("1.2");
    fs::create_dir(world.path("dir")).unwrap();
    world.ok(&[
        "run",
        "-d",
        "--name=ab",
        "-l",
        "a.b=c",
        "-m",
        "300m",
        "-c",
        "2",
        "-u",
        "1000:1000",
        "--tmpfs",
        "/tmp",
        "--mount=type=bind,source={tmp}/dir,target=/work,readonly",
        "-p",
        "127.0.0.1:18237:80",
        "--ulimit=nofile=64:128",
        "--init",
        "--read-only",
        "--cap-drop=all",
        "--workdir=/work",
        "busybox",
        "sleep",
        "100",
    ]);
    let text = world.ok(&["list", "--format", "json"]);
    assert_eq!(text.lines().count(), 1, "compact");
    assert!(
        text.starts_with("[{\"configuration\":{\"capAdd\":[],\"capDrop\":[\"ALL\"],\"creationDate\":\"20"),
        "{text}"
    );
    assert!(text.contains("\"reference\":\"docker.io\\/library\\/busybox:latest\""), "{text}");
    let all: Value = serde_json::from_str(&text).unwrap();
    let one = &all[0];
    assert_eq!(keys(one), ["configuration", "id", "status"]);
    assert_eq!(keys(&one["status"]), ["networks", "startedDate", "state"]);
    let configuration = &one["configuration"];
    assert_eq!(configuration["labels"], json!({"a.b": "c"}));
    assert_eq!(configuration["resources"], json!({"cpuOverhead": 1, "cpus": 2, "memoryInBytes": 300 << 20}));
    assert_eq!(configuration["initProcess"]["user"], json!({"raw": {"userString": "1000:1000"}}));
    assert_eq!(
        configuration["initProcess"]["rlimits"],
        json!([{"hard": 128, "limit": "RLIMIT_NOFILE", "soft": 64}])
    );
    assert_eq!(configuration["mounts"][0]["type"], json!({"tmpfs": {}}));
    assert_eq!(configuration["mounts"][1]["options"], json!(["ro"]));
    assert_eq!(
        configuration["publishedPorts"],
        json!([{"containerPort": 80, "count": 1, "hostAddress": "127.0.0.1", "hostPort": 18237, "proto": "tcp"}])
    );
    assert_eq!((&configuration["useInit"], &configuration["readOnly"]), (&json!(true), &json!(true)));
    assert!(one["status"]["networks"][0]["ipv4Address"].as_str().unwrap().starts_with("192.168.64."));
    assert!(one["status"]["startedDate"].as_str().unwrap().ends_with('Z'));
    assert!(world.ok(&["inspect", "ab"]).starts_with("[\n  {\n    \"configuration\" : {\n"));
    world.ok(&["stop", "ab"]);
    assert_eq!(world.json(&["inspect", "ab"])[0]["status"], json!({"networks": [], "state": "stopped"}));
}

#[test]
fn json_before_1_0_is_flat_and_its_dates_are_numbers() {
    if !can_run() {
        return;
    }
    let world = World::new("0.12");
    world.up("ab");
    let text = world.ok(&["list", "--format", "json"]);
    let all: Value = serde_json::from_str(&text).unwrap();
    let one = &all[0];
    assert_eq!(keys(one), ["configuration", "networks", "startedDate", "status"]);
    assert_eq!(one["status"], "running");
    assert!(one["startedDate"].as_f64().unwrap() > 7.0e8);
    assert!(one["configuration"].get("creationDate").is_none());
    assert!(one["networks"][0].get("variant").is_none());
    let image = world.json(&["image", "inspect", "busybox"]);
    assert_eq!(keys(&image[0]), ["index", "name", "variants"]);
    let images = world.json(&["image", "list", "--format=json"]);
    assert_eq!(keys(&images[0]), ["descriptor", "fullSize", "reference"]);
}

#[test]
fn network_none_has_no_interface_but_the_loopback() {
    if !can_run() {
        return;
    }
    let world = World::new("1.2");
    world.ok(&["run", "-d", "--name=ab", "--network", "none", "busybox", "tail", "-f", "/dev/null"]);
    assert_eq!(world.ok(&["exec", "ab", "ls", "/sys/class/net"]), "lo\n");
    assert_eq!(world.ok(&["exec", "ab", "cat", "/etc/hosts"]), "127.0.0.1 localhost\n");
    let one = &world.json(&["inspect", "ab"])[0];
    assert_eq!((&one["status"]["networks"], &one["configuration"]["networks"]), (&json!([]), &json!([])));
}

#[test]
fn capabilities_are_those_of_the_container_for_exec_too() {
    if !can_run() {
        return;
    }
    let world = World::new("1.2");
    let script = "grep -E '^Cap(Eff|Bnd)' /proc/self/status";
    let of = |options: &[&str]| {
        let run = [&["run", "-d", "--name=ab"], options, &["busybox", "tail", "-f", "/dev/null"]].concat();
        world.ok(&run);
        let said = world.ok(&["exec", "ab", "sh", "-c", script]);
        world.ok(&["delete", "-f", "ab"]);
        said.split_whitespace().skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(of(&[]), ["00000000a80425fb", "00000000a80425fb"]);
    assert_eq!(of(&["--cap-drop=ALL"]), ["0000000000000000", "0000000000000000"]);
    assert_eq!(of(&["--cap-drop=ALL", "--cap-add=cap_kill"]), ["0000000000000020", "0000000000000020"]);
    assert_eq!(of(&["--user=1000", "--cap-drop=ALL"])[0], "0000000000000000");
}

#[test]
fn a_read_only_root_and_mounts_hold() {
    if !can_run() {
        return;
    }
    let world = World::new("1.2");
    fs::create_dir(world.path("dir")).unwrap();
    fs::write(world.path("dir/file"), "host").unwrap();
    world.ok(&[
        "run",
        "-d",
        "--name=ab",
        "--read-only",
        "--tmpfs=/tmp",
        "-v",
        "{tmp}/dir:/ro:ro",
        "-v",
        "{tmp}/dir:/rw",
        "--mount=type=tmpfs,dst=/small,size=1m",
        "busybox",
        "tail",
        "-f",
        "/dev/null",
    ]);
    let inside = |script: &str| world.run(&["exec", "ab", "sh", "-c", script]).status.success();
    assert!(!inside("touch /x"));
    assert!(inside("touch /tmp/x"));
    assert!(inside("test $(cat /ro/file) = host && ! touch /ro/x"));
    assert!(inside("echo inside > /rw/new"));
    assert_eq!(fs::read_to_string(world.path("dir/new")).unwrap(), "inside\n");
    assert!(!inside("head -c 2000000 /dev/zero > /small/x"));
}

#[test]
fn the_root_filesystem_persists_and_a_tmpfs_does_not() {
    if !can_run() {
        return;
    }
    let world = World::new("1.2");
    world.ok(&["run", "-d", "--name=ab", "--init", "--tmpfs=/tmp", "busybox", "sleep", "1000"]);
    world.ok(&["exec", "ab", "sh", "-c", "echo kept > /kept; echo gone > /tmp/gone"]);
    world.ok(&["stop", "ab"]);
    world.ok(&["start", "ab"]);
    assert_eq!(world.ok(&["exec", "ab", "cat", "/kept"]), "kept\n");
    world.ok(&["exec", "ab", "test", "!", "-e", "/tmp/gone"]);
}

#[test]
fn a_published_port_reaches_the_address_of_the_container() {
    if !can_run() {
        return;
    }
    let world = World::new("1.2");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let publish = format!("127.0.0.1:{port}:8080");
    world.ok(&[
        "run",
        "-d",
        "--name=ab",
        "-p",
        &publish,
        "busybox",
        "sh",
        "-c",
        "while :; do echo served | nc -l -p 8080; done",
    ]);
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let mut text = String::new();
        let answered = TcpStream::connect(("127.0.0.1", port)).and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(b"x")?;
            stream.shutdown(std::net::Shutdown::Write)?;
            stream.read_to_string(&mut text)
        });
        if answered.is_ok() && text == "served\n" {
            break;
        }
        assert!(Instant::now() < end, "never served");
    }
    // 3: two containers with one host port fail only at start.
    world.ok(&["create", "--name=cd", "-p", &publish, "busybox", "sleep", "10"]);
    assert_eq!(world.run(&["start", "cd"]).status.code(), Some(1));
}

#[test]
fn a_volume_is_for_one_running_container() {
    if !can_run() {
        return;
    }
    let world = World::new("1.2");
    world.ok(&["run", "-d", "--name=ab", "-v", "vol:/data", "busybox", "tail", "-f", "/dev/null"]);
    assert_eq!(world.ok(&["exec", "ab", "ls", "/data"]), "lost+found\n");
    world.ok(&["create", "--name=cd", "-v", "vol:/data", "busybox", "true"]);
    assert_eq!(world.run(&["start", "cd"]).status.code(), Some(1));
    world.ok(&["kill", "ab"]);
    world.ok(&["start", "cd"]);
}

#[test]
fn remove_at_the_end_removes_and_logs_are_those_of_the_first_process() {
    if !can_run() {
        return;
    }
    let world = World::new("1.2");
    world.ok(&["run", "--rm", "--name=ab", "busybox", "true"]);
    assert_eq!(world.ok(&["list", "-aq"]), "");
    world.ok(&[
        "run",
        "-d",
        "--name=cd",
        "busybox",
        "sh",
        "-c",
        "echo $((RANDOM)); echo err >&2; tail -f /dev/null",
    ]);
    world.ok(&["exec", "cd", "echo", "never logged"]);
    // Two streams have no order between them.
    let is_logged = || {
        let log = world.ok(&["logs", "cd"]);
        log.lines().count() == 2 && log.lines().any(|line| line == "err") && !log.contains("never")
    };
    let eventually = || {
        let end = Instant::now() + Duration::from_secs(5);
        while !is_logged() {
            assert!(Instant::now() < end, "{:?}", world.ok(&["logs", "cd"]));
        }
    };
    eventually();
    world.ok(&["kill", "cd"]);
    world.ok(&["start", "cd"]);
    // Truncated at each start.
    eventually();
}

#[test]
fn the_entry_point_and_the_command_follow_the_rule() {
    if !can_run() {
        return;
    }
    let world = World::new("1.2");
    assert_eq!(world.ok(&["run", "--rm", "--entrypoint", "echo", "busybox"]), "\n");
    assert_eq!(world.ok(&["run", "--rm", "--entrypoint=/bin/echo", "--", "busybox", "--", "-n"]), "-- -n\n");
    assert_eq!(
        world.ok(&[
            "run",
            "--rm",
            "-w",
            "/usr",
            "-e",
            "A=b c",
            "busybox",
            "sh",
            "-c",
            "pwd; echo $A $0 $HOME"
        ]),
        "/usr\nb c sh /root\n"
    );
}

#[test]
fn more_memory_than_asked_for_is_not_to_be_had() {
    if !can_run() || !fs::exists("/sys/fs/cgroup/memory/memory.limit_in_bytes").unwrap() {
        return;
    }
    let world = World::new("1.2");
    world.ok(&["run", "-d", "--name=ab", "-m", "200m", "busybox", "tail", "-f", "/dev/null"]);
    let output =
        world.run(&["exec", "ab", "sh", "-c", "head -c 400000000 /dev/zero | tail -c 399999999 | wc -c"]);
    assert_ne!(output.stdout, b"399999999\n");
}

#[test]
fn an_exported_tree_and_a_saved_image_can_be_read() {
    if !can_run() {
        return;
    }
    let world = World::new("1.2");
    world.ok(&["run", "--name=ab", "busybox", "sh", "-c", "echo kept > /kept; chmod 700 /kept"]);
    let tar = world.run(&["export", "ab"]).stdout;
    let mut archive = tar::Archive::new(tar.as_slice());
    let found =
        archive.entries().unwrap().map(Result::unwrap).find(|entry| entry.path().unwrap().ends_with("kept"));
    assert_eq!(found.unwrap().header().mode().unwrap() & 0o777, 0o700);
    // An image whose index names nothing is `untagged@`; it comes from stdin.
    world.ok(&["image", "save", "-o", "{tmp}/all.tar", "busybox"]);
    let directory = world.path("layout");
    fs::create_dir(&directory).unwrap();
    assert!(
        Command::new("tar")
            .arg("-xf")
            .arg(world.path("all.tar"))
            .arg("-C")
            .arg(&directory)
            .status()
            .unwrap()
            .success()
    );
    let mut index: Value =
        serde_json::from_str(&fs::read_to_string(directory.join("index.json")).unwrap()).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
    index["manifests"][0].as_object_mut().unwrap().remove("annotations");
    fs::write(directory.join("index.json"), index.to_string()).unwrap();
    let packed =
        Command::new("tar").arg("-cf").arg("-").arg("-C").arg(&directory).arg(".").output().unwrap().stdout;
    let output = world.fed(&["image", "load"], &packed);
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!("untagged@{digest}\n"),
        "{:?}",
        String::from_utf8_lossy(&output.stderr)
    );
    // A blob that is not what its name says.
    let blob = fs::read_dir(directory.join("blobs/sha256")).unwrap().next().unwrap().unwrap().path();
    fs::set_permissions(&blob, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&blob, "other").unwrap();
    let packed =
        Command::new("tar").arg("-cf").arg("-").arg("-C").arg(&directory).arg(".").output().unwrap().stdout;
    assert_eq!(world.fed(&["image", "load"], &packed).status.code(), Some(1));
}

#[test]
fn stats_take_two_seconds_and_leave_out_the_stopped() {
    if !can_run() {
        return;
    }
    let world = World::new("1.2");
    world.up("ab");
    world.ok(&["create", "--name=cd", "busybox"]);
    let start = Instant::now();
    let all = world.json(&["stats", "--no-stream", "--format", "json", "ab", "cd"]);
    assert!(start.elapsed() >= Duration::from_secs(2));
    assert_eq!(all.as_array().unwrap().len(), 1);
    assert_eq!((&all[0]["id"], &all[0]["numProcesses"]), (&json!("ab"), &json!(1)));
    assert!(all[0]["memoryUsageBytes"].as_u64().unwrap() > 0);
}
