//! The tar format, by hand: ustar with pax records out; ustar, pax and GNU long names in.
use crate::protocol::{Failure, FailureCode};

/// Headers and padding come in blocks of so many bytes.
pub(super) const BLOCK: usize = 512;
/// The most that the header of one entry may hold: names, links, records.
pub(super) const MOST_HEADER: u64 = 1 << 20;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
    Link,
}

/// An entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) path: Vec<u8>,
    pub(super) target: Vec<u8>,
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) modified: i64,
}

pub(super) fn bad(message: &str) -> Failure {
    Failure::new(FailureCode::BadArchive, 0, message)
}

/// How many bytes fill the last block of so much data.
pub(super) fn padding(size: u64) -> usize {
    let rest = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    if rest == 0 { 0 } else { BLOCK - rest }
}

/// Makes the headers of an entry: a pax header for what does not fit, and the ustar header.
pub(super) fn encode(entry: &Entry) -> Vec<u8> {
    let mut records = Vec::new();
    let mut record = |key: &str, value: &[u8]| {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        records.extend_from_slice(format!("{length} {key}=").as_bytes());
        records.extend_from_slice(value);
        records.push(b'\n');
    };
    if entry.path.len() > 100 {
        record("path", &entry.path);
    }
    if entry.target.len() > 100 {
        record("linkpath", &entry.target);
    }
    if entry.size > 0o77_777_777_777 {
        record("size", entry.size.to_string().as_bytes());
    }
    if !(0..=0o77_777_777_777).contains(&entry.modified) {
        record("mtime", entry.modified.to_string().as_bytes());
    }
    for (key, id) in [("uid", entry.uid), ("gid", entry.gid)] {
        if id > 0o7_777_777 {
            record(key, id.to_string().as_bytes());
        }
    }
    let mut out = Vec::new();
    if !records.is_empty() {
        let size = records.len() as u64;
        let pax = Entry { path: b"pax".to_vec(), target: Vec::new(), size, mode: 0o644, ..entry.clone() };
        out.extend_from_slice(&header(&pax, b'x'));
        out.extend_from_slice(&records);
        out.resize(out.len() + padding(size), 0);
    }
    let flag = match entry.kind {
        Kind::File => b'0',
        Kind::Link => b'1',
        Kind::Symlink => b'2',
        Kind::Directory => b'5',
    };
    out.extend_from_slice(&header(entry, flag));
    out
}

fn header(entry: &Entry, flag: u8) -> [u8; BLOCK] {
    let mut block = [0u8; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| {
        for (to, from) in block.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    };
    let octal = |number: u64, digits: usize| {
        // What does not fit stands in a pax record.
        let most = (1u64 << (3 * digits)) - 1;
        format!("{:0digits$o}\0", if number > most { 0 } else { number })
    };
    put(0, entry.path.get(..100).unwrap_or(&entry.path));
    put(100, octal(entry.mode.into(), 7).as_bytes());
    put(108, octal(entry.uid.into(), 7).as_bytes());
    put(116, octal(entry.gid.into(), 7).as_bytes());
    put(124, octal(entry.size, 11).as_bytes());
    put(136, octal(u64::try_from(entry.modified).unwrap_or(0), 11).as_bytes());
    put(148, b"        ");
    put(156, &[flag]);
    put(157, entry.target.get(..100).unwrap_or(&entry.target));
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    for (to, from) in block.iter_mut().skip(148).zip(format!("{sum:06o}\0 ").as_bytes()) {
        *to = *from;
    }
    block
}

/// Where an archive comes from.
pub(super) trait Input {
    /// Fills the buffer as far as there is data.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Failure>;
}

/// What stands before an entry and is about it.
#[derive(Default)]
struct Extra {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
    modified: Option<i64>,
}

/// Reads the next entry, `None` at the end of the archive. Its data follows in the input.
pub(super) fn next(input: &mut impl Input) -> Result<Option<Entry>, Failure> {
    let mut extra = Extra::default();
    loop {
        let block = full_block(input)?.ok_or_else(|| bad("the archive ends without its end mark"))?;
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        check_sum(&block)?;
        let size = number(field(&block, 124, 12))?;
        match block.get(156) {
            Some(b'x') => extra.records(&content(input, size)?)?,
            Some(b'g') => drop(content(input, size)?),
            Some(b'L') => extra.path = Some(until_nul(&content(input, size)?).to_vec()),
            Some(b'K') => extra.target = Some(until_nul(&content(input, size)?).to_vec()),
            Some(flag) => return entry(&block, *flag, size, extra).map(Some),
            None => return Err(bad("a header is cut off")),
        }
    }
}

fn entry(block: &[u8; BLOCK], flag: u8, size: u64, extra: Extra) -> Result<Entry, Failure> {
    let path = extra.path.unwrap_or_else(|| {
        let (name, prefix) = (until_nul(field(block, 0, 100)), until_nul(field(block, 345, 155)));
        // Only ustar has a prefix; GNU keeps times there.
        if prefix.is_empty() || field(block, 257, 6) != b"ustar\0" {
            name.to_vec()
        } else {
            [prefix, b"/", name].concat()
        }
    });
    let kind = match flag {
        b'0' | 0 | b'7' if path.last() == Some(&b'/') => Kind::Directory,
        b'0' | 0 | b'7' => Kind::File,
        b'1' => Kind::Link,
        b'2' => Kind::Symlink,
        b'5' => Kind::Directory,
        b'3' | b'4' | b'6' => return Err(bad("the archive holds a device or a FIFO")),
        _ => return Err(bad("the archive holds something unknown")),
    };
    let size = extra.size.unwrap_or(size);
    let mode = u32::try_from(number(field(block, 100, 8))? & 0o7777).unwrap_or(0);
    // Owners are not taken over, so that they may be anything.
    let id = |at| number(field(block, at, 8)).ok().and_then(|id| u32::try_from(id).ok()).unwrap_or(0);
    Ok(Entry {
        kind,
        path,
        target: extra.target.unwrap_or_else(|| until_nul(field(block, 157, 100)).to_vec()),
        size: if kind == Kind::File { size } else { 0 },
        mode,
        uid: id(108),
        gid: id(116),
        modified: extra
            .modified
            .or_else(|| i64::try_from(number(field(block, 136, 12)).ok()?).ok())
            .unwrap_or(0),
    })
    .and_then(|entry| match (kind, size) {
        (Kind::File, _) | (_, 0) => Ok(entry),
        // Some writers give links the size of their file; none of them has data.
        (Kind::Link | Kind::Symlink, _) => Ok(entry),
        (Kind::Directory, _) => Err(bad("a directory has data")),
    })
}

impl Extra {
    fn records(&mut self, mut records: &[u8]) -> Result<(), Failure> {
        while !records.is_empty() {
            let broken = || bad("a pax record is broken");
            let digits =
                records.iter().position(|byte| *byte == b' ').filter(|at| *at < 20).ok_or_else(broken)?;
            let length = decimal(records.get(..digits).unwrap_or_default()).ok_or_else(broken)?;
            let length = usize::try_from(length).map_err(|_| broken())?;
            let record = records.get(digits + 1..length).ok_or_else(broken)?;
            let record = record.strip_suffix(b"\n").ok_or_else(broken)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(broken)?;
            let (key, value) =
                (record.get(..equals).unwrap_or_default(), record.get(equals + 1..).unwrap_or_default());
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.target = Some(value.to_vec()),
                b"size" => self.size = Some(decimal(value).ok_or_else(broken)?),
                b"mtime" => {
                    let seconds = value.split(|byte| *byte == b'.').next().unwrap_or_default();
                    self.modified = std::str::from_utf8(seconds).ok().and_then(|text| text.parse().ok());
                }
                key if key.starts_with(b"GNU.sparse.") => return Err(bad("the archive holds a sparse file")),
                _ => {}
            }
            records = records.get(length..).unwrap_or_default();
        }
        Ok(())
    }
}

fn full_block(input: &mut impl Input) -> Result<Option<[u8; BLOCK]>, Failure> {
    let mut block = [0u8; BLOCK];
    match input.fill(&mut block)? {
        BLOCK => Ok(Some(block)),
        0 => Ok(None),
        _ => Err(bad("the archive is cut off")),
    }
}

/// Reads what belongs to a header.
fn content(input: &mut impl Input, size: u64) -> Result<Vec<u8>, Failure> {
    if size > MOST_HEADER {
        return Err(bad("a header is too long"));
    }
    let size = usize::try_from(size).unwrap_or(0);
    let mut content = Vec::new();
    while content.len() < size {
        let block = full_block(input)?.ok_or_else(|| bad("the archive is cut off"))?;
        content.extend_from_slice(block.get(..BLOCK.min(size - content.len())).unwrap_or_default());
    }
    Ok(content)
}

fn check_sum(block: &[u8; BLOCK]) -> Result<(), Failure> {
    let want = number(field(block, 148, 8))?;
    let bytes =
        || block.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { b' ' } else { *byte });
    let unsigned: u64 = bytes().map(u64::from).sum();
    // Some old writers took the bytes as signed.
    let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
    if want == unsigned || i64::try_from(want) == Ok(signed) {
        Ok(())
    } else {
        Err(bad("a checksum is wrong"))
    }
}

fn field(block: &[u8; BLOCK], at: usize, length: usize) -> &[u8] {
    block.get(at..at + length).unwrap_or_default()
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// An octal number, or a big one as GNU writes it.
fn number(field: &[u8]) -> Result<u64, Failure> {
    let broken = || bad("a number is broken");
    match field.split_first() {
        Some((0x80, rest)) => rest.iter().try_fold(0u64, |number, byte| {
            number.checked_mul(256).and_then(|number| number.checked_add((*byte).into())).ok_or_else(broken)
        }),
        _ => {
            let digits = until_nul(field).trim_ascii();
            digits.iter().try_fold(0u64, |number, byte| match byte {
                b'0'..=b'7' => number
                    .checked_mul(8)
                    .and_then(|number| number.checked_add((byte - b'0').into()))
                    .ok_or_else(broken),
                _ => Err(broken()),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl Input for &[u8] {
        fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
            let count = buffer.len().min(self.len());
            buffer[..count].copy_from_slice(&self[..count]);
            *self = &self[count..];
            Ok(count)
        }
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let name = |most| proptest::collection::vec(1u8.., 1..most);
        let kind =
            prop_oneof![Just(Kind::File), Just(Kind::Directory), Just(Kind::Symlink), Just(Kind::Link)];
        (kind, name(300), name(300), any::<u64>(), any::<(u32, u32, i64)>(), 0u32..0o10000).prop_map(
            |(kind, mut path, target, size, (uid, gid, modified), mode)| {
                if path.last() == Some(&b'/') {
                    path.push(b'x');
                }
                let size = if kind == Kind::File { size } else { 0 };
                let (uid, gid) = (uid & 0o7_777_777, gid & 0o7_777_777);
                let target = if matches!(kind, Kind::Symlink | Kind::Link) { target } else { Vec::new() };
                Entry { kind, path, target, size, mode, uid, gid, modified }
            },
        )
    }

    proptest! {
        #[test]
        fn every_entry_reads_back(entry in entry()) {
            let bytes = encode(&entry);
            prop_assert_eq!(bytes.len() % BLOCK, 0);
            let mut input = bytes.as_slice();
            prop_assert_eq!(next(&mut input).unwrap(), Some(entry));
            prop_assert!(input.is_empty());
        }

        #[test]
        fn garbage_never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..2000), entry in entry(), at: usize) {
            let _entry = next(&mut bytes.as_slice());
            // Nearly right is more dangerous.
            let good = encode(&entry);
            if let Some(byte) = bytes.first() {
                let mut broken = good.clone();
                let length = broken.len();
                broken[at % length] = *byte;
                let _entry = next(&mut broken.as_slice());
            }
            bytes.extend(good);
            let _entry = next(&mut bytes.as_slice());
        }
    }

    #[test]
    fn an_archive_without_its_end_is_refused() {
        assert!(next(&mut [].as_slice()).is_err());
        assert!(next(&mut [0u8; 100].as_slice()).is_err());
        assert_eq!(next(&mut [0u8; BLOCK].as_slice()).unwrap(), None);
    }
}
