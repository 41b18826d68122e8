//! Several backends at once.
use std::os::unix::net::UnixListener;

use crate::program::{IMAGE, Name, agentkernel, binary, has_both_engines};

/// A sandbox on one backend, removed at the end.
struct On(&'static str, Name);

impl On {
    fn create(backend: &'static str, name: Name) -> Self {
        let made = agentkernel(["create", "--backend", backend, &name.0, "--image", IMAGE]);
        assert_eq!(made.code, Some(0), "{}", made.stderr);
        Self(backend, name)
    }
}

impl Drop for On {
    fn drop(&mut self) {
        let _gone = agentkernel(["remove", "--backend", self.0, "--force", &self.1.0]);
    }
}

#[test]
fn a_sandbox_is_found_on_whichever_backend_has_it() {
    if !has_both_engines() {
        return;
    }
    for backend in ["docker", "podman"] {
        let sandbox = On::create(backend, Name::new());
        assert_eq!(sandbox.1.exec(["echo", "x"]).text(), (Some(0), "x\n", ""), "{backend}");
    }
}

#[test]
fn one_name_on_two_backends_is_an_error_that_names_both() {
    if !has_both_engines() {
        return;
    }
    let name = Name::new();
    let _docker = On::create("docker", Name(name.0.clone()));
    let _podman = On::create("podman", Name(name.0.clone()));
    let ended = name.exec(["true"]);
    assert_eq!(ended.code, Some(125));
    for part in ["docker", "podman", "--backend"] {
        assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
    assert_eq!(agentkernel(["exec", "-b", "podman", &name.0, "--", "true"]).code, Some(0));
}

#[test]
fn a_backend_that_does_not_answer_is_not_said_to_lack_the_sandbox() {
    if !has_both_engines() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("docker.sock");
    let _silent = UnixListener::bind(&socket).unwrap();
    let output = binary()
        .args(["inspect", "nowhere"])
        .env("DOCKER_HOST", format!("unix://{}", socket.display()))
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(!stderr.contains("no such sandbox"), "{stderr}");
}
