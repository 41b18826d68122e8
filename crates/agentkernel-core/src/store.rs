//! Images and volumes of a backend.
use std::fmt;

use async_trait::async_trait;
use serde::Serialize;

use crate::{Events, ImageRef, Result, SandboxConfig, SandboxName, Source, VolumeName};

/// The images of a backend.
#[async_trait]
pub trait ImageStore: fmt::Debug + Send + Sync {
    /// Returns whether an image that is not present can be fetched from somewhere. A backend that cannot is passed over
    /// for what it has not, unless the caller chose it.
    fn pulls(&self) -> bool;

    /// Returns the image if it is present.
    async fn inspect(&self, image: &ImageRef) -> Result<Option<ImageInfo>>;

    /// Pulls an image; the last event is [`Progress::Done`]. Local names are never pulled.
    ///
    /// # Cancellation
    /// Dropping the stream cancels the pull.
    async fn pull(&self, image: &ImageRef) -> Result<Events<Progress>>;

    /// Loads an archive, either of `docker save` or a plain root file system, plain or compressed as the engine accepts,
    /// and names it.
    async fn import(&self, archive: Source<'_>, name: &ImageRef) -> Result<ImageInfo>;

    /// Returns the images, ordered by name.
    async fn list(&self) -> Result<Vec<ImageInfo>>;

    /// Removes an image's name, and the image with its last name.
    async fn remove(&self, image: &ImageRef) -> Result<()>;

    /// Keeps a sandbox's file system as an image, with the config of the sandbox: [`ImageInfo::config`] brings it back.
    /// Mounts, volumes and tmpfs are no part of the image, and commands stand still meanwhile.
    /// Requires [`Capability::Snapshot`](crate::Capability::Snapshot).
    ///
    /// # Errors
    /// `NotFound` if there is no such sandbox, `AlreadyExists` if an image has the name.
    async fn commit(&self, sandbox: &SandboxName, name: &ImageRef) -> Result<ImageInfo>;

    /// Removes what was made here, by [`import`](Self::import) or [`commit`](Self::commit), and has lost its name to a
    /// newer image, unless a sandbox uses it. What others keep in the same engine is left alone, and so are pulled images.
    async fn prune(&self) -> Result<Pruned>;
}

/// The named volumes of a backend.
#[async_trait]
pub trait VolumeStore: fmt::Debug + Send + Sync {
    /// Returns our volumes, ordered by name.
    async fn list(&self) -> Result<Vec<VolumeInfo>>;

    /// Removes a volume and its content.
    async fn remove(&self, name: &VolumeName) -> Result<()>;
}

/// An image.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageInfo {
    /// Its name.
    pub name: String,
    /// The engine's id of it.
    pub id: String,
    /// The digest in its registry (`sha256:…`), if it came from one.
    pub digest: Option<String>,
    /// Size in bytes.
    pub size: u64,
    /// Creation, in seconds since 1970.
    pub created: i64,
    /// Of a snapshot that was taken on this machine, and only as [`ImageStore::inspect`] tells it: the config that its
    /// sandbox had, without variables, which are the image's own now, and without files, which are in it.
    pub config: Option<Box<SandboxConfig>>,
}

impl ImageInfo {
    /// Makes an info from what every backend knows.
    pub fn new(name: impl Into<String>, id: impl Into<String>) -> Self {
        Self { name: name.into(), id: id.into(), digest: None, size: 0, created: 0, config: None }
    }
}

/// What [`ImageStore::prune`] removed.
#[non_exhaustive]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// The engine's ids of the images.
    pub images: Vec<String>,
    /// The space that is free now, in bytes.
    pub bytes: u64,
}

/// How far a pull is.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Bytes fetched so far and, once known, of how many.
    Bytes {
        /// Fetched.
        done: u64,
        /// All.
        total: Option<u64>,
    },
    /// How much of it is here, of a hundred, where bytes are not told.
    Percent(u8),
    /// The image is here.
    Done(ImageInfo),
}

/// A volume.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VolumeInfo {
    /// Its name.
    pub name: VolumeName,
}

impl VolumeInfo {
    /// Makes an info.
    pub fn new(name: VolumeName) -> Self {
        Self { name }
    }
}
