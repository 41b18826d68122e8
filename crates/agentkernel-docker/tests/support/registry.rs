//! A registry on loopback: Debian's `docker-registry`.
use std::{
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

pub(crate) struct Registry {
    pub(crate) port: u16,
    child: Child,
    _dir: tempfile::TempDir,
}

impl Registry {
    /// Starts one; `None` with a printed reason if the program is not there.
    pub(crate) fn start() -> Option<Self> {
        Self::start_for("")
    }

    /// Starts one that wants to know who asks: user `user`, password `opensesame`.
    pub(crate) fn start_private() -> Option<Self> {
        // As `htpasswd -B` writes it.
        Self::start_for("user:$2y$05$abcdefghijklmnopqrstuuQbLfdQZSxZ9gjhA5V9o8Tyc6aQRO0Qi\n")
    }

    fn start_for(users: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("users");
        std::fs::write(&list, users).unwrap();
        let auth = if users.is_empty() {
            String::new()
        } else {
            format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", list.display())
        };
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"127.0.0.1:{port}\"}}\n{auth}",
            dir.path().join("data").display()
        );
        let file = dir.path().join("config.yml");
        std::fs::write(&file, config).unwrap();
        let spawned = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = spawned else {
            eprintln!("skipped: docker-registry is not installed (apt-get install docker-registry)");
            return None;
        };
        let registry = Self { port, child, _dir: dir };
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "the registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _dead = self.child.kill();
        let _reaped = self.child.wait();
    }
}
