//! Tar: the headers of what goes out, and the entries of what comes in, which may be hostile.
use agentkernel_core::{Error, ErrorKind, Result, Source};
use tar::{EntryType, Header, PaxExtensions};
use tokio::io::AsyncReadExt;

/// What everything is a multiple of.
pub(super) const BLOCK: usize = 512;
/// The longest name or set of attributes.
const MAX_NAME: u64 = 64 << 10;

/// How much follows content.
pub(super) fn padding(size: u64) -> usize {
    let rest = usize::try_from(size % 512).unwrap_or_default();
    (BLOCK - rest) % BLOCK
}

/// Says that an archive is wrong.
pub(super) fn bad(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidConfig, "read archive", what).with_context("backend", "apple")
}

/// What an entry is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
    Hard,
    /// A device, a FIFO or something newer.
    Other,
}

/// An entry; the content of a file comes next.
#[derive(Debug)]
pub(super) struct Entry {
    pub kind: Kind,
    pub path: Vec<u8>,
    pub target: Vec<u8>,
    pub mode: u32,
    pub size: u64,
    pub modified: u64,
}

/// What was told of the next entry beside its header.
#[derive(Debug, Default)]
struct More {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
    modified: Option<u64>,
}

/// An archive that comes in.
pub(super) struct Archive<'a>(pub Source<'a>);

impl Archive<'_> {
    /// Returns the next entry, or `None` at the end mark, after which everything is read.
    pub(super) async fn next(&mut self) -> Result<Option<Entry>> {
        let mut more = More::default();
        loop {
            let mut header = Header::new_old();
            self.exactly(header.as_mut_bytes()).await?;
            if header.as_bytes().iter().all(|byte| *byte == 0) {
                tokio::io::copy(&mut self.0, &mut tokio::io::sink()).await?;
                return Ok(None);
            }
            if header.cksum().ok() != Some(sum(&header)) {
                return Err(bad("a header is no header of a tar archive"));
            }
            let size = header.entry_size().map_err(|_| bad("a header has no size"))?;
            match header.entry_type() {
                EntryType::GNULongName => more.path = Some(cut(self.small(size).await?)),
                EntryType::GNULongLink => more.target = Some(cut(self.small(size).await?)),
                EntryType::XHeader => extend(&mut more, &self.small(size).await?)?,
                EntryType::XGlobalHeader => drop(self.small(size).await?),
                EntryType::GNUSparse => return Err(bad("files with holes are not understood")),
                other => return entry(&header, other, size, more).map(Some),
            }
        }
    }

    /// Reads content or what follows it.
    pub(super) async fn exactly(&mut self, into: &mut [u8]) -> Result<()> {
        match self.0.read_exact(into).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                Err(bad("the archive is cut off"))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn small(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > MAX_NAME {
            return Err(bad("a name or attribute is too long"));
        }
        let length = usize::try_from(size).map_err(|_| bad("a name or attribute is too long"))?;
        let mut bytes = vec![0; length + padding(size)];
        self.exactly(&mut bytes).await?;
        bytes.truncate(length);
        Ok(bytes)
    }
}

/// The checksum: every byte, with spaces where it stands itself.
fn sum(header: &Header) -> u32 {
    let bytes = header.as_bytes().iter().enumerate();
    bytes.map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) }).sum()
}

/// Cuts a name at its NUL.
fn cut(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

fn extend(more: &mut More, records: &[u8]) -> Result<()> {
    for record in PaxExtensions::new(records) {
        let record = record.map_err(|_| bad("attributes cannot be read"))?;
        let number = || record.value().ok().and_then(|text| text.split('.').next()?.parse().ok());
        match record.key_bytes() {
            b"path" => more.path = Some(record.value_bytes().to_vec()),
            b"linkpath" => more.target = Some(record.value_bytes().to_vec()),
            b"size" => more.size = Some(number().ok_or_else(|| bad("a size is no number"))?),
            // Before 1970 is 1970.
            b"mtime" => more.modified = Some(number().unwrap_or_default()),
            key if key.starts_with(b"GNU.sparse.") => {
                return Err(bad("files with holes are not understood"));
            }
            _ => {}
        }
    }
    Ok(())
}

fn entry(header: &Header, entry_type: EntryType, size: u64, more: More) -> Result<Entry> {
    let path = more.path.unwrap_or_else(|| header.path_bytes().into_owned());
    let kind = match entry_type {
        EntryType::Regular | EntryType::Continuous if path.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous => Kind::File,
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Link => Kind::Hard,
        _ => Kind::Other,
    };
    let has_content = matches!(kind, Kind::File | Kind::Other);
    let target = || header.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default();
    Ok(Entry {
        path,
        target: more.target.unwrap_or_else(target),
        // Never setuid, setgid or sticky.
        mode: header.mode().map_err(|_| bad("a header has no mode"))? & 0o777,
        size: if has_content { more.size.unwrap_or(size) } else { 0 },
        modified: more.modified.unwrap_or_else(|| header.mtime().unwrap_or_default()),
        kind,
    })
}

/// Cuts a name into its steps; one that leads elsewhere is refused.
pub(super) fn steps(path: &[u8]) -> Result<Vec<Vec<u8>>> {
    if path.first() == Some(&b'/') || path.len() > 4096 {
        return Err(bad("a name is absolute or too long"));
    }
    let mut steps = Vec::new();
    for step in path.split(|byte| *byte == b'/').filter(|step| !step.is_empty() && *step != b".") {
        if step == b".." || step.contains(&0) {
            return Err(bad("a name leads upwards or has a NUL"));
        }
        steps.push(step.to_vec());
    }
    Ok(steps)
}

/// Returns the headers of an entry that goes out: names of any length as GNU tar writes them.
pub(super) fn headers(entry: &Entry) -> Vec<u8> {
    let mut all = Vec::new();
    let mut header = Header::new_gnu();
    header.set_entry_type(match entry.kind {
        Kind::Directory => EntryType::Directory,
        Kind::Symlink => EntryType::Symlink,
        _ => EntryType::Regular,
    });
    header.set_mode(entry.mode);
    header.set_size(entry.size);
    header.set_mtime(entry.modified);
    header.set_uid(0);
    header.set_gid(0);
    long(&mut all, EntryType::GNULongLink, &entry.target, &mut header.as_old_mut().linkname);
    long(&mut all, EntryType::GNULongName, &entry.path, &mut header.as_old_mut().name);
    header.set_cksum();
    all.extend_from_slice(header.as_bytes());
    all
}

/// Puts a name into its field, and one that is too long for it whole into an entry before.
fn long(all: &mut Vec<u8>, kind: EntryType, name: &[u8], field: &mut [u8; 100]) {
    let length = name.len().min(field.len());
    if let (Some(field), Some(name)) = (field.get_mut(..length), name.get(..length)) {
        field.copy_from_slice(name);
    }
    if length == name.len() {
        return;
    }
    let mut header = Header::new_gnu();
    let size = u64::try_from(name.len() + 1).unwrap_or(u64::MAX);
    header.as_old_mut().name[..13].copy_from_slice(b"././@LongLink");
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(size);
    header.set_cksum();
    all.extend_from_slice(header.as_bytes());
    all.extend_from_slice(name);
    all.resize(all.len() + 1 + padding(size), 0);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    async fn first(bytes: &[u8]) -> Result<Option<Entry>> {
        let mut source = bytes;
        Archive(&mut source).next().await
    }

    #[tokio::test]
    async fn what_goes_out_comes_in() {
        let (path, target) = ([b'p'; 300].to_vec(), [b't'; 200].to_vec());
        let entry = Entry { kind: Kind::Symlink, path, target, mode: 0o777, size: 0, modified: 7 };
        let again = first(&headers(&entry)).await.unwrap().unwrap();
        assert_eq!((again.kind, again.path, again.target), (entry.kind, entry.path, entry.target));
        assert_eq!((again.mode, again.modified), (0o777, 7));
    }

    #[tokio::test]
    async fn an_archive_ends_with_its_mark_or_is_cut() {
        assert!(first(&[0; 1024]).await.unwrap().is_none());
        for cut in [&[][..], &[0; 511], &[b'x'; 512]] {
            assert!(first(cut).await.is_err());
        }
    }

    #[tokio::test]
    async fn a_name_without_end_is_refused() {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::GNULongName);
        header.set_size(1 << 32);
        header.set_cksum();
        assert!(first(header.as_bytes()).await.is_err());
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for bad in [&b"/a"[..], b"../a", b"a/..", b"a\0b", &[b'x'; 5000]] {
            assert!(steps(bad).is_err());
        }
        assert_eq!(steps(b"./a//b/").unwrap(), [b"a", b"b"]);
    }

    proptest! {
        #[test]
        fn no_header_panics(mut bytes in proptest::collection::vec(any::<u8>(), 512), sum in any::<bool>()) {
            if sum {
                let mut header = Header::new_old();
                header.as_mut_bytes().copy_from_slice(&bytes);
                header.set_cksum();
                bytes.copy_from_slice(header.as_bytes());
            }
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _any = runtime.block_on(first(&bytes));
        }
    }
}
