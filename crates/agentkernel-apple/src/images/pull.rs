//! Pulling an image for this machine's architecture, with progress.
use std::sync::Arc;

use agentkernel_core::{Error, ErrorKind, Events, ImageRef, Progress, Result};
use futures_util::{StreamExt, stream};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines, Take},
    process::{Child, ChildStderr},
    time::{Instant, timeout_at},
};

use super::{describe, find};
use crate::{argv, backend::Shared, command, error, json};

const PULL: &str = "pull image";
/// The most of its words that is read, and kept to tell an error.
const MAX_WORDS: u64 = 16 << 20;
const KEPT: usize = 64 << 10;

struct Pull {
    shared: Arc<Shared>,
    image: ImageRef,
    child: Child,
    lines: Lines<BufReader<Take<ChildStderr>>>,
    words: String,
    last: Option<u8>,
    deadline: Instant,
    ended: bool,
}

fn check(image: &ImageRef) -> Result<()> {
    if !image.is_local() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidConfig, PULL, "an image of this name is never pulled")
        .with_context("image", image)
        .with_hint("make it on this machine, or import it: agentkernel image import"))
}

/// Pulls an image; dropping the stream kills the call.
pub(crate) fn pull(shared: Arc<Shared>, image: ImageRef) -> Result<Events<Progress>> {
    check(&image)?;
    let line = argv::image_pull(&image, argv::host_arch(), argv::Shown::Plain);
    let mut command = shared.program.command(&line);
    command.stdout(std::process::Stdio::null());
    let mut child = shared.program.spawn(PULL, &mut command)?;
    let Some(stderr) = child.stderr.take() else {
        return Err(Error::unexpected(PULL, "`container` has no stderr", "it was not piped"));
    };
    let lines = BufReader::new(stderr.take(MAX_WORDS)).lines();
    let deadline = Instant::now() + shared.config.transfer_timeout;
    let pull = Pull { shared, image, child, lines, words: String::new(), last: None, deadline, ended: false };
    Ok(stream::unfold(pull, |mut pull| async move {
        if pull.ended {
            return None;
        }
        let event = pull.next().await;
        pull.ended = !matches!(event, Ok(Progress::Percent(_)));
        Some((event, pull))
    })
    .boxed())
}

impl Pull {
    async fn next(&mut self) -> Result<Progress> {
        loop {
            match timeout_at(self.deadline, self.lines.next_line()).await {
                Err(_) => {
                    command::end(&mut self.child).await;
                    return Err(error::timed_out(PULL).with_context("image", &self.image));
                }
                Ok(Ok(Some(line))) => match json::percent(&line) {
                    Some(percent) if self.last != Some(percent) => {
                        self.last = Some(percent);
                        return Ok(Progress::Percent(percent));
                    }
                    Some(_) => {}
                    None if self.words.len() < KEPT => {
                        self.words.push_str(&line);
                        self.words.push('\n');
                    }
                    None => {}
                },
                // What is no text is no progress.
                Ok(Err(error)) if error.kind() == std::io::ErrorKind::InvalidData => {}
                Ok(Ok(None) | Err(_)) => return self.end().await,
            }
        }
    }

    async fn end(&mut self) -> Result<Progress> {
        let Ok(status) = timeout_at(self.deadline, self.child.wait()).await else {
            command::end(&mut self.child).await;
            return Err(error::timed_out(PULL).with_context("image", &self.image));
        };
        match status.map_err(Error::from)?.code() {
            Some(0) => {}
            code => return Err(refused(code, self.words.as_bytes(), &self.image)),
        }
        let found = find(&self.shared, &self.image).await?;
        found.map(|found| Progress::Done(describe(&found, self.image.as_str()))).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, PULL, "`container` has lost it")
                .with_context("image", &self.image)
        })
    }
}

/// What a registry answers comes as text.
fn refused(code: Option<i32>, stderr: &[u8], image: &ImageRef) -> Error {
    let failure = error::failed(PULL, code, stderr).with_context("image", image);
    let text = String::from_utf8_lossy(stderr);
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let (kind, message, hint) = if says(&["401", "403", "nauthorized", "denied"]) {
        let hint = format!("log in: container registry login {}", image.registry().unwrap_or("docker.io"));
        (ErrorKind::PermissionDenied, "the registry refuses it", hint)
    } else if says(&["404", "not found", "MANIFEST_UNKNOWN"]) {
        (
            ErrorKind::NotFound,
            "the registry does not have it",
            "see whether name and tag are right".to_owned(),
        )
    } else if says(&["unsupported"]) {
        let message = "the registry does not have it for this machine's architecture";
        (ErrorKind::NotFound, message, format!("it must be there for linux/{}", argv::host_arch()))
    } else {
        return failure;
    };
    Error::new(kind, PULL, message)
        .with_context("backend", "apple")
        .with_context("image", image)
        .with_hint(hint)
        .with_source(failure)
}

/// Pulls an image and waits for the end.
pub(crate) async fn to_end(shared: &Shared, image: &ImageRef) -> Result<()> {
    check(image)?;
    let line = argv::image_pull(image, argv::host_arch(), argv::Shown::Nothing);
    let answer = shared.program.run(PULL, &line, shared.config.transfer_timeout).await?;
    match answer.code {
        Some(0) => Ok(()),
        code => Err(refused(code, &answer.stderr, image)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_registry_refuses_is_told_by_its_words() {
        let image = "ghcr.io/a/b:1".parse().unwrap();
        for (text, kind) in [
            (
                "Error: HTTP request to https://x failed with response: 404 Not Found. Reason: Unknown",
                ErrorKind::NotFound,
            ),
            (
                "Error: HTTP request to https://x failed with response: 401 Unauthorized",
                ErrorKind::PermissionDenied,
            ),
            ("Error: unsupported: \"platform linux/amd64/v8\"", ErrorKind::NotFound),
            ("Error: interrupted: \"XPC connection error: Connection invalid\"", ErrorKind::Unavailable),
            ("Error: something", ErrorKind::Unexpected),
        ] {
            assert_eq!(refused(Some(1), text.as_bytes(), &image).kind(), kind, "{text}");
        }
    }
}
