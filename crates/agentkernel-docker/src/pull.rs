//! Pulling an image, with progress over all of its layers.
use std::{collections::HashMap, pin::Pin, time::Duration};

use agentkernel_core::{Error, ErrorKind, Events, ImageRef, ImageStore, Progress, Result};
use bollard::{
    auth::DockerCredentials, errors::Error as EngineError, models::CreateImageInfo,
    query_parameters::CreateImageOptions,
};
use futures_util::{Stream, StreamExt, stream};
use tokio::time::timeout;

use crate::{error, images::DockerImages};

/// The most layers that are counted: a bound against a lying engine.
const MAX_LAYERS: usize = 1000;

type Answers = Pin<Box<dyn Stream<Item = Result<CreateImageInfo, EngineError>> + Send>>;

struct Pull {
    images: DockerImages,
    image: ImageRef,
    answers: Answers,
    layers: Layers,
    ended: bool,
}

/// Pulls an image; dropping the stream closes the connection, which cancels the pull.
pub(crate) fn pull(
    images: DockerImages,
    image: ImageRef,
    credentials: Option<DockerCredentials>,
) -> Events<Progress> {
    let options = CreateImageOptions {
        from_image: Some(image.name().to_owned()),
        // Without a tag the engine would pull every one of them.
        tag: Some(image.digest().or(image.tag()).unwrap_or("latest").to_owned()),
        ..Default::default()
    };
    let answers = images.engine().docker().create_image(Some(options), None, credentials).boxed();
    let pull = Pull { images, image, answers, layers: Layers::default(), ended: false };
    stream::unfold(pull, |mut pull| async move {
        if pull.ended {
            return None;
        }
        let event = pull.next().await;
        pull.ended = !matches!(event, Ok(Progress::Bytes { .. }));
        Some((event, pull))
    })
    .boxed()
}

impl Pull {
    async fn next(&mut self) -> Result<Progress> {
        let patience = self.images.engine().config().transfer_timeout;
        loop {
            match timeout(patience, self.answers.next()).await {
                Err(_) => return Err(self.silent(patience)),
                Ok(None) => return end(&self.images, &self.image).await,
                Ok(Some(Err(source))) => return Err(self.refused(source)),
                Ok(Some(Ok(answer))) => {
                    if let Some(progress) = self.layers.update(&answer) {
                        return Ok(progress);
                    }
                }
            }
        }
    }

    fn silent(&self, patience: Duration) -> Error {
        error::timed_out("pull image", self.images.engine().kind())
            .with_context("image", &self.image)
            .with_context("seconds", patience.as_secs())
    }

    /// What a registry answers comes as text of the engine's.
    fn refused(&self, source: EngineError) -> Error {
        let failure = self.images.engine().error("pull image", source);
        let says = |words: &[&str]| words.iter().any(|word| error::says(&failure, word));
        let (kind, message, hint) =
            if says(&["unauthorized", "denied", "authentication required", "no basic auth"]) {
                let hint = "check the name; for a private image log in first: docker login REGISTRY";
                (ErrorKind::PermissionDenied, "the registry has no such image for us", hint)
            } else if says(&["not found", "manifest unknown", "no matching manifest"]) {
                (
                    ErrorKind::NotFound,
                    "the registry has no such image",
                    "check the name, the tag and the digest",
                )
            } else if says(&["server gave HTTP response to HTTPS client"]) {
                (
                    ErrorKind::Unavailable,
                    "the registry does not speak TLS",
                    "let it be `insecure`: in registries.conf for Podman, in daemon.json for Docker",
                )
            } else if says(&[
                "dial tcp",
                "no such host",
                "timeout",
                "connection refused",
                "TLS",
                "EOF",
                "Client.Timeout",
            ]) {
                (
                    ErrorKind::Unavailable,
                    "the registry cannot be reached",
                    "check the network, or import an archive",
                )
            } else {
                return failure.with_context("image", &self.image);
            };
        Error::new(kind, "pull image", message)
            .with_context("image", &self.image)
            .with_hint(hint)
            .with_source(failure)
    }
}

async fn end(images: &DockerImages, image: &ImageRef) -> Result<Progress> {
    let info = images.inspect(image).await?.ok_or_else(|| {
        Error::new(
            ErrorKind::NotFound,
            "pull image",
            "the engine says that it pulled, and the image is not there",
        )
        .with_context("image", image)
    })?;
    if let Some(asked) = image.digest()
        && info.digest.as_deref() != Some(asked)
    {
        return Err(Error::new(ErrorKind::Conflict, "pull image", "what came has another digest")
            .with_context("image", image)
            .with_context("digest", info.digest.unwrap_or_default())
            .with_hint("do not use it: the registry or the engine is not to be trusted"));
    }
    Ok(Progress::Done(info))
}

/// The bytes of each layer.
#[derive(Default)]
struct Layers(HashMap<String, (u64, Option<u64>)>);

impl Layers {
    /// Takes one line of the engine's and returns the sum, if it changed.
    fn update(&mut self, answer: &CreateImageInfo) -> Option<Progress> {
        let (id, status) = (answer.id.as_ref()?, answer.status.as_deref()?);
        if self.0.len() >= MAX_LAYERS && !self.0.contains_key(id) {
            return None;
        }
        let count = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
        let detail = answer.progress_detail.as_ref();
        let old = self.0.get(id).copied();
        let new = match status {
            "Downloading" => {
                (count(detail.and_then(|d| d.current)).unwrap_or(0), count(detail.and_then(|d| d.total)))
            }
            "Pulling fs layer" | "Waiting" => old.unwrap_or((0, None)),
            "Download complete" | "Pull complete" => {
                let (done, total) = old.unwrap_or((0, Some(0)));
                (total.unwrap_or(done), Some(total.unwrap_or(done)))
            }
            "Already exists" => (0, Some(0)),
            _ => return None,
        };
        self.0.insert(id.clone(), new);
        (old != Some(new)).then(|| Progress::Bytes {
            done: self.0.values().map(|(done, _)| *done).fold(0, u64::saturating_add),
            total: self.0.values().try_fold(0u64, |sum, (_, total)| Some(sum.saturating_add((*total)?))),
        })
    }
}

#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(lines: impl Iterator<Item = CreateImageInfo>) {
    let mut layers = Layers::default();
    for line in lines {
        let _progress = layers.update(&line);
        assert!(layers.0.len() <= MAX_LAYERS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::ProgressDetail;

    fn line(id: &str, status: &str, current: i64, total: i64) -> CreateImageInfo {
        CreateImageInfo {
            id: Some(id.into()),
            status: Some(status.into()),
            progress_detail: Some(ProgressDetail { current: Some(current), total: Some(total) }),
            ..Default::default()
        }
    }

    #[test]
    fn the_total_is_known_once_every_layers_is() {
        let mut layers = Layers::default();
        let bytes = |done, total| Some(Progress::Bytes { done, total });
        assert_eq!(layers.update(&line("a", "Pulling fs layer", 0, 0)), bytes(0, None));
        assert_eq!(layers.update(&line("b", "Already exists", 0, 0)), bytes(0, None));
        assert_eq!(layers.update(&line("a", "Downloading", 5, 10)), bytes(5, Some(10)));
        assert_eq!(layers.update(&line("a", "Download complete", 0, 0)), bytes(10, Some(10)));
        assert_eq!(layers.update(&line("a", "Extracting", 3, 10)), None);
        assert_eq!(layers.update(&line("a", "Pull complete", 0, 0)), None);
    }

    #[test]
    fn hostile_numbers_do_not_overflow() {
        let mut layers = Layers::default();
        layers.update(&line("a", "Downloading", i64::MAX, -1));
        layers.update(&line("b", "Downloading", i64::MAX, -1));
        layers.update(&line("c", "Downloading", i64::MAX, i64::MIN));
    }
}
