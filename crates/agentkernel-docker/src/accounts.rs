//! The two files inside that the engine itself opens before each start, to look up the user: `/etc/passwd` and
//! `/etc/group`, first in the bare root file system, then with everything mounted.
//!
//! It opens whatever is there. A FIFO holds it for ever, and with it every other call about the container, even its
//! removal; a link to `/dev/urandom` or a long file fills the machine's memory. So we look first, by calls that open
//! nothing, and refuse what is neither absent nor a small regular file.
//!
//! What we are shown has the mounts in place. A mount that a link inside leads to one of the two files would hide what
//! the engine opens: no link is accepted on the way to a mount, and none that leads through one.
pub(crate) mod mounted;
mod walk;

use agentkernel_core::{Error, ErrorKind, Result, SandboxName};
use tokio::time::timeout;

use crate::{
    EngineKind,
    engine::{Engine, absent_is_none},
    error,
    id::ContainerId,
};
use walk::{Entry, Look, Refusal};

/// Makes sure that a start cannot hang in the engine.
///
/// # Errors
/// `Conflict` (`InvalidConfig` at the first start, when only the image and the config can be the cause) if it could;
/// `Timeout` if the engine does not answer.
pub(crate) async fn check(
    engine: &Engine,
    id: &ContainerId,
    name: &SandboxName,
    targets: &[String],
    is_first: bool,
) -> Result<()> {
    let checked = async {
        if engine.kind() == EngineKind::Podman
            && let Some(checked) = mounted::with_root(engine, id, mounted::check).await?
        {
            return checked;
        }
        walk::run(&Inside { engine, id }, targets, is_first).await
    };
    let refusal = match timeout(engine.config().boot_timeout, checked).await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(refusal)) => refusal,
        Err(_) => return Err(error::timed_out("boot sandbox", engine.kind())),
    };
    Err(refusal.into_error(is_first, name))
}

impl Refusal {
    fn into_error(self, is_first: bool, name: &SandboxName) -> Error {
        let (path, why) = match self {
            Self::Failed(error) => return error,
            Self::Found { path, why } => (path, why),
        };
        let error = if is_first {
            let message = "the engine could hang on what its image or `mounts` put in the place of a file";
            Error::new(ErrorKind::InvalidConfig, "boot sandbox", message)
                .with_hint("use another image, or the real path of each target of `mounts` and `volumes`")
        } else {
            let message = "the engine could hang on what a command put in the place of a file";
            Error::new(ErrorKind::Conflict, "boot sandbox", message)
                .with_hint(format!("remove it: agentkernel remove {name}"))
        };
        error.with_context("path", path).with_context("found", why)
    }
}

/// A container as the engine shows it.
struct Inside<'a> {
    engine: &'a Engine,
    id: &'a ContainerId,
}

impl Inside<'_> {
    /// What the engine answers that it cannot look at, such as links in a circle, it could as well hang on.
    fn unseen(path: &str) -> impl FnOnce(Error) -> Refusal {
        move |failure| match error::status(&failure) {
            Some(_) => Refusal::new(path, "the engine cannot look at it"),
            None => Refusal::Failed(failure),
        }
    }
}

impl Look for Inside<'_> {
    async fn entry(&self, path: &str) -> Result<Entry, Refusal> {
        let stat = absent_is_none(self.engine.stat_path(self.id, path).await).map_err(Self::unseen(path))?;
        Ok(stat.map_or(Entry::Absent, |stat| kind(stat.file_mode, stat.size)))
    }

    fn shows_places(&self) -> bool {
        self.engine.kind() == EngineKind::Docker
    }

    async fn link_text(&self, path: &str) -> Result<String, Refusal> {
        let head = self.engine.archive_head(self.id, path).await.map_err(Self::unseen(path))?;
        link_name(&head).ok_or_else(|| Refusal::new(path, "it is a link that is long or no text"))
    }
}

/// Reads a mode as the engine writes it: the bits of Go's `fs.FileMode`, not those of the kernel.
fn kind(mode: u32, size: i64) -> Entry {
    const DIRECTORY: u32 = 1 << 31;
    const LINK: u32 = 1 << 27;
    const REST: u32 = 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19;
    match mode & (DIRECTORY | LINK | REST) {
        0 => u64::try_from(size).map_or(Entry::Other, Entry::File),
        DIRECTORY => Entry::Directory,
        LINK => Entry::Link,
        _ => Entry::Other,
    }
}

/// Reads where a link leads from the first block of the archive of it (ustar; longer ones have another block first).
fn link_name(head: &[u8]) -> Option<String> {
    let (name, kind) = (head.get(157..257)?, head.get(156)?);
    let name = name.split(|byte| *byte == 0).next().filter(|name| !name.is_empty() && *kind == b'2')?;
    String::from_utf8(name.to_vec()).ok()
}

#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(bytes: &[u8]) {
    if let Some((mode, rest)) = bytes.split_first_chunk::<4>()
        && let Some((size, head)) = rest.split_first_chunk::<8>()
    {
        let _entry = kind(u32::from_le_bytes(*mode), i64::from_le_bytes(*size));
        assert!(link_name(head).is_none_or(|name| (1..=100).contains(&name.len())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_gos() {
        assert_eq!(kind(0o644, 5), Entry::File(5));
        assert_eq!(kind(2_147_484_141, 4096), Entry::Directory);
        assert_eq!(kind(134_218_239, 6), Entry::Link);
        for other in [33_554_852, 69_206_436, 1 << 24, 1 << 19, 1 << 31 | 1 << 27] {
            assert_eq!(kind(other, 0), Entry::Other);
        }
        assert_eq!(kind(0, -1), Entry::Other);
    }

    #[test]
    fn only_a_link_has_a_link_name() {
        let mut block = [0; 512];
        block[156] = b'2';
        block[157..161].copy_from_slice(b"../x");
        assert_eq!(link_name(&block).as_deref(), Some("../x"));
        block[157] = 0xff;
        assert_eq!(link_name(&block), None);
        block[156..160].copy_from_slice(b"xabc");
        assert_eq!(link_name(&block), None);
        assert_eq!(link_name(&block[..200]), None);
    }
}
