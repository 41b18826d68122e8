//! Everything that the guest sends. The host takes each byte of it for hostile.
use super::{
    DecodeError, Decoder, Encoder, GUEST_CHANNEL, MAX_DATA, MAX_LISTED_ARGV, MAX_MESSAGE, encode_frame,
};

/// A frame from guest to host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromGuest {
    /// The first frame: the versions that the guest speaks. Channel 0.
    Hello {
        /// The newest.
        version: u16,
        /// The oldest.
        min_version: u16,
    },
    /// The answer to `Configure`: what the guest found. Channel 0.
    Report(Box<Report>),
    /// The answer to `Ping`. Channel 0.
    Pong(u64),
    /// The request is under way. For commands the command's id, else 0.
    Started {
        /// The command's id.
        id: u64,
    },
    /// Bytes of stdout, of a file, of a tar stream or of a connection.
    Stdout(Vec<u8>),
    /// Bytes of stderr.
    Stderr(Vec<u8>),
    /// The other side of a connection sends no more.
    Eof,
    /// The host may send so many more bytes on the channel.
    Credit(u32),
    /// A command, in the answer to `Commands`.
    Command(Box<CommandEntry>),
    /// A directory entry, in the answer to `ReadDir`.
    Entry(DirectoryEntry),
    /// The answer to `Metadata`.
    Metadata(FileMetadata),
    /// The answer to `Stats`.
    Stats(ResourceStats),
    /// A connection came in on a listening channel; it has this channel, which the guest opened.
    Accepted {
        /// The new channel; [`GUEST_CHANNEL`] is set.
        channel: u32,
    },
    /// The command ended; all its output was sent. Terminal.
    Exited(Status),
    /// The request was done. Terminal.
    Done,
    /// The request failed. Terminal.
    Failed(Failure),
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// By itself.
    Code(u8),
    /// By a signal.
    Signal(u8),
    /// By its timeout.
    TimedOut,
    /// By the kernel, for want of memory.
    OutOfMemory,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What it means for the host.
    pub code: FailureCode,
    /// The error number of the call that failed, 0 if none did.
    pub errno: u32,
    /// For people: what was being done, at most [`MAX_MESSAGE`] bytes.
    pub message: String,
}

macro_rules! failure_codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal,)+) => {
        /// Why a request failed, for programs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum FailureCode { $($(#[doc = $doc])+ $name,)+ }

        impl FailureCode {
            const ALL: &'static [Self] = &[$(Self::$name,)+];

            fn number(self) -> u8 {
                match self { $(Self::$name => $number,)+ }
            }
        }
    };
}

failure_codes! {
    /// The program does not exist.
    CommandNotFound = 1,
    /// The program cannot be executed: a directory, not executable, of another format.
    CommandNotExecutable = 2,
    /// The working directory does not exist or cannot be entered.
    BadDirectory = 3,
    /// The user or group does not exist inside, or is the guest's own.
    BadUser = 4,
    /// Arguments and environment are too long.
    ArgumentListTooLong = 5,
    /// There is no such command.
    NoSuchCommand = 6,
    /// The path does not exist.
    NotFound = 7,
    /// The path exists already.
    AlreadyExists = 8,
    /// The user may not do it.
    PermissionDenied = 9,
    /// The path is not a regular file.
    NotRegular = 10,
    /// A directory is needed and this is none.
    NotDirectory = 11,
    /// A file is needed and this is a directory.
    IsDirectory = 12,
    /// The directory is not empty.
    NotEmpty = 13,
    /// The file system is read-only.
    ReadOnly = 14,
    /// Disk space, memory, processes or descriptors are used up.
    Exhausted = 15,
    /// Nothing listens on the port.
    Refused = 16,
    /// The archive breaks a rule.
    BadArchive = 17,
    /// The host closed the channel.
    Canceled = 18,
    /// The request makes no sense now.
    Invalid = 19,
    /// Anything else; see the error number.
    Other = 20,
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandEntry {
    /// Its id.
    pub id: u64,
    /// Program and arguments, the first [`MAX_LISTED_ARGV`] bytes.
    pub argv: Vec<Vec<u8>>,
    /// How it ended, if it did.
    pub exit: Option<Status>,
    /// Whether processes of it live.
    pub running: bool,
    /// Whether it outlives its client.
    pub detached: bool,
    /// Whether the sandbox ends with it.
    pub main: bool,
    /// Milliseconds since its start.
    pub age_ms: u64,
}

/// What a directory entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// Anything else.
    Other,
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// One component.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: FileKind,
}

/// What is known of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMetadata {
    /// What it is.
    pub kind: FileKind,
    /// Size in bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970, two's complement.
    pub modified: i64,
}

/// Counters of the sandbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResourceStats {
    /// Processor time in microseconds.
    pub cpu_usec: Option<u64>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// What the guest finds in its own `/proc` and cgroup, measured in a process with the rights of a command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Memory limit in bytes.
    pub memory_bytes: Option<u64>,
    /// Limit of memory and swap together, in bytes; on cgroup v2 computed from `memory.swap.max`.
    pub memory_and_swap_bytes: Option<u64>,
    /// Limit of processes and threads.
    pub pids: Option<u64>,
    /// Processor quota in thousandths.
    pub cpu_milli: Option<u64>,
    /// Hard limit of open files.
    pub open_files: u64,
    /// `CapEff`, `CapPrm` and `CapInh` together, of a command.
    pub capabilities: u64,
    /// `CapBnd`, of a command.
    pub bounding: u64,
    /// `NoNewPrivs`, of a command.
    pub no_new_privileges: bool,
    /// `Seccomp`: 0 none, 2 a filter.
    pub seccomp: u8,
    /// Whether the root file system is mounted read-only.
    pub read_only: bool,
    /// Whether there is a network interface beside `lo`.
    pub network: bool,
    /// Process id of the guest as it sees itself.
    pub pid: u32,
    /// The uid that commands have by default, and its group.
    pub uid: u32,
    /// See `uid`.
    pub gid: u32,
}

impl Status {
    fn encode(self, out: &mut Encoder) {
        match self {
            Self::Code(code) => out.u8(0).u8(code),
            Self::Signal(number) => out.u8(1).u8(number),
            Self::TimedOut => out.u8(2).u8(0),
            Self::OutOfMemory => out.u8(3).u8(0),
        };
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        match (input.u8()?, input.u8()?) {
            (0, code) => Ok(Self::Code(code)),
            (1, number @ 1..=64) => Ok(Self::Signal(number)),
            (2, 0) => Ok(Self::TimedOut),
            (3, 0) => Ok(Self::OutOfMemory),
            _ => Err(DecodeError("there is no such status")),
        }
    }
}

impl FileKind {
    fn number(self) -> u8 {
        match self {
            Self::File => 0,
            Self::Directory => 1,
            Self::Symlink => 2,
            Self::Other => 3,
        }
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        match input.u8()? {
            0 => Ok(Self::File),
            1 => Ok(Self::Directory),
            2 => Ok(Self::Symlink),
            3 => Ok(Self::Other),
            _ => Err(DecodeError("there is no such kind of file")),
        }
    }
}

impl Failure {
    /// Makes a failure; a long message is cut.
    pub fn new(code: FailureCode, errno: u32, message: impl Into<String>) -> Self {
        let mut message = message.into();
        let cut = (0..=MAX_MESSAGE).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        message.truncate(cut);
        Self { code, errno, message }
    }

    fn encode(&self, out: &mut Encoder) {
        out.u8(self.code.number()).u32(self.errno).bytes(self.message.as_bytes());
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let number = input.u8()?;
        let code = FailureCode::ALL.iter().copied().find(|code| code.number() == number);
        let code = code.ok_or(DecodeError("there is no such failure"))?;
        let errno = input.u32()?;
        let message = String::from_utf8_lossy(input.bytes(MAX_MESSAGE)?).into_owned();
        Ok(Self { code, errno, message })
    }
}

impl CommandEntry {
    fn encode(&self, out: &mut Encoder) {
        out.u64(self.id)
            .list(&self.argv)
            .option(self.exit, |out, exit| exit.encode(out))
            .flag(self.running)
            .flag(self.detached)
            .flag(self.main)
            .u64(self.age_ms);
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            id: input.u64()?,
            argv: input.list(MAX_LISTED_ARGV, MAX_LISTED_ARGV)?,
            exit: input.option(Status::decode)?,
            running: input.flag()?,
            detached: input.flag()?,
            main: input.flag()?,
            age_ms: input.u64()?,
        })
    }
}

impl Report {
    fn encode(&self, out: &mut Encoder) {
        for number in [self.memory_bytes, self.memory_and_swap_bytes, self.pids, self.cpu_milli] {
            out.option(number, |out, number| {
                out.u64(number);
            });
        }
        out.u64(self.open_files)
            .u64(self.capabilities)
            .u64(self.bounding)
            .flag(self.no_new_privileges)
            .u8(self.seccomp)
            .flag(self.read_only)
            .flag(self.network)
            .u32(self.pid)
            .u32(self.uid)
            .u32(self.gid);
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            memory_bytes: input.option(Decoder::u64)?,
            memory_and_swap_bytes: input.option(Decoder::u64)?,
            pids: input.option(Decoder::u64)?,
            cpu_milli: input.option(Decoder::u64)?,
            open_files: input.u64()?,
            capabilities: input.u64()?,
            bounding: input.u64()?,
            no_new_privileges: input.flag()?,
            seccomp: input.u8()?,
            read_only: input.flag()?,
            network: input.flag()?,
            pid: input.u32()?,
            uid: input.u32()?,
            gid: input.u32()?,
        })
    }
}

/// One component of a path: not empty, no `/` or NUL, not `.` or `..`.
fn component(name: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let bad =
        name.is_empty() || name == b"." || name == b".." || name.iter().any(|byte| matches!(byte, 0 | b'/'));
    if bad { Err(DecodeError("a name is no name")) } else { Ok(name.to_vec()) }
}

impl FromGuest {
    const HELLO: u8 = 0x81;
    const REPORT: u8 = 0x82;
    const PONG: u8 = 0x83;
    const STARTED: u8 = 0x90;
    /// Kind of `Stdout`, for those who frame bytes without copying them first.
    pub const STDOUT: u8 = 0x91;
    /// Kind of `Stderr`, for those who frame bytes without copying them first.
    pub const STDERR: u8 = 0x92;
    const EOF: u8 = 0x93;
    const CREDIT: u8 = 0x94;
    const COMMAND: u8 = 0x95;
    const ENTRY: u8 = 0x96;
    const METADATA: u8 = 0x97;
    const STATS: u8 = 0x98;
    const ACCEPTED: u8 = 0x99;
    const EXITED: u8 = 0xa0;
    const DONE: u8 = 0xa1;
    const FAILED: u8 = 0xa2;

    /// Returns whether nothing more comes on the channel.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Exited(_) | Self::Done | Self::Failed(_))
    }

    /// Appends the frame to a buffer.
    pub fn encode(&self, channel: u32, out: &mut Vec<u8>) {
        let mut payload = Encoder::new();
        let kind = match self {
            Self::Hello { version, min_version } => {
                payload.u16(*version).u16(*min_version);
                Self::HELLO
            }
            Self::Report(report) => {
                report.encode(&mut payload);
                Self::REPORT
            }
            Self::Pong(number) => {
                payload.u64(*number);
                Self::PONG
            }
            Self::Started { id } => {
                payload.u64(*id);
                Self::STARTED
            }
            Self::Stdout(bytes) => {
                payload.raw(bytes);
                Self::STDOUT
            }
            Self::Stderr(bytes) => {
                payload.raw(bytes);
                Self::STDERR
            }
            Self::Eof => Self::EOF,
            Self::Credit(bytes) => {
                payload.u32(*bytes);
                Self::CREDIT
            }
            Self::Command(entry) => {
                entry.encode(&mut payload);
                Self::COMMAND
            }
            Self::Entry(entry) => {
                payload.u8(entry.kind.number()).bytes(&entry.name);
                Self::ENTRY
            }
            Self::Metadata(metadata) => {
                payload
                    .u8(metadata.kind.number())
                    .u64(metadata.size)
                    .u32(metadata.mode)
                    .u32(metadata.uid)
                    .u32(metadata.gid)
                    .u64(metadata.modified.cast_unsigned());
                Self::METADATA
            }
            Self::Stats(stats) => {
                for number in [stats.cpu_usec, stats.memory_bytes, stats.pids] {
                    payload.option(number, |out, number| {
                        out.u64(number);
                    });
                }
                Self::STATS
            }
            Self::Accepted { channel } => {
                payload.u32(*channel);
                Self::ACCEPTED
            }
            Self::Exited(status) => {
                status.encode(&mut payload);
                Self::EXITED
            }
            Self::Done => Self::DONE,
            Self::Failed(failure) => {
                failure.encode(&mut payload);
                Self::FAILED
            }
        };
        encode_frame(out, kind, channel, &payload.finish());
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// If it breaks a rule; the connection must end.
    pub fn decode(kind: u8, payload: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(payload);
        let frame = match kind {
            Self::HELLO => {
                let hello = Self::Hello { version: input.u16()?, min_version: input.u16()? };
                input.rest();
                hello
            }
            Self::REPORT => Self::Report(Box::new(Report::decode(&mut input)?)),
            Self::PONG => Self::Pong(input.u64()?),
            Self::STARTED => Self::Started { id: input.u64()? },
            Self::STDOUT | Self::STDERR if payload.len() > MAX_DATA => {
                return Err(DecodeError("a data frame is longer than allowed"));
            }
            Self::STDOUT => Self::Stdout(input.rest().to_vec()),
            Self::STDERR => Self::Stderr(input.rest().to_vec()),
            Self::EOF => Self::Eof,
            Self::CREDIT => Self::Credit(input.u32()?),
            Self::COMMAND => Self::Command(Box::new(CommandEntry::decode(&mut input)?)),
            Self::ENTRY => Self::Entry(DirectoryEntry {
                kind: FileKind::decode(&mut input)?,
                name: component(input.bytes(255)?)?,
            }),
            Self::METADATA => Self::Metadata(FileMetadata {
                kind: FileKind::decode(&mut input)?,
                size: input.u64()?,
                mode: input.u32()? & 0o7777,
                uid: input.u32()?,
                gid: input.u32()?,
                modified: input.u64()?.cast_signed(),
            }),
            Self::STATS => Self::Stats(ResourceStats {
                cpu_usec: input.option(Decoder::u64)?,
                memory_bytes: input.option(Decoder::u64)?,
                pids: input.option(Decoder::u64)?,
            }),
            Self::ACCEPTED => match input.u32()? {
                channel if channel & GUEST_CHANNEL != 0 => Self::Accepted { channel },
                _ => return Err(DecodeError("an accepted connection has a channel of the host's")),
            },
            Self::EXITED => Self::Exited(Status::decode(&mut input)?),
            Self::DONE => Self::Done,
            Self::FAILED => Self::Failed(Failure::decode(&mut input)?),
            _ => return Err(DecodeError("the kind of a frame is not known")),
        };
        input.end()?;
        Ok(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{FrameReader, MAX_FROM_GUEST};
    use super::*;
    use proptest::prelude::*;

    fn status() -> impl Strategy<Value = Status> {
        prop_oneof![
            any::<u8>().prop_map(Status::Code),
            (1u8..=64).prop_map(Status::Signal),
            Just(Status::TimedOut),
            Just(Status::OutOfMemory),
        ]
    }

    fn frame() -> impl Strategy<Value = FromGuest> {
        prop_oneof![
            any::<u64>().prop_map(|id| FromGuest::Started { id }),
            proptest::collection::vec(any::<u8>(), 0..100).prop_map(FromGuest::Stdout),
            status().prop_map(FromGuest::Exited),
            (any::<u32>(), ".{0,300}").prop_map(|(errno, message)| {
                FromGuest::Failed(Failure::new(FailureCode::BadArchive, errno, message))
            }),
            "[a-z]{1,20}".prop_map(|name| {
                FromGuest::Entry(DirectoryEntry { name: name.into_bytes(), kind: FileKind::Symlink })
            }),
            any::<(u64, u32, i64)>().prop_map(|(size, uid, modified)| {
                FromGuest::Metadata(FileMetadata {
                    kind: FileKind::File,
                    size,
                    mode: 0o644,
                    uid,
                    gid: uid,
                    modified,
                })
            }),
            (any::<(Option<u64>, u64, bool, u8)>()).prop_map(|(pids, bounding, read_only, seccomp)| {
                FromGuest::Report(Box::new(Report {
                    pids,
                    bounding,
                    read_only,
                    seccomp,
                    ..Report::default()
                }))
            }),
            (
                any::<(u64, bool, u64)>(),
                proptest::option::of(status()),
                proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..4)
            )
                .prop_map(|((id, running, age_ms), exit, argv)| {
                    FromGuest::Command(Box::new(CommandEntry {
                        id,
                        argv,
                        exit,
                        running,
                        detached: !running,
                        main: false,
                        age_ms,
                    }))
                }),
        ]
    }

    proptest! {
        #[test]
        fn every_frame_reads_back(frame in frame(), channel in any::<u32>()) {
            let mut stream = Vec::new();
            frame.encode(channel, &mut stream);
            let mut reader = FrameReader::new(MAX_FROM_GUEST);
            reader.push(&stream);
            let (header, payload) = reader.next().unwrap().unwrap();
            prop_assert_eq!(FromGuest::decode(header.kind, payload).unwrap(), frame);
        }

        #[test]
        fn garbage_never_panics(kind in any::<u8>(), payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _frame = FromGuest::decode(kind, &payload);
        }
    }

    #[test]
    fn names_that_are_paths_are_refused() {
        for name in [b"".as_slice(), b".", b"..", b"a/b", b"/", b"a\0"] {
            let mut stream = Vec::new();
            FromGuest::Entry(DirectoryEntry { name: name.to_vec(), kind: FileKind::File })
                .encode(1, &mut stream);
            assert!(FromGuest::decode(stream[4], &stream[9..]).is_err(), "{name:?}");
        }
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        assert_eq!(Failure::new(FailureCode::Other, 0, "é".repeat(400)).message.len(), MAX_MESSAGE);
    }
}
