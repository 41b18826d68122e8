//! The engine's images.
use std::{collections::HashMap, time::Duration};

use agentkernel_core::{
    Error, ErrorKind, Events, ImageInfo, ImageRef, ImageStore, Owner, Progress, Pruned, Result, SandboxName,
    Source, async_trait,
};
use agentkernel_host::StateLabels;
use bollard::{
    models::ImageInspect,
    query_parameters::{ListImagesOptions, PruneImagesOptions, RemoveImageOptions},
};
use futures_util::StreamExt;

use crate::{
    EngineKind, credentials,
    engine::{Engine, absent_is_none},
    error, import, podman, pull, snapshot,
    surroundings::Surroundings,
};

/// Says that an image was made here from the archive of a root file system.
pub(crate) const IMPORTED: &str = "agentkernel.imported";

/// The images of an engine.
#[derive(Debug, Clone)]
pub(crate) struct DockerImages {
    engine: Engine,
    /// This process, to know what was made on this machine.
    owner: Owner,
}

/// What commands get from the image if the config says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageDefaults {
    pub id: String,
    pub user: Option<String>,
    pub cwd: Option<String>,
}

impl DockerImages {
    pub(crate) fn new(engine: Engine, owner: Owner) -> Self {
        Self { engine, owner }
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    fn command(&self) -> &'static str {
        self.engine.kind().command()
    }

    /// Asks by the engine's id of the image, or by a checked name.
    async fn ask(&self, name: &str) -> Result<Option<ImageInspect>> {
        absent_is_none(self.engine.ask("inspect image", self.engine.docker().inspect_image(name)).await)
    }

    /// Returns the defaults of an image by the engine's id (`sha256:…`).
    pub(crate) async fn defaults(&self, id: &str) -> Result<ImageDefaults> {
        let hex = id.strip_prefix("sha256:").unwrap_or_default();
        if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let shown = id.chars().take(80).collect::<String>();
            return Err(Error::unexpected("inspect image", "the engine's id of it is none", shown));
        }
        let found = self.ask(id).await?.map(read_defaults);
        found.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "inspect image", "the sandbox's image is gone")
                .with_context("image", id)
                .with_hint("remove the sandbox, and make it anew")
        })
    }

    /// Returns the defaults of an image by name, if it is present.
    pub(crate) async fn defaults_of(&self, image: &ImageRef) -> Result<Option<ImageDefaults>> {
        Ok(self.ask(image.as_str()).await?.map(read_defaults))
    }

    /// Pulls an image and waits for the end.
    pub(crate) async fn pull_to_end(&self, image: &ImageRef) -> Result<()> {
        let mut progress = self.pull(image).await?;
        while let Some(event) = progress.next().await {
            event?;
        }
        Ok(())
    }

    /// Returns an image that was just made.
    pub(crate) async fn present(&self, image: &ImageRef) -> Result<ImageInfo> {
        self.inspect(image).await?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "inspect image", "the engine has lost it")
                .with_context("image", image)
        })
    }
}

fn read_defaults(image: ImageInspect) -> ImageDefaults {
    let config = image.config.unwrap_or_default();
    let some = |text: Option<String>| text.filter(|text| !text.is_empty());
    ImageDefaults { id: image.id.unwrap_or_default(), user: some(config.user), cwd: some(config.working_dir) }
}

/// Refuses a name for a new image that has a digest: an image's content has one, not its name.
pub(crate) fn check_new_name(operation: &'static str, name: &ImageRef) -> Result<()> {
    if name.digest().is_none() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidConfig, operation, "the name has a digest")
        .with_context("image", name)
        .with_hint("give it a name and a tag only"))
}

/// Returns the digest that a registry knows an image by: that of the same repository, if there are several.
pub(crate) fn digest_of(repo_digests: &[String], name: &str) -> Option<String> {
    let split = |text: &String| {
        let (repository, digest) = text.split_once('@')?;
        Some((repository.to_owned(), digest.to_owned()))
    };
    let all = repo_digests.iter().filter_map(split).collect::<Vec<_>>();
    let same = all.iter().find(|(repository, _)| repository == name);
    same.or(all.first()).map(|(_, digest)| digest.clone())
}

#[async_trait]
impl ImageStore for DockerImages {
    fn pulls(&self) -> bool {
        true
    }

    async fn inspect(&self, image: &ImageRef) -> Result<Option<ImageInfo>> {
        let Some(found) = self.ask(image.as_str()).await? else { return Ok(None) };
        let mut info = ImageInfo::new(image.as_str(), found.id.unwrap_or_default());
        info.digest = digest_of(&found.repo_digests.unwrap_or_default(), image.name());
        info.size = found.size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default();
        info.created = found.created.as_deref().and_then(seconds).unwrap_or_default();
        let labels = found.config.as_ref().and_then(|config| config.labels.as_ref());
        info.config = snapshot::config(labels, image, &self.owner).map(Box::new);
        Ok(Some(info))
    }

    async fn pull(&self, image: &ImageRef) -> Result<Events<Progress>> {
        if image.is_local() {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "pull image",
                "an image of this name is never pulled",
            )
            .with_context("image", image)
            .with_hint(format!(
                "make it on this machine, or import it: `{0} import`, `{0} load`",
                self.command()
            )));
        }
        let directory =
            self.engine.config().credentials.clone().or_else(|| Surroundings::of_this_process().config_dir());
        let credentials = match directory {
            Some(directory) => credentials::find(&directory, image).await?,
            None => None,
        };
        Ok(pull::pull(self.clone(), image.clone(), credentials))
    }

    async fn import(&self, archive: Source<'_>, name: &ImageRef) -> Result<ImageInfo> {
        import::import(self, archive, name).await
    }

    async fn list(&self) -> Result<Vec<ImageInfo>> {
        let call = self.engine.docker().list_images(None::<ListImagesOptions>);
        let mut all = Vec::new();
        for image in self.engine.ask("list images", call).await? {
            for tag in image.repo_tags.iter().filter(|tag| *tag != "<none>:<none>") {
                let tag = match self.engine.kind() {
                    EngineKind::Docker => tag.as_str(),
                    EngineKind::Podman => podman::short_name(tag),
                };
                let mut info = ImageInfo::new(tag, &image.id);
                let name = tag.rsplit_once(':').map_or(tag, |(name, _)| name);
                info.digest = digest_of(&image.repo_digests, name);
                info.size = u64::try_from(image.size).unwrap_or_default();
                info.created = image.created;
                all.push(info);
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    async fn remove(&self, image: &ImageRef) -> Result<()> {
        let call = self.engine.docker().remove_image(image.as_str(), None::<RemoveImageOptions>, None);
        match self.engine.order("remove image", call).await {
            Ok(_) => Ok(()),
            Err(failure) => {
                let failure = match error::status(&failure) {
                    Some(409) => failure.with_hint("remove the sandboxes that use it first"),
                    Some(404) => failure.with_hint(format!("see `{} images`", self.command())),
                    _ => failure,
                };
                Err(failure.with_context("image", image))
            }
        }
    }

    async fn commit(&self, sandbox: &SandboxName, name: &ImageRef) -> Result<ImageInfo> {
        snapshot::commit(self, sandbox, name).await
    }

    async fn prune(&self) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        // Both labels at once would mean images that have both.
        for label in [IMPORTED, StateLabels::VERSION_LABEL] {
            let filters = [("dangling", "true"), ("label", label)];
            let filters = filters.map(|(name, value)| (name.to_owned(), vec![value.to_owned()]));
            let options = PruneImagesOptions { filters: Some(HashMap::from(filters)) };
            let call = self.engine.docker().prune_images(Some(options));
            let patience = self.engine.config().transfer_timeout;
            let answer = self.engine.within(patience, "prune images", call).await?;
            let deleted = answer.images_deleted.unwrap_or_default();
            pruned.images.extend(deleted.into_iter().filter_map(|image| image.deleted));
            pruned.bytes +=
                answer.space_reclaimed.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default();
        }
        Ok(pruned)
    }
}

/// Reads a time as the engine writes it (RFC 3339, in UTC), as seconds since 1970.
fn seconds(text: &str) -> Option<i64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    // Days of the civil calendar, with years that begin in March.
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    let time = Duration::from_secs(u64::try_from(hour * 3600 + minute * 60 + second).ok()?);
    Some(days * 86_400 + i64::try_from(time.as_secs()).ok()?)
}

#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(image: ImageInspect) {
    let _digest = digest_of(image.repo_digests.as_deref().unwrap_or_default(), "busybox");
    let _created = image.created.as_deref().map(seconds);
    let defaults = read_defaults(image);
    assert!(
        defaults.user.is_none_or(|user| !user.is_empty()) && defaults.cwd.is_none_or(|cwd| !cwd.is_empty())
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(seconds("2024-02-29T12:34:56.789Z"), Some(1_709_210_096));
        assert_eq!(seconds("0001-01-01T00:00:00Z"), Some(-62_135_596_800));
        assert_eq!(seconds("yesterday"), None);
    }

    #[test]
    fn the_digest_of_the_same_repository_is_preferred() {
        let all = ["a/b@sha256:1".to_owned(), "c@sha256:2".to_owned()];
        assert_eq!(digest_of(&all, "c").as_deref(), Some("sha256:2"));
        assert_eq!(digest_of(&all, "d").as_deref(), Some("sha256:1"));
        assert_eq!(digest_of(&[], "d"), None);
    }
}
