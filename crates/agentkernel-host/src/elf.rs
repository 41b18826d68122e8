//! The little that is to be known of the guest's program file: its machine, and whether it needs a loader.
use std::{fs::File, io, io::Read, os::unix::fs::FileExt, path::Path, path::PathBuf};

/// What an ELF file says of itself (elf(5)).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Elf {
    /// `e_machine`.
    pub(crate) machine: u16,
    /// `PT_INTERP`: the loader of a dynamic program.
    pub(crate) interpreter: Option<PathBuf>,
}

/// A kind of processor that the guest is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine(u16);

impl Machine {
    /// Reads the name that an engine or uname(2) has for it; `None` for one that no guest is built for.
    pub fn named(architecture: &str) -> Option<Self> {
        match architecture {
            "x86_64" | "amd64" => Some(Self(62)),
            "aarch64" | "arm64" => Some(Self(183)),
            "riscv64" => Some(Self(243)),
            _ => None,
        }
    }

    /// Returns that of this process.
    pub fn own() -> Option<Self> {
        Self::named(std::env::consts::ARCH)
    }

    pub(crate) fn is_of(self, elf: &Elf) -> bool {
        self.0 == elf.machine
    }
}

/// Reads a 64-bit little-endian ELF file.
pub(crate) fn read(path: &Path) -> io::Result<Elf> {
    let mut file = File::open(path)?;
    let mut header = [0u8; 64];
    file.read_exact(&mut header)?;
    parse(&header, |offset, buffer| file.read_exact_at(buffer, offset))
}

fn parse(header: &[u8; 64], read_at: impl Fn(u64, &mut [u8]) -> io::Result<()>) -> io::Result<Elf> {
    let malformed =
        || io::Error::new(io::ErrorKind::InvalidData, "this is no 64-bit little-endian ELF program");
    if header.get(..6) != Some(b"\x7fELF\x02\x01".as_slice()) {
        return Err(malformed());
    }
    let u16_at =
        |at: usize| header.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_le_bytes);
    let u64_in = |bytes: &[u8], at: usize| {
        bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
    };
    let (table, size, count) = (u64_in(header, 32), u64::from(u16_at(54)), u64::from(u16_at(56)));
    if size < 56 || count > 512 {
        return Err(malformed());
    }
    let mut interpreter = None;
    for index in 0..count {
        let mut entry = [0u8; 56];
        read_at(table.checked_add(index * size).ok_or_else(malformed)?, &mut entry)?;
        let [a, b, c, d, ..] = entry;
        const PT_INTERP: u32 = 3;
        if u32::from_le_bytes([a, b, c, d]) == PT_INTERP {
            let (offset, length) = (u64_in(&entry, 8), u64_in(&entry, 32));
            let mut path =
                vec![0u8; usize::try_from(length).ok().filter(|l| *l <= 4096).ok_or_else(malformed)?];
            read_at(offset, &mut path)?;
            let path = path.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
            interpreter = Some(PathBuf::from(String::from_utf8(path).map_err(|_| malformed())?));
        }
    }
    Ok(Elf { machine: u16_at(18), interpreter })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn this_test_has_the_machine_of_this_machine() {
        let own = read(&std::env::current_exe().unwrap()).unwrap();
        let expected = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
        assert_eq!(own.machine, expected);
    }

    #[test]
    fn a_script_is_no_program() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("#!/bin/sh\n{}", " ".repeat(100))).unwrap();
        assert!(read(file.path()).is_err());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(header in proptest::array::uniform32(any::<u8>()), fill in any::<u8>()) {
            let mut whole = [fill; 64];
            whole[..32].copy_from_slice(&header);
            whole[..6].copy_from_slice(b"\x7fELF\x02\x01");
            let _elf = parse(&whole, |_, buffer| { buffer.fill(fill); Ok(()) });
        }
    }
}
