//! What opens a channel.
use std::net::{IpAddr, SocketAddr};

use super::{DecodeError, Decoder, Encoder, MAX_PATH};

/// The longest argument or variable, in bytes (`MAX_ARG_STRLEN`, execve(2)).
const MAX_STRING: usize = 128 << 10;
/// The most arguments or variables: each costs 9 bytes of the 2 MiB that the kernel takes.
const MAX_STRINGS: usize = 256 << 10;
/// The longest user in bytes: two names of 32 and a colon.
const MAX_USER: usize = 65;

/// What the host asks for on a new channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Runs a command. Answered with `Started`, then output, then `Exited`.
    Spawn(Spawn),
    /// Joins a command. Answered like `Spawn`.
    Attach {
        /// The command.
        id: u64,
        /// Begins with what is kept of its output.
        replay: bool,
    },
    /// Lists the commands: `Command` frames, then `Done`.
    Commands,
    /// Reads a regular file: `Started`, `Stdout` frames, then `Done`.
    Open {
        /// The file.
        path: Vec<u8>,
    },
    /// Writes a regular file: the host sends `Data`, then `Eof`; the guest answers `Done` when it is in place.
    Write {
        /// The file.
        path: Vec<u8>,
        /// Permission bits.
        mode: Option<u32>,
        /// Makes missing parents.
        parents: bool,
    },
    /// Looks at a path: `Metadata`, then `Done`.
    Metadata {
        /// The path; a link itself is looked at.
        path: Vec<u8>,
    },
    /// Lists a directory: `Entry` frames, then `Done`.
    ReadDir {
        /// The directory.
        path: Vec<u8>,
    },
    /// Makes a directory.
    CreateDir {
        /// The directory.
        path: Vec<u8>,
        /// Makes missing parents, and accepts an existing one.
        recursive: bool,
    },
    /// Removes a file, a link or a directory.
    RemovePath {
        /// The path.
        path: Vec<u8>,
        /// And all below.
        recursive: bool,
    },
    /// Packs a tree: `Started`, `Stdout` frames of a tar stream, then `Done`.
    Pack {
        /// The tree.
        path: Vec<u8>,
    },
    /// Unpacks a tar stream: the host sends `Data`, then `Eof`; the guest answers `Done`.
    Unpack {
        /// The directory.
        path: Vec<u8>,
    },
    /// Connects to a port on 127.0.0.1: `Started`, then data both ways, each ended by `Eof`, then `Done`.
    Connect {
        /// The port.
        port: u16,
    },
    /// Listens: `Started`, then an `Accepted` for each connection, until the host closes the channel.
    Listen {
        /// The address.
        address: SocketAddr,
    },
    /// Reads the sandbox's counters: `Stats`, then `Done`.
    Stats,
}

/// A command to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spawn {
    /// Program and arguments; not empty.
    pub argv: Vec<Vec<u8>>,
    /// `NAME=value`, replacing or adding to those of the sandbox.
    pub env: Vec<Vec<u8>>,
    /// Working directory.
    pub cwd: Option<Vec<u8>>,
    /// `NAME`, `UID`, `NAME:GROUP` or `UID:GID`.
    pub user: Option<Vec<u8>>,
    /// Gives it a terminal of so many rows and columns.
    pub tty: Option<(u16, u16)>,
    /// Gives it a stdin.
    pub stdin: bool,
    /// Ends it after so many milliseconds.
    pub timeout_ms: Option<u64>,
    /// The sandbox ends with it.
    pub main: bool,
    /// It outlives its client.
    pub detached: bool,
}

impl Request {
    pub(super) const FIRST_KIND: u8 = 0x10;
    pub(super) const LAST_KIND: u8 = 0x1d;

    pub(super) fn kind(&self) -> u8 {
        match self {
            Self::Spawn(_) => 0x10,
            Self::Attach { .. } => 0x11,
            Self::Commands => 0x12,
            Self::Open { .. } => 0x13,
            Self::Write { .. } => 0x14,
            Self::Metadata { .. } => 0x15,
            Self::ReadDir { .. } => 0x16,
            Self::CreateDir { .. } => 0x17,
            Self::RemovePath { .. } => 0x18,
            Self::Pack { .. } => 0x19,
            Self::Unpack { .. } => 0x1a,
            Self::Connect { .. } => 0x1b,
            Self::Listen { .. } => 0x1c,
            Self::Stats => 0x1d,
        }
    }

    pub(super) fn encode(&self, out: &mut Encoder) {
        match self {
            Self::Spawn(spawn) => spawn.encode(out),
            Self::Attach { id, replay } => {
                out.u64(*id).flag(*replay);
            }
            Self::Commands | Self::Stats => {}
            Self::Open { path }
            | Self::Metadata { path }
            | Self::ReadDir { path }
            | Self::Pack { path }
            | Self::Unpack { path } => {
                out.bytes(path);
            }
            Self::Write { path, mode, parents } => {
                out.bytes(path)
                    .option(*mode, |out, mode| {
                        out.u32(mode);
                    })
                    .flag(*parents);
            }
            Self::CreateDir { path, recursive } | Self::RemovePath { path, recursive } => {
                out.bytes(path).flag(*recursive);
            }
            Self::Connect { port } => {
                out.u16(*port);
            }
            Self::Listen { address } => {
                match address.ip() {
                    IpAddr::V4(ip) => out.bytes(&ip.octets()),
                    IpAddr::V6(ip) => out.bytes(&ip.octets()),
                };
                out.u16(address.port());
            }
        }
    }

    pub(super) fn decode(kind: u8, payload: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(payload);
        let request = match kind {
            0x10 => Self::Spawn(Spawn::decode(&mut input)?),
            0x11 => Self::Attach { id: input.u64()?, replay: input.flag()? },
            0x12 => Self::Commands,
            0x13 => Self::Open { path: path(&mut input)? },
            0x14 => Self::Write {
                path: path(&mut input)?,
                mode: input.option(Decoder::u32)?.map(|mode| mode & 0o777),
                parents: input.flag()?,
            },
            0x15 => Self::Metadata { path: path(&mut input)? },
            0x16 => Self::ReadDir { path: path(&mut input)? },
            0x17 => Self::CreateDir { path: path(&mut input)?, recursive: input.flag()? },
            0x18 => Self::RemovePath { path: path(&mut input)?, recursive: input.flag()? },
            0x19 => Self::Pack { path: path(&mut input)? },
            0x1a => Self::Unpack { path: path(&mut input)? },
            0x1b => Self::Connect { port: input.u16()? },
            0x1c => Self::Listen { address: address(&mut input)? },
            0x1d => Self::Stats,
            _ => return Err(DecodeError("the kind of a frame is not known")),
        };
        input.end()?;
        Ok(request)
    }
}

fn path(input: &mut Decoder<'_>) -> Result<Vec<u8>, DecodeError> {
    let path = input.bytes(MAX_PATH)?;
    if path.first() != Some(&b'/') || path.contains(&0) {
        return Err(DecodeError("a path is not absolute or has a NUL"));
    }
    Ok(path.to_vec())
}

fn address(input: &mut Decoder<'_>) -> Result<SocketAddr, DecodeError> {
    let octets = input.bytes(16)?;
    let ip = match (<[u8; 4]>::try_from(octets), <[u8; 16]>::try_from(octets)) {
        (Ok(octets), _) => IpAddr::from(octets),
        (_, Ok(octets)) => IpAddr::from(octets),
        _ => return Err(DecodeError("an address has neither 4 nor 16 bytes")),
    };
    Ok(SocketAddr::new(ip, input.u16()?))
}

/// Strings for execve(2): none has a NUL.
fn strings(input: &mut Decoder<'_>) -> Result<Vec<Vec<u8>>, DecodeError> {
    let strings = input.list(MAX_STRINGS, MAX_STRING)?;
    if strings.iter().any(|string| string.contains(&0)) {
        return Err(DecodeError("a string has a NUL"));
    }
    Ok(strings)
}

impl Spawn {
    fn encode(&self, out: &mut Encoder) {
        out.list(&self.argv)
            .list(&self.env)
            .option(self.cwd.as_deref(), |out, cwd| {
                out.bytes(cwd);
            })
            .option(self.user.as_deref(), |out, user| {
                out.bytes(user);
            })
            .option(self.tty, |out, (rows, columns)| {
                out.u16(rows).u16(columns);
            })
            .flag(self.stdin)
            .option(self.timeout_ms, |out, timeout| {
                out.u64(timeout);
            })
            .flag(self.main)
            .flag(self.detached);
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let spawn = Self {
            argv: strings(input)?,
            env: strings(input)?,
            cwd: input.option(path)?,
            user: input.option(|input| input.bytes(MAX_USER).map(<[u8]>::to_vec))?,
            tty: input.option(|input| Ok((input.u16()?, input.u16()?)))?,
            stdin: input.flag()?,
            timeout_ms: input.option(Decoder::u64)?,
            main: input.flag()?,
            detached: input.flag()?,
        };
        if spawn.argv.first().is_none_or(Vec::is_empty) {
            return Err(DecodeError("a command has no program"));
        }
        Ok(spawn)
    }
}
