//! The walk over what is on the way to the files that the engine opens: pure, but for the looks that it asks for.
use std::{collections::HashMap, future::Future};

use agentkernel_core::{Error, ErrorKind, Result};
use agentkernel_host::{BOOT_TARGET, GUEST_BIN_DIR};

use crate::request::HOSTS_TARGET;

pub(super) const FILES: [&str; 2] = ["/etc/passwd", "/etc/group"];
/// The largest such file, in bytes. Of 1 MiB the engine makes up to 20 MiB of memory in half a second.
const MAX_SIZE: u64 = 1 << 20;
/// What the engine mounts unasked. It makes these files anew in every container: only a command can have moved them.
const ENGINES: [&str; 3] = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];
/// What the runtime mounts, and we are not shown.
const RUNTIMES: [&str; 3] = ["/dev", "/proc", "/sys"];
/// The most questions of one check.
const MAX_LOOKS: usize = 256;
/// The most links on the way to one file.
const MAX_LINKS: usize = 16;

/// What there is at a path, its last link not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    Absent,
    Directory,
    File(u64),
    Link,
    Other,
}

/// A look at a container's files.
pub(super) trait Look {
    fn entry(&self, path: &str) -> impl Future<Output = Result<Entry, Refusal>> + Send;
    /// Whether what is mounted is in its place before the start. Else what is absent is made by the start, and of a
    /// mount's own place the mount is shown.
    fn shows_places(&self) -> bool {
        true
    }
    fn link_text(&self, path: &str) -> impl Future<Output = Result<String, Refusal>> + Send;
}

/// Why a container is not started.
#[derive(Debug)]
pub(super) enum Refusal {
    Found { path: String, why: &'static str },
    Failed(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Refusal {
    pub(super) fn new(path: &str, why: &'static str) -> Self {
        Self::Found { path: path.chars().take(300).collect(), why }
    }
}

/// Refuses a file that was found to be this, all links followed.
pub(super) fn refuse(file: &str, entry: Entry) -> Result<(), Refusal> {
    match entry {
        Entry::Absent => Ok(()),
        Entry::File(size) if size <= MAX_SIZE => Ok(()),
        Entry::File(_) => Err(Refusal::new(file, "it is larger than 1 MiB")),
        Entry::Directory => Err(Refusal::new(file, "it is a directory")),
        Entry::Link | Entry::Other => Err(Refusal::new(file, "it is a FIFO, a socket or a device")),
    }
}

/// Looks at everything on the way.
pub(super) async fn run(look: &impl Look, targets: &[String], is_first: bool) -> Result<(), Refusal> {
    let [passwd, group] = FILES;
    let (passwd_is, group_is) = tokio::try_join!(look.entry(passwd), look.entry(group))?;
    // With nothing mounted but two files of ours and a directory that has neither name, and nothing run yet, what is
    // there to be seen is what is there.
    let is_ours = |target: &String| [GUEST_BIN_DIR, BOOT_TARGET, HOSTS_TARGET].contains(&target.as_str());
    if is_first && targets.iter().all(is_ours) && is_small(passwd_is) && is_small(group_is) {
        return Ok(());
    }
    let seen = HashMap::from([(passwd.to_owned(), passwd_is), (group.to_owned(), group_is)]);
    let mut walk = Walk { look, seen, mounts: RUNTIMES.map(str::to_owned).to_vec() };
    match walk.entry("/etc").await? {
        Entry::Directory => {}
        Entry::Absent if walk.entry("/").await? == Entry::Absent => return Err(source_gone().into()),
        Entry::Absent if !look.shows_places() => {}
        _ => return Err(Refusal::new("/etc", "it is no directory, or hidden")),
    }
    for target in targets {
        let target = format!("/{}", names(target).collect::<Vec<_>>().join("/"));
        if FILES.iter().any(|file| is_below(file, &target)) {
            return Err(Refusal::new(&target, "what is mounted there hides what the engine opens"));
        }
        walk.in_place(&target).await?;
        walk.mounts.push(target);
    }
    for target in ENGINES.iter().filter(|_| !is_first) {
        walk.in_place(target).await?;
        walk.mounts.push((*target).to_owned());
    }
    for file in FILES {
        walk.resolve(file).await?;
    }
    Ok(())
}

/// The engine shows nothing at all of a container when it cannot mount something into it.
fn source_gone() -> Error {
    Error::new(ErrorKind::NotFound, "boot sandbox", "a path that is to be shown inside is gone")
        .with_hint("check the paths of `mounts`")
}

fn is_small(entry: Entry) -> bool {
    matches!(entry, Entry::File(size) if size <= MAX_SIZE)
}

/// Returns whether a path is the other or below it.
fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn names(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split('/').filter(|name| !name.is_empty() && *name != ".")
}

struct Walk<'a, L> {
    look: &'a L,
    seen: HashMap<String, Entry>,
    mounts: Vec<String>,
}

impl<L: Look> Walk<'_, L> {
    async fn entry(&mut self, path: &str) -> Result<Entry, Refusal> {
        if let Some(entry) = self.seen.get(path) {
            return Ok(*entry);
        }
        if self.seen.len() >= MAX_LOOKS {
            return Err(Refusal::new(path, "there is too much on the way to it"));
        }
        let entry = self.look.entry(path).await?;
        self.seen.insert(path.to_owned(), entry);
        Ok(entry)
    }

    /// Makes sure that what is mounted at a path shows there and nowhere else.
    async fn in_place(&mut self, target: &str) -> Result<(), Refusal> {
        let mut path = String::new();
        for name in names(target) {
            path = format!("{path}/{name}");
            if path == target && !self.look.shows_places() {
                return Ok(());
            }
            match self.entry(&path).await? {
                Entry::Absent if !self.look.shows_places() => return Ok(()),
                Entry::Link => {
                    return Err(Refusal::new(&path, "a link leads what is mounted there elsewhere"));
                }
                Entry::Absent if !ENGINES.contains(&target) => {
                    return Err(Refusal::new(&path, "what is mounted there is hidden"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Follows a path as the engine does in the bare root and as the kernel does in the mounted one; where those could
    /// part, it is refused.
    async fn resolve(&mut self, file: &str) -> Result<(), Refusal> {
        let mut left = names(file).rev().map(str::to_owned).collect::<Vec<_>>();
        let (mut at, mut links) = (String::new(), 0);
        while let Some(name) = left.pop() {
            if name == ".." {
                at.truncate(at.rfind('/').unwrap_or(0));
                continue;
            }
            let path = format!("{at}/{name}");
            if self.mounts.iter().any(|mount| is_below(&path, mount)) {
                return Err(Refusal::new(file, "it is a link into something mounted"));
            }
            match self.entry(&path).await? {
                Entry::Directory if !left.is_empty() => at = path,
                Entry::File(_) if !left.is_empty() => return Err(Refusal::new(file, "it is a broken link")),
                // The engine would go on by the names alone.
                Entry::Absent if left.iter().any(|name| name == "..") => {
                    return Err(Refusal::new(file, "it is a broken link"));
                }
                Entry::Link if links == MAX_LINKS => return Err(Refusal::new(file, "it has too many links")),
                Entry::Link => {
                    links += 1;
                    let text = self.look.link_text(&path).await?;
                    if text.starts_with('/') {
                        at.clear();
                    }
                    left.extend(names(&text).rev().map(str::to_owned));
                }
                other => return refuse(file, other),
            }
        }
        Err(Refusal::new(file, "it is a directory"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files by path; what begins with `-> ` is a link.
    type Known<'a> = &'a [(&'a str, &'a str)];

    struct Files<'a>(Known<'a>);

    impl Look for Files<'_> {
        async fn entry(&self, path: &str) -> Result<Entry, Refusal> {
            let ours =
                [("/", "dir"), ("/etc", "dir"), ("/.agentkernel", "dir"), ("/.agentkernel/bin", "dir")];
            let all = self.0.iter().chain(&ours).chain(&[("/.agentkernel/boot", "fifo"), ("/etc/hosts", "")]);
            Ok(match all.into_iter().find(|(known, _)| *known == path).map(|(_, is)| *is) {
                None => Entry::Absent,
                Some("dir") => Entry::Directory,
                Some("fifo") => Entry::Other,
                Some("huge") => Entry::File(MAX_SIZE + 1),
                Some(link) if link.starts_with("-> ") => Entry::Link,
                Some(content) => Entry::File(content.len() as u64),
            })
        }

        async fn link_text(&self, path: &str) -> Result<String, Refusal> {
            let link = self.0.iter().find(|(known, _)| *known == path).unwrap().1;
            Ok(link.strip_prefix("-> ").unwrap().to_owned())
        }
    }

    /// Returns what is found at fault, if anything is.
    async fn fault(files: Known<'_>, more: &[&str], is_first: bool) -> Option<(String, &'static str)> {
        let ours = [GUEST_BIN_DIR, BOOT_TARGET, HOSTS_TARGET];
        let targets = ours.iter().chain(more).map(|target| (*target).to_owned()).collect::<Vec<_>>();
        match run(&Files(files), &targets, is_first).await {
            Ok(()) => None,
            Err(Refusal::Found { path, why }) => Some((path, why)),
            Err(Refusal::Failed(error)) => panic!("{error:?}"),
        }
    }

    const BOTH: [(&str, &str); 2] = [("/etc/passwd", "x"), ("/etc/group", "x")];

    #[tokio::test]
    async fn small_files_and_absent_ones_are_accepted() {
        let group = ("/etc/group", "x");
        let accepted: [Known; 7] = [
            &[],
            &BOTH,
            &[group],
            &[("/etc/passwd", "-> /nix/p"), ("/nix", "dir"), ("/nix/p", "-> q"), ("/nix/q", "x"), group],
            &[("/etc/passwd", "-> ../.././q/p"), ("/q", "dir"), ("/q/p", "x")],
            &[("/etc/passwd", "-> /nowhere")],
            &[("/etc/passwd", "-> /nowhere/at/all")],
        ];
        for files in accepted {
            for (is_first, more) in [(true, &[][..]), (false, &[]), (true, &["/work"]), (false, &["/work"])] {
                let files = [files, &[("/work", "dir")]].concat();
                assert_eq!(fault(&files, more, is_first).await, None, "{files:?} {is_first}");
            }
        }
    }

    #[tokio::test]
    async fn what_the_engine_could_hang_on_is_refused() {
        let (fifo, q) = (("/q/f", "fifo"), ("/q", "dir"));
        let refused: [Known; 14] = [
            &[("/etc/passwd", "fifo"), ("/etc/group", "x")],
            &[("/etc/passwd", "x"), ("/etc/group", "fifo")],
            &[("/etc/passwd", "dir")],
            &[("/etc/passwd", "huge")],
            &[("/etc/passwd", "-> /q/f"), q, fifo],
            &[("/etc/passwd", "-> ../q/l"), q, ("/q/l", "-> f"), fifo],
            &[("/etc/passwd", "-> ../../../../q/f"), q, fifo],
            // The engine takes `nowhere/..` for nothing.
            &[("/etc/passwd", "-> /nowhere/../q/f"), q, fifo],
            &[("/etc/passwd", "-> /q/x/../f"), q, ("/q/x", "x"), fifo],
            &[("/etc/passwd", "-> passwd")],
            &[("/etc/passwd", "-> /")],
            &[("/etc/passwd", "-> /q/"), q],
            // An image's own file there is hidden by the device when the runtime opens it.
            &[("/etc/passwd", "-> /dev/urandom"), ("/dev", "dir"), ("/dev/urandom", "x")],
            &[("/etc/passwd", "-> /proc/self/fd/0")],
        ];
        for files in refused {
            for is_first in [true, false] {
                assert!(fault(files, &[], is_first).await.is_some(), "{files:?} {is_first}");
            }
        }
    }

    #[tokio::test]
    async fn what_a_mount_hides_is_refused() {
        let refused: [(Known, &[&str]); 8] = [
            (&[("/etc/passwd", "-> /q/bin/guest"), ("/.agentkernel", "-> /q")], &[]),
            (&[("/etc/hosts", "-> passwd")], &[]),
            (&[("/etc/hostname", "-> passwd")], &[]),
            (&[("/etc/passwd", "-> hosts")], &[]),
            (&[("/work", "-> /etc")], &["/work"]),
            (&[("/q", "dir"), ("/q/w", "-> /etc")], &["/q/w"]),
            (&[], &["/etc"]),
            (&[], &["/etc/passwd"]),
        ];
        for (files, more) in refused {
            let files = [files, &BOTH].concat();
            assert!(fault(&files, more, false).await.is_some(), "{files:?} {more:?}");
        }
        let hidden = fault(&BOTH, &["/gone"], false).await.unwrap();
        assert_eq!(hidden, ("/gone".into(), "what is mounted there is hidden"));
    }

    #[tokio::test]
    async fn a_container_that_the_engine_shows_nothing_of_has_lost_a_mount() {
        struct Nothing;
        impl Look for Nothing {
            async fn entry(&self, _: &str) -> Result<Entry, Refusal> {
                Ok(Entry::Absent)
            }
            async fn link_text(&self, _: &str) -> Result<String, Refusal> {
                unreachable!()
            }
        }
        let Refusal::Failed(error) = run(&Nothing, &[], false).await.unwrap_err() else { panic!() };
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_look_ends() {
        struct Deep;
        impl Look for Deep {
            async fn entry(&self, path: &str) -> Result<Entry, Refusal> {
                Ok(if path.ends_with("/link") || path == "/etc/passwd" {
                    Entry::Link
                } else {
                    Entry::Directory
                })
            }
            async fn link_text(&self, _: &str) -> Result<String, Refusal> {
                Ok(format!("{}link", "d/".repeat(40)))
            }
        }
        assert!(run(&Deep, &[], false).await.is_err());
    }
}
