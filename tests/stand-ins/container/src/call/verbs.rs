//! What each command does.
pub(crate) mod container;
pub(crate) mod copy;
pub(crate) mod create;
pub(crate) mod exec;
pub(crate) mod image;
pub(crate) mod lifecycle;
pub(crate) mod mounts;
pub(crate) mod network;
pub(crate) mod query;
pub(crate) mod system;
pub(crate) mod volume;
