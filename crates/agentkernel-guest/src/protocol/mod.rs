//! The wire format between host and guest, version 1: frames on one byte stream.
//!
//! A frame is a header of 9 bytes (payload length `u32`, kind `u8`, channel `u32`, little-endian) and a payload.
//! Channel 0 is the connection itself. Every other channel begins with a [`Request`] of the host (or with
//! [`FromGuest::Accepted`]) and ends with one terminal frame of the guest: [`FromGuest::Exited`],
//! [`FromGuest::Done`] or [`FromGuest::Failed`].
//!
//! Neither side trusts the other: every length and count is bounded before anything is allocated, and a frame that
//! breaks a rule ends the connection. See [`limits`](self#constants).

mod codec;
mod frame;
mod from_guest;
mod request;
mod to_guest;

pub use codec::{DecodeError, Decoder, Encoder};
pub use frame::{FrameReader, HEADER_LEN, Header, encode_frame};
pub use from_guest::{
    CommandEntry, DirectoryEntry, Failure, FailureCode, FileKind, FileMetadata, FromGuest, Report,
    ResourceStats, Status,
};
pub use request::{Request, Spawn};
pub use to_guest::{Configure, ToGuest};

/// The version spoken here.
pub const VERSION: u16 = 1;
/// The oldest version that this side still speaks.
pub const MIN_VERSION: u16 = 1;
/// The most that one data frame carries, in bytes, either way.
pub const MAX_DATA: usize = 64 << 10;
/// The longest payload that the host accepts from a guest, in bytes.
pub const MAX_FROM_GUEST: usize = MAX_DATA;
/// The longest payload that the guest accepts, in bytes: a command with all the arguments that the kernel takes.
pub const MAX_TO_GUEST: usize = (2 << 20) + (64 << 10);
/// Bytes of data that may be under way on a channel, each way, before the receiver grants more.
pub const WINDOW: u32 = 256 << 10;
/// Channels that one connection may have open.
pub const MAX_CHANNELS: usize = 256;
/// Connections that a guest serves at once.
pub const MAX_CONNECTIONS: usize = 64;
/// Channels whose number has this bit are opened by the guest (accepted connections).
pub const GUEST_CHANNEL: u32 = 1 << 31;
/// How much of a command's output is kept for those who attach later, in bytes.
pub const KEPT_OUTPUT: usize = 1 << 20;
/// How many ended detached commands are kept.
pub const KEPT_COMMANDS: usize = 64;
/// The longest path in bytes.
pub const MAX_PATH: usize = 4095;
/// The longest text of a [`Failure`], in bytes.
pub const MAX_MESSAGE: usize = 512;
/// How much of a command's arguments [`CommandEntry`] tells, in bytes.
pub const MAX_LISTED_ARGV: usize = 4096;
/// The uid that the guest lives under in a container, so that no command inside is of its user.
pub const INIT_UID: u32 = 65_432;
/// The length of the key that opens the inner socket, in bytes.
pub const KEY_LEN: usize = 32;
/// The abstract name (unix(7)) of the guest's socket inside a sandbox whose engine shares no kernel with the host.
pub const INNER_SOCKET: &[u8] = b"agentkernel";
/// Where the guest's files appear inside.
pub const GUEST_DIR: &str = "/.agentkernel";
