//! The flags of what backends keep: snapshots, images and volumes.
use std::path::PathBuf;

use agentkernel_core::{ImageRef, SandboxName, VolumeName};
use clap::{Args, Subcommand};

use super::ListingArgs;
use crate::complete;
use crate::values::checked;

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotVerb {
    /// Keep a sandbox's files and config
    Take(SnapshotTakeArgs),
    /// List snapshots
    #[command(visible_alias = "ls")]
    List(ListingArgs),
    /// Make and boot a sandbox of a snapshot, with the config that it had
    Restore(SnapshotRestoreArgs),
    /// Remove snapshots
    #[command(visible_alias = "rm")]
    Remove(SnapshotRemoveArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SnapshotTakeArgs {
    /// Name of the sandbox
    #[arg(value_parser = checked::<SandboxName>, add = complete::sandbox())]
    pub(crate) name: SandboxName,
    /// Name of the snapshot; by default the sandbox's
    #[arg(value_parser = checked::<SandboxName>)]
    pub(crate) snapshot: Option<SandboxName>,
}

#[derive(Debug, Args)]
pub(crate) struct SnapshotRestoreArgs {
    /// Name of the snapshot
    #[arg(value_parser = checked::<SandboxName>)]
    pub(crate) snapshot: SandboxName,
    /// Name of the new sandbox; by default the snapshot's
    #[arg(value_parser = checked::<SandboxName>)]
    pub(crate) name: Option<SandboxName>,
}

#[derive(Debug, Args)]
pub(crate) struct SnapshotRemoveArgs {
    /// Names of the snapshots
    #[arg(required = true, value_name = "SNAPSHOT", value_parser = checked::<SandboxName>)]
    pub(crate) snapshots: Vec<SandboxName>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageVerb {
    /// List images
    #[command(visible_alias = "ls")]
    List(ListingArgs),
    /// Fetch images from their registries
    Pull(ImagesArgs),
    /// Make an image of an archive, of `docker save` or of a root file system
    Import(ImageImportArgs),
    /// Remove images' names, and the images with their last one
    #[command(visible_alias = "rm")]
    Remove(ImagesArgs),
    /// Remove what was imported or kept here and has lost its name
    Prune,
}

#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// Names of the images
    #[arg(required = true, value_name = "IMAGE", value_parser = checked::<ImageRef>)]
    pub(crate) images: Vec<ImageRef>,
}

#[derive(Debug, Args)]
pub(crate) struct ImageImportArgs {
    /// The archive, or `-` for stdin
    pub(crate) archive: PathBuf,
    /// Name of the image
    #[arg(value_parser = checked::<ImageRef>)]
    pub(crate) image: ImageRef,
}

#[derive(Debug, Subcommand)]
pub(crate) enum VolumeVerb {
    /// List volumes
    #[command(visible_alias = "ls")]
    List(ListingArgs),
    /// Remove volumes and what is in them
    #[command(visible_alias = "rm")]
    Remove(VolumesArgs),
}

#[derive(Debug, Args)]
pub(crate) struct VolumesArgs {
    /// Names of the volumes
    #[arg(required = true, value_name = "VOLUME", value_parser = checked::<VolumeName>)]
    pub(crate) volumes: Vec<VolumeName>,
}
