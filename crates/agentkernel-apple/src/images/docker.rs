//! An image with a local name, from Docker: saved by its command, and loaded here.
use std::{env, io};

use agentkernel_core::{Error, ErrorKind, ImageRef, Result};

use super::load;
use crate::{
    argv,
    backend::Shared,
    command::{Answer, Program, Secret},
};

const IMPORT: &str = "import image from Docker";
/// What tells `docker` where its engine is.
const WHERE: [&str; 6] = [
    "DOCKER_API_VERSION",
    "DOCKER_CERT_PATH",
    "DOCKER_CONFIG",
    "DOCKER_CONTEXT",
    "DOCKER_HOST",
    "DOCKER_TLS_VERIFY",
];

/// Imports an image, and returns whether Docker is there and has it.
///
/// # Errors
/// `Unexpected` if Docker has it and cannot save it, and those of loading it.
pub(crate) async fn import(shared: &Shared, image: &ImageRef) -> Result<bool> {
    let Ok(docker) = which::which(shared.config.docker.as_deref().unwrap_or("docker".as_ref())) else {
        return Ok(false);
    };
    let docker = Program::new(docker);
    let (mut answer, mut file) = save(shared, &docker, image, true).await?;
    if answer.code != Some(0) && says(&answer, &["unknown flag", "requires API version"]) {
        (answer, file) = save(shared, &docker, image, false).await?;
    }
    match answer.code {
        Some(0) => load::load(shared, file, image).await.map(|()| true),
        // Docker is not running, or does not have it: it is not to be had from there.
        _ if says(
            &answer,
            &[
                "No such image",
                "reference does not exist",
                "Cannot connect",
                "not found",
                "error during connect",
            ],
        ) =>
        {
            Ok(false)
        }
        code => {
            let words = String::from_utf8_lossy(&answer.stderr).chars().take(400).collect::<String>();
            Err(Error::unexpected(IMPORT, "`docker save` failed", io::Error::other(words))
                .with_context("backend", "apple")
                .with_context("image", image)
                .with_context("code", code.map_or_else(|| "killed".to_owned(), |code| code.to_string())))
        }
    }
}

async fn save(
    shared: &Shared,
    docker: &Program,
    image: &ImageRef,
    platform: bool,
) -> Result<(Answer, std::fs::File)> {
    let (spool, kept) = load::blocking(|| {
        let spool = tempfile::tempfile()?;
        Ok((spool.try_clone()?, spool))
    })
    .await?
    .map_err(load::no_room)?;
    let mut line = argv::docker_save(image, platform.then(argv::host_arch));
    line.env = WHERE
        .iter()
        .filter_map(|name| Some(Secret { name: (*name).to_owned(), value: env::var(name).ok()? }))
        .collect();
    let answer = docker.run_with(IMPORT, &line, shared.config.transfer_timeout, None, Some(spool)).await;
    match answer {
        Ok(answer) => Ok((answer, kept)),
        Err(error) if error.kind() == ErrorKind::Timeout => {
            Err(Error::new(ErrorKind::Timeout, IMPORT, "`docker save` did not end in time")
                .with_context("image", image))
        }
        Err(error) => Err(error),
    }
}

fn says(answer: &Answer, words: &[&str]) -> bool {
    let text = String::from_utf8_lossy(&answer.stderr);
    words.iter().any(|word| text.contains(word))
}
