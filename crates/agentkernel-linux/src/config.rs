//! Where the backend keeps its things, and how long it waits.
use std::{path::PathBuf, time::Duration};

/// How the backend works. The default needs nothing.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinuxConfig {
    /// The guest's program, which is also the helper. Default: found beside the executable.
    pub guest: Option<PathBuf>,
    /// Where sandboxes, images and volumes are kept. Default: `/var/lib/agentkernel/linux` for root,
    /// `~/.local/share/agentkernel/linux` for others.
    pub data: Option<PathBuf>,
    /// How long an end that was asked for may take beyond its grace.
    pub end_timeout: Duration,
}

impl Default for LinuxConfig {
    fn default() -> Self {
        Self { guest: None, data: None, end_timeout: Duration::from_secs(5) }
    }
}

impl LinuxConfig {
    /// Sets [`guest`](Self::guest).
    #[must_use]
    pub fn with_guest(mut self, program: impl Into<PathBuf>) -> Self {
        self.guest = Some(program.into());
        self
    }

    /// Sets [`data`](Self::data).
    #[must_use]
    pub fn with_data(mut self, directory: impl Into<PathBuf>) -> Self {
        self.data = Some(directory.into());
        self
    }

    /// Sets [`end_timeout`](Self::end_timeout).
    #[must_use]
    pub fn with_end_timeout(mut self, timeout: Duration) -> Self {
        self.end_timeout = timeout;
        self
    }
}
