//! An engine that drops what it was asked for, or answers nonsense, late, or without end.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test says so by failing")]
#[path = "support/guest.rs"]
mod guest;
#[path = "support/scripted.rs"]
mod scripted;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use agentkernel_core::{Backend, Cpus, Error, ErrorKind, SandboxConfig, SandboxExt};
use agentkernel_docker::DockerBackend;
use scripted::{Answer, ID, ScriptedEngine, info, stat};
use serde_json::{Value, json};

/// A config with every restriction that is compared.
fn strict() -> SandboxConfig {
    let mut config = SandboxConfig::new("busybox");
    config.vcpus = Some(Cpus::from_milli(500).unwrap());
    config.memory_mb = Some(64);
    config.pids = Some(16);
    config.open_files = Some(128);
    config.read_only = Some(true);
    config.no_new_privileges = Some(true);
    config.syscall_filter = Some(true);
    config
}

async fn start(engine: &ScriptedEngine) -> Result<(), Error> {
    let config =
        guest::config().with_endpoint(engine.endpoint()).with_request_timeout(Duration::from_millis(500));
    let config = config.with_boot_timeout(Duration::from_secs(1));
    let backend = DockerBackend::connect(config).await?;
    let sandbox = backend.sandbox("x".parse().unwrap());
    sandbox.start(&strict()).await
}

fn nothing(_: &str, _: &str, _: &Value) -> Option<Answer> {
    None
}

#[tokio::test]
async fn an_engine_that_drops_a_restriction_is_refused_and_the_container_removed() {
    type Lie = fn(&mut Value);
    let lies: [(&str, Lie); 14] = [
        ("pids", |found| found["HostConfig"]["PidsLimit"] = Value::Null),
        ("memory_mb", |found| found["HostConfig"]["Memory"] = json!(0)),
        ("memory_mb", |found| found["HostConfig"]["MemorySwap"] = json!(-1)),
        ("vcpus", |found| found["HostConfig"]["NanoCpus"] = json!(0)),
        ("open_files", |found| found["HostConfig"]["Ulimits"] = Value::Null),
        ("read_only", |found| found["HostConfig"]["ReadonlyRootfs"] = json!(false)),
        ("no_new_privileges", |found| found["HostConfig"]["SecurityOpt"] = Value::Null),
        ("syscall_filter", |found| {
            found["HostConfig"]["SecurityOpt"] = json!(["no-new-privileges:true", "seccomp=unconfined"]);
        }),
        ("network", |found| found["Config"]["NetworkDisabled"] = json!(false)),
        ("network", |found| found["HostConfig"]["NetworkMode"] = json!("bridge")),
        ("cap_add", |found| found["HostConfig"]["CapDrop"] = Value::Null),
        ("cap_add", |found| found["HostConfig"]["Privileged"] = json!(true)),
        ("mounts", |found| found["HostConfig"]["Binds"] = json!(["/:/host"])),
        ("lifetime", |found| found["HostConfig"]["AutoRemove"] = json!(false)),
    ];
    for (field, lie) in lies {
        let engine = ScriptedEngine::start(nothing, lie);
        let error = start(&engine).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{field}: {error:?}");
        assert!(error.message().contains(&format!("`{field}`")), "{field}: {error}");
        assert!(engine.requests().contains(&format!("DELETE /containers/{ID}")), "{field}");
        assert!(!engine.requests().iter().any(|request| request.ends_with("/start")), "{field}");
    }
}

#[tokio::test]
async fn a_warning_is_refused_and_the_container_removed() {
    let warn = |method: &str, path: &str, _: &Value| {
        let create = method == "POST" && path == "/containers/create";
        create.then(|| Answer::Json(201, json!({"Id": ID, "Warnings": ["limitation discarded"]})))
    };
    let engine = ScriptedEngine::start(warn, |_| ());
    let error = start(&engine).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(engine.requests().contains(&format!("DELETE /containers/{ID}")));
}

#[tokio::test]
async fn an_id_that_is_a_path_is_never_used() {
    let lie = |method: &str, path: &str, _: &Value| {
        let create = method == "POST" && path == "/containers/create";
        create.then(|| Answer::Json(201, json!({"Id": "../../images/prune?x=", "Warnings": []})))
    };
    let engine = ScriptedEngine::start(lie, |_| ());
    let error = start(&engine).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unexpected);
    assert!(!engine.requests().iter().any(|request| request.contains("prune")));
}

#[tokio::test]
async fn what_the_engine_cannot_enforce_is_refused_before_anything_is_made() {
    let weak = |_: &str, path: &str, _: &Value| {
        let mut info = info();
        info["PidsLimit"] = json!(false);
        (path == "/info").then_some(Answer::Json(200, info))
    };
    let engine = ScriptedEngine::start(weak, |_| ());
    let error = start(&engine).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("`pids`"), "{error}");
    assert_eq!(engine.requests(), ["GET /_ping", "GET /info"]);
}

/// An engine without the guest's program is no backend; what is there can be looked at all the same.
#[tokio::test]
async fn an_engine_without_a_guest_is_unavailable() {
    let empty =
        |_: &str, path: &str, _: &Value| (path == "/containers/json").then(|| Answer::Json(200, json!([])));
    let engine = ScriptedEngine::start(empty, |_| ());
    let config = guest::config().with_endpoint(engine.endpoint()).with_guest("/no/such/guest");
    let backend = DockerBackend::connect(config).await.unwrap();
    let error = backend.health().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("/no/such/guest"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("AGENTKERNEL_GUEST")), "{error:?}");
    assert!(backend.list(&Default::default()).await.unwrap().is_empty());
}

/// Asks an engine that answers its first question so, and returns the error and how long it took.
async fn ask(answer: fn() -> Answer) -> (Error, Duration) {
    let engine = ScriptedEngine::start(move |_, _, _| Some(answer()), |_| ());
    let begin = Instant::now();
    let error = start(&engine).await.unwrap_err();
    (error, begin.elapsed())
}

#[tokio::test]
async fn nonsense_is_a_typed_error() {
    let answers: [(ErrorKind, fn() -> Answer); 7] = [
        (ErrorKind::Unexpected, || Answer::Raw(b"\x00\xff this is no HTTP\r\n\r\n".to_vec())),
        (ErrorKind::Unexpected, || {
            Answer::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{\"a\":".to_vec())
        }),
        (ErrorKind::Unexpected, || Answer::Json(200, json!(["not", "info"]))),
        (ErrorKind::Unexpected, || Answer::Json(500, json!({"message": "boom"}))),
        (ErrorKind::Unexpected, || Answer::Raw(b"HTTP/1.1 500 X\r\nContent-Length: 3\r\n\r\n<x>".to_vec())),
        (ErrorKind::Disconnected, || Answer::Close),
        (ErrorKind::PermissionDenied, || Answer::Json(403, json!({"message": "authorization denied"}))),
    ];
    for (kind, answer) in answers {
        let (error, took) = ask(answer).await;
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(took < Duration::from_secs(3), "{took:?}");
    }
}

#[tokio::test]
async fn silence_ends_with_the_deadline() {
    for answer in [(|| Answer::Silence) as fn() -> Answer, || {
        Answer::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{".to_vec())
    }] {
        let (error, took) = ask(answer).await;
        // A connection that closes early is told at once.
        assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Disconnected), "{error:?}");
        assert!(took < Duration::from_secs(3), "{took:?}");
    }
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let (error, took) = ask(|| Answer::Endless).await;
    assert!(matches!(error.kind(), ErrorKind::Unexpected | ErrorKind::Timeout), "{error:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
}

/// As Docker Desktop's is.
#[tokio::test]
async fn on_another_kernel_no_path_of_ours_is_mounted_and_a_foreign_volume_is_no_guest() {
    let asked = Arc::new(Mutex::new(Value::Null));
    let seen = Arc::clone(&asked);
    let elsewhere = move |method: &str, path: &str, body: &Value| {
        if (method, path) == ("POST", "/containers/create") {
            *seen.lock().unwrap() = body.clone();
        }
        let mut info = info();
        info["KernelVersion"] = json!("6.6.6-linuxkit");
        let volume = json!({"Name": "x", "Driver": "local", "Mountpoint": "/x", "Labels": {}, "Options": {},
            "Scope": "local"});
        match path {
            "/info" => Some(Answer::Json(200, info)),
            _ if path.starts_with("/volumes/agentkernel_guest_") => Some(Answer::Json(200, volume)),
            _ => None,
        }
    };
    let engine = ScriptedEngine::start(elsewhere, |_| ());
    let error = start(&engine).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    assert!(error.hint().unwrap().contains("volume rm agentkernel_guest_"), "{error:?}");
    let asked = asked.lock().unwrap().clone();
    let mounts = asked["HostConfig"]["Mounts"].as_array().unwrap();
    assert!(mounts.iter().all(|mount| mount["Type"] == "volume"), "{mounts:?}");
    assert_eq!((&asked["OpenStdin"], &asked["StdinOnce"]), (&json!(true), &json!(true)));
    let removed = engine.requests().iter().any(|request| request.starts_with("DELETE /containers/"));
    assert!(removed, "the container stays");
}

#[tokio::test]
async fn an_engine_that_dies_is_unavailable() {
    let engine = ScriptedEngine::start(nothing, |_| ());
    let backend = DockerBackend::connect(guest::config().with_endpoint(engine.endpoint())).await.unwrap();
    drop(engine);
    let error = backend.health().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.hint().unwrap().contains("docker.io"), "{error:?}");
}

/// Whoever asked for it has heard of a timeout by then, and does not know it.
#[tokio::test]
async fn a_container_that_is_made_after_the_deadline_is_removed() {
    let late = |method: &str, path: &str, _: &Value| {
        let create = method == "POST" && path == "/containers/create";
        create.then(|| Answer::Late(Duration::from_secs(2), 201, json!({"Id": ID, "Warnings": []})))
    };
    let engine = ScriptedEngine::start(late, |_| ());
    let error = start(&engine).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    let removal = format!("DELETE /containers/{ID}");
    assert!(!engine.requests().contains(&removal));
    let deadline = Instant::now() + Duration::from_secs(10);
    while !engine.requests().contains(&removal) {
        assert!(Instant::now() < deadline, "{:?}", engine.requests());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A boot that the engine refuses leaves nothing.
#[tokio::test]
async fn a_start_that_fails_removes_the_container() {
    let refuse = |_: &str, path: &str, _: &Value| {
        path.ends_with("/start").then(|| Answer::Json(500, json!({"message": "OCI runtime create failed"})))
    };
    let engine = ScriptedEngine::start(refuse, |_| ());
    let error = start(&engine).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unexpected, "{error:?}");
    assert!(engine.requests().contains(&format!("DELETE /containers/{ID}")));
}

/// An engine that is asked to start what it would hang on, or what it does not say, never answers again.
#[tokio::test]
async fn what_is_not_known_to_be_a_file_is_never_started() {
    const FIFO: u32 = 1 << 25 | 0o644;
    let answers: [(ErrorKind, fn() -> Answer); 5] = [
        (ErrorKind::InvalidConfig, || stat(FIFO)),
        (ErrorKind::InvalidConfig, || Answer::Raw(b"HTTP/1.1 500 X\r\nContent-Length: 9\r\n\r\n".to_vec())),
        (ErrorKind::Unexpected, || Answer::Raw(b"HTTP/1.1 200 X\r\nContent-Length: 0\r\n\r\n".to_vec())),
        (ErrorKind::Timeout, || Answer::Silence),
        (ErrorKind::Disconnected, || Answer::Close),
    ];
    for (kind, answer) in answers {
        let engine = ScriptedEngine::start(move |method, _, _| (method == "HEAD").then(answer), |_| ());
        let error = start(&engine).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(engine.requests().contains(&format!("DELETE /containers/{ID}")), "{kind}");
        assert!(!engine.requests().iter().any(|request| request.ends_with("/start")), "{kind}");
    }
}

/// A guest that never comes ends with the deadline.
#[tokio::test]
async fn a_guest_that_never_connects_is_a_timeout() {
    let lie =
        |_: &str, path: &str, _: &Value| path.ends_with("/start").then_some(Answer::Json(204, Value::Null));
    let engine = ScriptedEngine::start(lie, |found| found["State"]["Status"] = json!("running"));
    let error = start(&engine).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    assert!(engine.requests().contains(&format!("DELETE /containers/{ID}")));
    let ended =
        ScriptedEngine::start(lie, |found| found["State"] = json!({"Status": "exited", "ExitCode": 70}));
    let error = start(&ended).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disconnected, "{error:?}");
}

/// Whoever connects to the boot socket in the guest's place is found out: it is no process of the container.
#[tokio::test]
async fn a_process_of_the_host_cannot_be_the_guest() {
    let connect =
        |_: &str, path: &str, _: &Value| path.ends_with("/start").then_some(Answer::Json(204, Value::Null));
    let engine = ScriptedEngine::start(connect, |found| {
        found["State"]["Status"] = json!("running");
        let mounts = found["HostConfig"]["Mounts"].as_array().cloned().unwrap_or_default();
        let boot = mounts.iter().find(|mount| mount["Target"] == "/.agentkernel/boot").unwrap();
        let path = boot["Source"].as_str().unwrap().to_owned();
        std::thread::spawn(move || {
            let held = std::os::unix::net::UnixStream::connect(path);
            std::thread::sleep(Duration::from_secs(2));
            drop(held);
        });
    });
    let error = start(&engine).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    assert!(engine.requests().contains(&format!("DELETE /containers/{ID}")));
}
