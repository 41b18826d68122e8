//! The images of `container`.
mod docker;
pub(crate) mod layout;
mod load;
mod pull;
mod snapshot;

use std::sync::Arc;

use agentkernel_core::{
    Error, ErrorKind, Events, ImageInfo, ImageRef, ImageStore, Progress, Pruned, PullPolicy, Result,
    SandboxName, Source, async_trait,
};

use crate::{
    argv,
    backend::Shared,
    error,
    json::{self, Image},
};

/// The images of `container`.
#[derive(Debug)]
pub(crate) struct AppleImages {
    pub shared: Arc<Shared>,
}

/// Makes sure that the image of a sandbox is here.
///
/// # Errors
/// `NotFound` if it is not, and may not be pulled or has a local name and is not in Docker either.
pub(crate) async fn ensure(shared: &Shared, image: &ImageRef, policy: PullPolicy) -> Result<()> {
    let may_pull = policy != PullPolicy::Never && !image.is_local();
    if policy == PullPolicy::Always && may_pull {
        return pull::to_end(shared, image).await;
    }
    if find(shared, image).await?.is_some() {
        return Ok(());
    }
    if may_pull {
        return pull::to_end(shared, image).await;
    }
    if image.is_local() && docker::import(shared, image).await? {
        return Ok(());
    }
    Err(missing(image))
}

/// Asks for an image.
pub(crate) async fn find(shared: &Shared, image: &ImageRef) -> Result<Option<Image>> {
    let operation = "look for image";
    let answer = shared.ask_again(operation, &argv::image_inspect(image)).await?;
    if answer.code == Some(0) {
        return Ok(json::images(operation, &answer.stdout)?.into_iter().next());
    }
    match error::failed(operation, answer.code, &answer.stderr) {
        absent if absent.kind() == ErrorKind::NotFound => Ok(None),
        // 0.12 logs it, and prints what it has found.
        _ if answer.stdout.starts_with(b"[]") => Ok(None),
        other => Err(other.with_context("image", image)),
    }
}

fn missing(image: &ImageRef) -> Error {
    let hint = match image.is_local() {
        true => "this name is never pulled: was the snapshot made on this machine?".to_owned(),
        false => format!("pull it: `--pull missing`, or `container image pull {image}`"),
    };
    let message = match image.is_local() {
        true => "image not found, neither here nor in Docker",
        false => "image not found",
    };
    Error::new(ErrorKind::NotFound, "create sandbox", message)
        .with_context("backend", "apple")
        .with_context("image", image)
        .with_hint(hint)
}

/// Refuses a name for a new image that has a digest: an image's content has one, not its name.
fn check_new_name(operation: &'static str, name: &ImageRef) -> Result<()> {
    if name.digest().is_none() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidConfig, operation, "the name has a digest")
        .with_context("image", name)
        .with_hint("give it a name and a tag only"))
}

/// Returns a name as `container` stores it (reference 1.7): whole.
fn whole_name(name: &ImageRef) -> String {
    let tag = name.tag().map_or_else(|| "latest".to_owned(), str::to_owned);
    let rest = name.name();
    match (name.registry(), rest.contains('/')) {
        (Some(_), _) => format!("{rest}:{tag}"),
        (None, true) => format!("docker.io/{rest}:{tag}"),
        (None, false) => format!("docker.io/library/{rest}:{tag}"),
    }
}

fn describe(image: &Image, name: &str) -> ImageInfo {
    let mut info = ImageInfo::new(name, image.digest.trim_start_matches("sha256:"));
    let is_local = name.parse::<ImageRef>().is_ok_and(|name| name.is_local());
    info.digest = (!is_local).then(|| image.digest.clone());
    info.size = image.variant(argv::host_arch()).map_or(0, |variant| variant.size);
    info.created = image.created;
    info
}

#[async_trait]
impl ImageStore for AppleImages {
    fn pulls(&self) -> bool {
        true
    }

    async fn inspect(&self, image: &ImageRef) -> Result<Option<ImageInfo>> {
        self.shared.health().await?;
        let Some(found) = find(&self.shared, image).await? else { return Ok(None) };
        let mut info = describe(&found, image.as_str());
        info.config = snapshot::config(&found, image, &self.shared.host.owner).map(Box::new);
        Ok(Some(info))
    }

    async fn pull(&self, image: &ImageRef) -> Result<Events<Progress>> {
        self.shared.health().await?;
        pull::pull(Arc::clone(&self.shared), image.clone())
    }

    async fn import(&self, archive: Source<'_>, name: &ImageRef) -> Result<ImageInfo> {
        check_new_name("import image", name)?;
        self.shared.health().await?;
        load::import(&self.shared, archive, name).await?;
        self.present("import image", name).await
    }

    async fn list(&self) -> Result<Vec<ImageInfo>> {
        let operation = "list images";
        self.shared.health().await?;
        let answer = self.shared.ask_again(operation, &argv::image_list()).await?;
        if answer.code != Some(0) {
            return Err(error::failed(operation, answer.code, &answer.stderr));
        }
        let images = json::images(operation, &answer.stdout)?;
        let mut all = images.iter().map(|image| describe(image, image.short_name())).collect::<Vec<_>>();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    async fn remove(&self, image: &ImageRef) -> Result<()> {
        let operation = "remove image";
        self.shared.health().await?;
        let answer = self
            .shared
            .program
            .run(operation, &argv::image_delete(image), self.shared.config.boot_timeout)
            .await?;
        if answer.code == Some(0) {
            return Ok(());
        }
        // Its words are the same for one that is absent and for one that cannot be removed.
        let failure = error::failed(operation, answer.code, &answer.stderr).with_context("image", image);
        if failure.kind() != ErrorKind::Unavailable && find(&self.shared, image).await?.is_none() {
            return Err(Error::new(ErrorKind::NotFound, operation, "image not found")
                .with_context("backend", "apple")
                .with_context("image", image)
                .with_hint("see `container image list`")
                .with_source(failure));
        }
        Err(failure)
    }

    async fn commit(&self, sandbox: &SandboxName, name: &ImageRef) -> Result<ImageInfo> {
        check_new_name(snapshot::COMMIT, name)?;
        snapshot::commit(&self.shared, sandbox, name).await?;
        self.present(snapshot::COMMIT, name).await
    }

    /// Nothing that was made here is ever without a name: a new image takes the name of the old one, which `container`
    /// then forgets by itself.
    async fn prune(&self) -> Result<Pruned> {
        self.shared.health().await?;
        Ok(Pruned::default())
    }
}

impl AppleImages {
    /// Returns an image that was just made.
    async fn present(&self, operation: &'static str, name: &ImageRef) -> Result<ImageInfo> {
        self.inspect(name).await?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, operation, "`container` has lost it")
                .with_context("backend", "apple")
                .with_context("image", name)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_whole_as_they_are_stored() {
        for (name, whole) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("agentkernel-snap:a", "docker.io/library/agentkernel-snap:a"),
            ("a/b:1", "docker.io/a/b:1"),
            ("localhost:5000/b", "localhost:5000/b:latest"),
        ] {
            assert_eq!(whole_name(&name.parse().unwrap()), whole);
        }
    }

    #[test]
    fn a_local_name_that_is_nowhere_asks_where_it_was_made() {
        let error = missing(&"agentkernel-snap:x".parse().unwrap());
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.hint().unwrap().contains("was the snapshot made on this machine?"));
    }
}
