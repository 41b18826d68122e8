//! Images of the real engine: imported, pulled, removed and pruned.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test says so by failing"
)]
#[path = "support/docker_command.rs"]
mod docker_command;
#[path = "support/guest.rs"]
mod guest;
#[path = "support/real.rs"]
mod real;
#[path = "support/registry.rs"]
mod registry;

use std::{
    process::Command,
    time::{Duration, Instant},
};

use agentkernel_core::{Backend, ErrorKind, ImageRef, Progress, PullPolicy, SandboxConfig, SandboxExt};
use agentkernel_docker::DockerBackend;
use docker_command::docker;
use futures_util::StreamExt;
use real::{engine, name, sandbox};

fn archive(content: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, "etc/content", content).unwrap();
    builder.into_inner().unwrap()
}

#[tokio::test]
async fn root_archives_and_saved_images_are_imported() {
    let Some(backend) = engine().await else { return };
    let images = backend.images().unwrap();
    let image: ImageRef = format!("agentkernel-import-{}:one", std::process::id()).parse().unwrap();
    let info = images.import(&mut archive(b"hello").as_slice(), &image).await.unwrap();
    assert_eq!((info.name.as_str(), info.digest.is_none()), (image.as_str(), true));
    let one = backend.sandbox(name("import"));
    one.start(&SandboxConfig::new(image.as_str())).await.unwrap();
    assert_eq!(one.read_file("/etc/content").await.unwrap(), b"hello");
    one.stop().await.unwrap();
    let saved = Command::new("docker").args(["save", image.as_str()]).output().unwrap().stdout;
    let again: ImageRef = format!("agentkernel-import-{}:two", std::process::id()).parse().unwrap();
    assert_eq!(images.import(&mut saved.as_slice(), &again).await.unwrap().id, info.id);
    let listed = images.list().await.unwrap();
    assert!([&image, &again].iter().all(|image| listed.iter().any(|one| one.name == image.as_str())));
    let error = images.import(&mut &saved[..saved.len() / 2], &again).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");
    for image in [&image, &again] {
        images.remove(image).await.unwrap();
        assert_eq!(images.inspect(image).await.unwrap(), None);
        assert_eq!(images.remove(image).await.unwrap_err().kind(), ErrorKind::NotFound);
    }
}

#[tokio::test]
async fn an_image_in_use_is_not_removed() {
    let Some(backend) = engine().await else { return };
    let images = backend.images().unwrap();
    let image: ImageRef = format!("agentkernel-used-{}", std::process::id()).parse().unwrap();
    images.import(&mut archive(b"used").as_slice(), &image).await.unwrap();
    let one = backend.sandbox(name("used"));
    one.start(&SandboxConfig::new(image.as_str())).await.unwrap();
    assert_eq!(images.remove(&image).await.unwrap_err().kind(), ErrorKind::Conflict);
    one.stop().await.unwrap();
    images.remove(&image).await.unwrap();
}

#[tokio::test]
async fn a_local_image_is_never_pulled() {
    let Some(backend) = engine().await else { return };
    for (image, pull) in
        [("agentkernel-nowhere", PullPolicy::Always), ("agentkernel-snap:nowhere", PullPolicy::Missing)]
    {
        let mut config = SandboxConfig::new(image);
        config.pull = pull;
        let begin = Instant::now();
        let error = backend.sandbox(name("local")).start(&config).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
        assert!(begin.elapsed() < Duration::from_secs(2));
        let error = backend.images().unwrap().pull(&image.parse().unwrap()).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    }
    let mut config = SandboxConfig::new("127.0.0.1:1/nobody/here");
    config.pull = PullPolicy::Never;
    let error = backend.sandbox(name("local")).start(&config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    config.pull = PullPolicy::Missing;
    let error = backend.sandbox(name("local")).start(&config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
}

#[tokio::test]
async fn an_image_is_pulled_with_progress_and_checked_by_digest() {
    let Some(backend) = engine().await else { return };
    let Some(registry) = registry::Registry::start() else { return };
    let images = backend.images().unwrap();
    let remote: ImageRef = format!("127.0.0.1:{}/some/image:1", registry.port).parse().unwrap();
    images.import(&mut archive(&vec![7; 3 << 20]).as_slice(), &remote).await.unwrap();
    docker(&["push", "-q", remote.as_str()]).unwrap();
    let digest = images.inspect(&remote).await.unwrap().unwrap().digest.unwrap();
    images.remove(&remote).await.unwrap();
    let mut events = images.pull(&remote).await.unwrap().map(Result::unwrap).collect::<Vec<_>>().await;
    let Some(Progress::Done(info)) = events.pop() else { panic!("{events:?}") };
    assert_eq!(info.digest.as_deref(), Some(&*digest));
    let bytes = |event: &Progress| match event {
        Progress::Bytes { done, .. } => *done,
        _ => panic!("{event:?}"),
    };
    assert!(events.iter().map(bytes).is_sorted() && events.iter().map(bytes).max() > Some(0), "{events:?}");
    images.remove(&remote).await.unwrap();
    let pinned: ImageRef = format!("{}@{digest}", remote.name()).parse().unwrap();
    let one = backend.sandbox(name("pull"));
    one.start(&SandboxConfig::new(pinned.as_str())).await.unwrap();
    one.stop().await.unwrap();
    images.remove(&pinned).await.unwrap();
    let wrong: ImageRef = format!("{}@sha256:{}", remote.name(), "0".repeat(64)).parse().unwrap();
    let missing: ImageRef = format!("{}:2", remote.name()).parse().unwrap();
    for absent in [wrong, missing] {
        let last = images.pull(&absent).await.unwrap().collect::<Vec<_>>().await.pop().unwrap();
        assert_eq!(last.unwrap_err().kind(), ErrorKind::NotFound);
    }
}

#[tokio::test]
async fn a_private_image_is_pulled_with_the_docker_commands_credentials() {
    let Some(backend) = engine().await else { return };
    let Some(registry) = registry::Registry::start_private() else { return };
    let remote: ImageRef = format!("127.0.0.1:{}/private:1", registry.port).parse().unwrap();
    let logged_in = tempfile::tempdir().unwrap();
    // user:opensesame
    let config =
        format!(r#"{{"auths":{{"127.0.0.1:{}":{{"auth":"dXNlcjpvcGVuc2VzYW1l"}}}}}}"#, registry.port);
    std::fs::write(logged_in.path().join("config.json"), config).unwrap();
    let images = backend.images().unwrap();
    images.import(&mut archive(b"x").as_slice(), &remote).await.unwrap();
    docker(&["--config", &logged_in.path().to_string_lossy(), "push", "-q", remote.as_str()]).unwrap();
    images.remove(&remote).await.unwrap();
    let pull = async |directory: &std::path::Path| {
        let config = agentkernel_docker::DockerConfig::default().with_credentials(directory);
        let backend = DockerBackend::connect(config).await.unwrap();
        let events = backend.images().unwrap().pull(&remote).await.unwrap().collect::<Vec<_>>().await;
        events.into_iter().next_back().unwrap().map(drop).map_err(|error| error.kind())
    };
    let stranger = tempfile::tempdir().unwrap();
    assert_eq!(pull(stranger.path()).await, Err(ErrorKind::PermissionDenied));
    assert_eq!(pull(logged_in.path()).await, Ok(()));
    images.remove(&remote).await.unwrap();
}

fn is_there(id: &str) -> bool {
    docker(&["image", "inspect", "--format", "{{.Id}}", id]).is_ok()
}

#[tokio::test]
async fn pruning_removes_what_was_imported_has_lost_its_name_and_is_not_used() {
    let Some(backend) = engine().await else { return };
    let images = backend.images().unwrap();
    let image: ImageRef = format!("agentkernel-pruned-{}", std::process::id()).parse().unwrap();
    let mut ids = Vec::new();
    let one = backend.sandbox(name("prune"));
    for content in [&b"in use"[..], b"without a name", b"with the name"] {
        ids.push(images.import(&mut archive(content).as_slice(), &image).await.unwrap().id);
        if ids.len() == 1 {
            let mut config = sandbox();
            config.image = Some(image.to_string());
            one.start(&config).await.unwrap();
        }
    }
    images.prune().await.unwrap();
    assert_eq!(ids.iter().map(|id| is_there(id)).collect::<Vec<_>>(), [true, false, true]);
    one.stop().await.unwrap();
    images.remove(&image).await.unwrap();
    images.prune().await.unwrap();
    assert!(!is_there(&ids[0]));
}

#[tokio::test]
async fn pruning_leaves_alone_what_was_not_made_here() {
    let Some(backend) = engine().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root.tar");
    std::fs::write(&root, archive(b"foreign")).unwrap();
    let id = docker(&["import", &root.to_string_lossy()]).unwrap();
    backend.images().unwrap().prune().await.unwrap();
    let stays = is_there(id.trim());
    docker(&["image", "rm", id.trim()]).unwrap();
    assert!(stays);
}
