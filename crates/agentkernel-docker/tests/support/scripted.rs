//! An engine that answers what a test tells it to, over HTTP/1.1 on a unix socket.
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

/// The id of the one container that it makes.
pub(crate) const ID: &str = "abababababababababababababababababababababababababababababababab";

/// What a test makes of a request; `None` closes the connection, and [`Answer::Silence`] keeps it.
pub(crate) enum Answer {
    Json(u16, Value),
    /// As `Json`, and as late.
    Late(Duration, u16, Value),
    Raw(Vec<u8>),
    Endless,
    Silence,
    Close,
}

type Script = dyn Fn(&str, &str, &Value) -> Option<Answer> + Send + Sync;
type Lie = dyn Fn(&mut Value) + Send + Sync;

pub(crate) struct ScriptedEngine {
    dir: tempfile::TempDir,
    requests: Arc<Mutex<Vec<String>>>,
    server: tokio::task::JoinHandle<()>,
}

impl ScriptedEngine {
    /// Starts one. What the script does not answer is answered as an honest engine would; `lie` edits its answer to an
    /// inspection.
    pub(crate) fn start(
        script: impl Fn(&str, &str, &Value) -> Option<Answer> + Send + Sync + 'static,
        lie: impl Fn(&mut Value) + Send + Sync + 'static,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("engine.sock")).unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (log, script, lie): (_, Arc<Script>, Arc<Lie>) =
            (Arc::clone(&requests), Arc::new(script), Arc::new(lie));
        let made = Arc::new(Mutex::new(Value::Null));
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, script, lie, made) =
                    (Arc::clone(&log), Arc::clone(&script), Arc::clone(&lie), Arc::clone(&made));
                tokio::spawn(async move {
                    let _closed = serve(stream, &log, &*script, &*lie, &made).await;
                });
            }
        });
        Self { dir, requests, server }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("unix://{}", self.dir.path().join("engine.sock").display())
    }

    /// Returns the requests, each `METHOD /path`.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for ScriptedEngine {
    fn drop(&mut self) {
        self.server.abort();
        let key =
            Sha256::digest(self.endpoint().as_bytes()).iter().map(|b| format!("{b:02x}")).collect::<String>();
        let bases = [Some(PathBuf::from("/run")), std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from)];
        for base in bases.into_iter().flatten() {
            let _gone = std::fs::remove_dir_all(base.join("agentkernel").join(Path::new(&key[..8])));
        }
    }
}

async fn serve(
    mut stream: UnixStream,
    log: &Mutex<Vec<String>>,
    script: &Script,
    lie: &Lie,
    made: &Mutex<Value>,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    let end = loop {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
        if let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let head = String::from_utf8_lossy(&request[..end]).into_owned();
    let length = head
        .lines()
        .find_map(|line| {
            line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok()
        })
        .unwrap_or(0);
    while request.len() < end + length {
        stream.read_buf(&mut request).await?;
    }
    let body: Value = serde_json::from_slice(&request[end..]).unwrap_or_default();
    let mut words = head.split_ascii_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    log.lock().unwrap().push(format!("{method} {path}"));
    let answer = script(method, path, &body).unwrap_or_else(|| honest(method, path, &body, lie, made));
    if let Answer::Late(late, ..) = answer {
        tokio::time::sleep(late).await;
    }
    match answer {
        Answer::Json(status, value) | Answer::Late(_, status, value) => {
            let body = if status == 204 { String::new() } else { value.to_string() };
            let head = format!(
                "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(body.as_bytes()).await
        }
        Answer::Raw(bytes) => stream.write_all(&bytes).await,
        Answer::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n\"").await?;
            loop {
                stream.write_all(&[b'x'; 65536]).await?;
            }
        }
        Answer::Silence => std::future::pending().await,
        Answer::Close => Ok(()),
    }
}

fn honest(method: &str, path: &str, body: &Value, lie: &Lie, made: &Mutex<Value>) -> Answer {
    let image = format!("sha256:{}", "c".repeat(64));
    match (method, path) {
        ("GET", "/info") => Answer::Json(200, info()),
        ("POST", "/containers/create") => {
            *made.lock().unwrap() = body.clone();
            Answer::Json(201, json!({"Id": ID, "Warnings": []}))
        }
        ("GET", path) if path.starts_with("/images/") => {
            Answer::Json(200, json!({"Id": image, "Config": {"User": "", "WorkingDir": ""}}))
        }
        ("GET", path) if path.starts_with("/containers/") && path.ends_with("/json") => {
            let made = made.lock().unwrap().clone();
            let mut found = json!({
                "Id": ID,
                "Name": "/agentkernel-x",
                "Image": image,
                "Config": made,
                "HostConfig": made["HostConfig"],
                "State": {"Status": "created"},
            });
            lie(&mut found);
            Answer::Json(200, found)
        }
        ("DELETE", _) => Answer::Json(204, Value::Null),
        ("HEAD", path) if path.ends_with("/archive") => stat(0o644),
        _ => Answer::Json(404, json!({"message": "not scripted"})),
    }
}

/// Says that there is a file with this mode, of the bits of Go's `fs.FileMode`.
pub(crate) fn stat(mode: u32) -> Answer {
    let stat =
        json!({"name": "x", "size": 0, "mode": mode, "mtime": "1970-01-01T00:00:00Z", "linkTarget": ""});
    let stat = BASE64_STANDARD.encode(stat.to_string());
    Answer::Raw(format!("HTTP/1.1 200 X\r\nX-Docker-Container-Path-Stat: {stat}\r\n\r\n").into_bytes())
}

/// What an engine of this machine that can do everything says of itself.
pub(crate) fn info() -> Value {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    json!({
        "OSType": "linux",
        "KernelVersion": kernel.trim(),
        "ServerVersion": "20.10.24",
        "MemoryLimit": true,
        "SwapLimit": true,
        "CpuCfsQuota": true,
        "PidsLimit": true,
        "SecurityOptions": ["name=seccomp,profile=default", "name=userns"],
        "Warnings": null,
    })
}
