//! The image `host`: which of this machine's directories are shown, and where the caller's tools are.
use std::{
    fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

/// The image's name.
pub(crate) const HOST: &str = "host";

/// What is shown of every machine, if it is there.
pub(crate) const SYSTEM: [&str; 10] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/nix/store"];

/// Tools that people install into their home directories, without the files beside them that hold credentials.
const TOOLS: [&str; 15] = [
    ".cargo/bin",
    ".cargo/env",
    ".cargo/registry",
    ".cargo/git",
    ".rustup",
    ".nvm",
    ".pyenv",
    ".local/bin",
    ".local/share/uv/python",
    ".local/share/uv/tools",
    ".local/share/pnpm",
    ".bun/bin",
    ".deno/bin",
    "go/bin",
    "go/pkg",
];
/// Which of them belong in `PATH`.
const PROGRAMS: [&str; 6] = [".cargo/bin", ".local/bin", ".pyenv/shims", ".bun/bin", ".deno/bin", "go/bin"];
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A file of the host, told so that another one in its place would be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Without links.
    pub path: PathBuf,
    pub device: u64,
    pub inode: u64,
    pub uid: u32,
    pub gid: u32,
}

impl Place {
    pub(crate) fn find(path: &Path) -> std::io::Result<Self> {
        let path = fs::canonicalize(path)?;
        let metadata = fs::symlink_metadata(&path)?;
        let (device, inode) = (metadata.dev(), metadata.ino());
        Ok(Self { path, device, inode, uid: metadata.uid(), gid: metadata.gid() })
    }
}

/// The caller's home directory as it is inside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Home {
    pub path: Option<PathBuf>,
    /// Where tools are inside, and what they are.
    pub tools: Vec<(PathBuf, Place)>,
}

impl Home {
    /// Looks for tools. A home directory that would cover what is shown is none.
    pub(crate) fn look(home: Option<&Path>) -> Self {
        let covers = |home: &&Path| {
            SYSTEM.iter().any(|system| Path::new(system).starts_with(home) || home.starts_with(system))
        };
        let Some(path) = home.filter(|home| home.is_absolute() && !covers(home)) else {
            return Self::default();
        };
        let tools = TOOLS.iter().filter_map(|tool| {
            let at = path.join(tool);
            Some((at.clone(), Place::find(&at).ok()?))
        });
        Self { path: Some(path.to_owned()), tools: tools.collect() }
    }

    /// Returns the variables that make the tools work.
    pub(crate) fn env(&self) -> Vec<Vec<u8>> {
        let Some(home) = &self.path else { return Vec::new() };
        let mut search = b"PATH=".to_vec();
        for program in PROGRAMS {
            let at = home.join(program);
            if self.tools.iter().any(|(tool, _)| at.starts_with(tool)) {
                search.extend_from_slice(at.as_os_str().as_bytes());
                search.push(b':');
            }
        }
        search.extend_from_slice(PATH.as_bytes());
        let home = [b"HOME=".as_slice(), home.as_os_str().as_bytes()].concat();
        vec![home, search]
    }
}
