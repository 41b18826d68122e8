//! What an image or a command puts in the place of `/etc/passwd`, which the engine opens at each start. Without our
//! look at it, some of these hang the engine's container until the engine is restarted.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test says so by failing"
)]
#[path = "support/guest.rs"]
mod guest;
#[path = "support/real.rs"]
mod real;

use std::{
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use agentkernel_core::{Backend, Error, ErrorKind, ImageRef, Lifetime, Mount, SandboxConfig, SandboxExt};
use agentkernel_docker::DockerBackend;
use real::{engine, name, sandbox};
use tar::EntryType;

/// What a test image has at a path.
#[derive(Clone, Copy)]
enum Has {
    Fifo,
    File(&'static str),
    Zeros(usize),
    Link(&'static str),
}

fn archive(files: &[(&str, Has)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, has) in files {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        let content = match has {
            Has::File(content) => content.as_bytes().to_vec(),
            Has::Zeros(length) => vec![0; *length],
            Has::Fifo | Has::Link(_) => Vec::new(),
        };
        header.set_size(content.len() as u64);
        match has {
            Has::Fifo => header.set_entry_type(EntryType::Fifo),
            Has::Link(target) => {
                header.set_entry_type(EntryType::Symlink);
                header.set_link_name(target).unwrap();
            }
            Has::File(_) | Has::Zeros(_) => {}
        }
        builder.append_data(&mut header, path, content.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Starts a sandbox of an image with these files, and ends it. Either is to be over at once.
async fn start(
    backend: &DockerBackend,
    files: &[(&str, Has)],
    change: impl FnOnce(&mut SandboxConfig),
) -> Result<(), Error> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let image: ImageRef = format!("agentkernel-accounts-{}:{next}", std::process::id()).parse().unwrap();
    backend.images().unwrap().import(&mut archive(files).as_slice(), &image).await.unwrap();
    let one = backend.sandbox(name("accounts"));
    let mut config = SandboxConfig::new(image.as_str());
    change(&mut config);
    let begin = Instant::now();
    let started = one.start(&config).await;
    assert!(begin.elapsed() < Duration::from_secs(10), "{started:?} after {:?}", begin.elapsed());
    one.remove().await.unwrap();
    backend.images().unwrap().remove(&image).await.unwrap();
    started
}

#[tokio::test]
async fn an_image_with_something_to_hang_on_is_refused() {
    let Some(backend) = engine().await else { return };
    let refused: [&[(&str, Has)]; 8] = [
        &[("etc/passwd", Has::Fifo), ("etc/group", Has::Fifo)],
        &[("etc/passwd", Has::File("")), ("etc/group", Has::Fifo)],
        &[("etc/passwd", Has::Link("/q/f")), ("q/f", Has::Fifo)],
        &[("etc/passwd", Has::Link("../q/l")), ("q/l", Has::Link("f")), ("q/f", Has::Fifo)],
        &[("etc/passwd", Has::Link("/gone/../q/f")), ("q/f", Has::Fifo)],
        &[("etc/passwd", Has::Link("passwd"))],
        &[("etc/passwd", Has::Link("/dev/urandom")), ("dev/urandom", Has::File(""))],
        &[("etc/passwd", Has::Zeros((1 << 20) + 1))],
    ];
    for files in refused {
        let error = start(&backend, files, |_| ()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");
        assert!(error.hint().is_some());
    }
}

#[tokio::test]
async fn an_image_with_its_files_elsewhere_or_none_starts() {
    let Some(backend) = engine().await else { return };
    let store = [
        ("etc/passwd", Has::Link("/nix/store/a-nss/etc/passwd")),
        ("nix/store/a-nss/etc/passwd", Has::Link("/nix/store/b-passwd/etc/passwd")),
        ("nix/store/b-passwd/etc/passwd", Has::File("root:x:0:0::/:\n")),
    ];
    let accepted: [&[(&str, Has)]; 3] =
        [&[("etc/issue", Has::File(""))], &store, &[("etc/passwd", Has::Link("/nowhere"))]];
    let dir = tempfile::tempdir().unwrap();
    for files in accepted {
        start(&backend, files, |_| ()).await.unwrap();
        start(&backend, files, |config| config.mounts = vec![mount(dir.path(), "/workspace")]).await.unwrap();
    }
}

fn mount(source: &Path, target: &str) -> Mount {
    Mount { source: source.to_owned(), target: target.to_owned(), read_only: false }
}

/// What shows there would hide what the engine opens.
#[tokio::test]
async fn a_mount_over_the_files_or_led_there_is_refused() {
    let Some(backend) = engine().await else { return };
    let dir = tempfile::tempdir().unwrap();
    for file in ["passwd", "group"] {
        std::fs::write(dir.path().join(file), "").unwrap();
    }
    let fifo = [("etc/passwd", Has::Fifo), ("led", Has::Link("/etc"))];
    for target in ["/etc", "/led"] {
        let error = start(&backend, &fifo, |config| config.mounts = vec![mount(dir.path(), target)])
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");
    }
    let file = dir.path().join("passwd");
    let error =
        start(&backend, &fifo, |config| config.mounts = vec![mount(&file, "/etc/passwd")]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");
}

/// Runs a script in a sandbox that stays, and boots it again.
async fn boot_after(script: &str) -> Option<Result<(), Error>> {
    let backend = engine().await?;
    let one = backend.sandbox(name("again"));
    let mut config = sandbox();
    (config.lifetime, config.user) = (Lifetime::Detached, Some("0:0".into()));
    one.start(&config).await.unwrap();
    let ran = one.exec(&["sh", "-c", script]).await.unwrap();
    assert_eq!(ran.exit_code, 0, "{ran:?}");
    one.halt(Duration::ZERO).await.unwrap();
    let begin = Instant::now();
    let booted = one.boot().await;
    assert!(begin.elapsed() < Duration::from_secs(10), "{booted:?} after {:?}", begin.elapsed());
    one.remove().await.unwrap();
    Some(booted)
}

#[tokio::test]
async fn what_a_command_put_there_is_a_conflict_at_the_next_boot() {
    let refused = [
        "rm -f /etc/group; mkfifo /etc/group",
        "rm -f /etc/passwd; mkfifo /etc/f; ln -s f /etc/passwd",
        "rm -f /etc/passwd; ln -s /dev/urandom /etc/passwd",
        // Our own mount is led there, and hides the FIFO from us.
        "mv /.agentkernel /old; mkdir -p /q/bin; ln -s /q /.agentkernel; mkfifo /q/bin/guest; \
         rm -f /etc/passwd; ln -s /q/bin/guest /etc/passwd",
    ];
    for script in refused {
        let Some(booted) = boot_after(script).await else { return };
        let error = booted.expect_err(script);
        assert_eq!(error.kind(), ErrorKind::Conflict, "{script}: {error:?}");
        assert!(error.hint().unwrap().starts_with("remove it: agentkernel remove again-"), "{error:?}");
    }
}

#[tokio::test]
async fn a_command_may_add_users() {
    let script = "echo u:x:5:5::/:/bin/sh >>/etc/passwd; mv /etc/passwd /etc/p; ln -s p /etc/passwd";
    let Some(booted) = boot_after(script).await else { return };
    booted.unwrap();
}
