//! Everything that the host sends.
use super::{DecodeError, Decoder, Encoder, MAX_DATA, MAX_PATH, Request, encode_frame};

/// A frame from host to guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToGuest {
    /// The first frame: the versions that the host speaks. Channel 0.
    Hello {
        /// The newest.
        version: u16,
        /// The oldest.
        min_version: u16,
    },
    /// How the sandbox is to be; on the boot connection only, once, before any request. Channel 0. If
    /// [`Configure::listener`] is set, the frame's first byte carries a listening socket (`SCM_RIGHTS`, unix(7)).
    Configure(Box<Configure>),
    /// Asks for `Pong` with the same number. Channel 0.
    Ping(u64),
    /// Ends the sandbox: SIGTERM to every command, SIGKILL after so many milliseconds. Channel 0.
    Shutdown {
        /// Grace in milliseconds.
        grace_ms: u32,
    },
    /// Opens a channel.
    Request(Request),
    /// Bytes for the channel: stdin, file content, connection.
    Data(Vec<u8>),
    /// Nothing more comes on the channel.
    Eof,
    /// The guest may send so many more bytes on the channel.
    Credit(u32),
    /// The host is done with the channel: a command that is not detached is killed with its tree, any other work
    /// canceled. The guest answers with a terminal frame, which the host ignores.
    Close,
    /// Sends a signal to the command's process group.
    Signal(u8),
    /// Changes the size of the command's terminal.
    Resize {
        /// Height.
        rows: u16,
        /// Width.
        columns: u16,
    },
    /// Lets the command outlive the channel.
    Detach,
}

/// How the sandbox is to be, told at boot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Configure {
    /// The sandbox ends when this connection does.
    pub lease: bool,
    /// The sandbox ends after so many milliseconds.
    pub deadline_ms: Option<u64>,
    /// The default user of commands and files; `None` is uid 0.
    pub user: Option<Vec<u8>>,
    /// The default working directory; `None` is `/`.
    pub cwd: Option<Vec<u8>>,
    /// Variables beside those that the guest was started with.
    pub env: Vec<Vec<u8>>,
    /// Linux capabilities that commands keep: bit N is number N (linux/capability.h).
    pub keep_capabilities: u64,
    /// Commands cannot gain privileges.
    pub no_new_privileges: bool,
    /// The guest moves to [`INIT_UID`](super::INIT_UID), keeping only what it needs.
    pub drop_privileges: bool,
    /// The output of a detached main command is also written to the guest's own stdout and stderr.
    pub log_output: bool,
    /// A listening socket comes with this frame, for later connections.
    pub listener: bool,
}

impl Configure {
    fn encode(&self, out: &mut Encoder) {
        out.flag(self.lease)
            .option(self.deadline_ms, |out, deadline| {
                out.u64(deadline);
            })
            .option(self.user.as_deref(), |out, user| {
                out.bytes(user);
            })
            .option(self.cwd.as_deref(), |out, cwd| {
                out.bytes(cwd);
            })
            .list(&self.env)
            .u64(self.keep_capabilities)
            .flag(self.no_new_privileges)
            .flag(self.drop_privileges)
            .flag(self.log_output)
            .flag(self.listener);
    }

    fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(payload);
        let bytes = |most| move |input: &mut Decoder<'_>| input.bytes(most).map(<[u8]>::to_vec);
        let configure = Self {
            lease: input.flag()?,
            deadline_ms: input.option(Decoder::u64)?,
            user: input.option(bytes(65))?,
            cwd: input.option(bytes(MAX_PATH))?,
            env: input.list(64 << 10, 128 << 10)?,
            keep_capabilities: input.u64()?,
            no_new_privileges: input.flag()?,
            drop_privileges: input.flag()?,
            log_output: input.flag()?,
            listener: input.flag()?,
        };
        input.end()?;
        Ok(configure)
    }
}

impl ToGuest {
    const HELLO: u8 = 0x01;
    const CONFIGURE: u8 = 0x02;
    const PING: u8 = 0x03;
    const SHUTDOWN: u8 = 0x04;
    /// Reserved in version 1: a descriptor for the channel, passed beside the frame (`SCM_RIGHTS`).
    pub const DESCRIPTOR: u8 = 0x05;
    /// Kind of `Data`, for those who frame bytes without copying them first.
    pub const DATA: u8 = 0x40;
    const EOF: u8 = 0x41;
    const CREDIT: u8 = 0x42;
    const CLOSE: u8 = 0x43;
    const SIGNAL: u8 = 0x44;
    const RESIZE: u8 = 0x45;
    const DETACH: u8 = 0x46;

    /// Appends the frame to a buffer.
    pub fn encode(&self, channel: u32, out: &mut Vec<u8>) {
        let mut payload = Encoder::new();
        let kind = match self {
            Self::Hello { version, min_version } => {
                payload.u16(*version).u16(*min_version);
                Self::HELLO
            }
            Self::Configure(configure) => {
                configure.encode(&mut payload);
                Self::CONFIGURE
            }
            Self::Ping(number) => {
                payload.u64(*number);
                Self::PING
            }
            Self::Shutdown { grace_ms } => {
                payload.u32(*grace_ms);
                Self::SHUTDOWN
            }
            Self::Request(request) => {
                request.encode(&mut payload);
                request.kind()
            }
            Self::Data(bytes) => {
                payload.raw(bytes);
                Self::DATA
            }
            Self::Eof => Self::EOF,
            Self::Credit(bytes) => {
                payload.u32(*bytes);
                Self::CREDIT
            }
            Self::Close => Self::CLOSE,
            Self::Signal(number) => {
                payload.u8(*number);
                Self::SIGNAL
            }
            Self::Resize { rows, columns } => {
                payload.u16(*rows).u16(*columns);
                Self::RESIZE
            }
            Self::Detach => Self::DETACH,
        };
        encode_frame(out, kind, channel, &payload.finish());
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// If it breaks a rule; the connection must end.
    pub fn decode(kind: u8, payload: &[u8]) -> Result<Self, DecodeError> {
        if (Request::FIRST_KIND..=Request::LAST_KIND).contains(&kind) {
            return Request::decode(kind, payload).map(Self::Request);
        }
        let mut input = Decoder::new(payload);
        let frame = match kind {
            Self::HELLO => {
                // A newer host may say more; what comes after the versions is skipped.
                let hello = Self::Hello { version: input.u16()?, min_version: input.u16()? };
                input.rest();
                hello
            }
            Self::CONFIGURE => {
                return Configure::decode(payload).map(|configure| Self::Configure(Box::new(configure)));
            }
            Self::PING => Self::Ping(input.u64()?),
            Self::SHUTDOWN => Self::Shutdown { grace_ms: input.u32()? },
            Self::DATA if payload.len() > MAX_DATA => {
                return Err(DecodeError("a data frame is longer than allowed"));
            }
            Self::DATA => Self::Data(input.rest().to_vec()),
            Self::EOF => Self::Eof,
            Self::CREDIT => Self::Credit(input.u32()?),
            Self::CLOSE => Self::Close,
            Self::SIGNAL => match input.u8()? {
                number @ 1..=64 => Self::Signal(number),
                _ => return Err(DecodeError("there is no such signal")),
            },
            Self::RESIZE => Self::Resize { rows: input.u16()?, columns: input.u16()? },
            Self::DETACH => Self::Detach,
            _ => return Err(DecodeError("the kind of a frame is not known")),
        };
        input.end()?;
        Ok(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{FrameReader, MAX_TO_GUEST, Spawn};
    use super::*;
    use proptest::prelude::*;

    fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(1u8.., 0..most)
    }

    fn path() -> impl Strategy<Value = Vec<u8>> {
        bytes(40).prop_map(|rest| [b"/".as_slice(), &rest].concat())
    }

    fn spawn() -> impl Strategy<Value = Request> {
        let argv = (proptest::collection::vec(1u8.., 1..8), proptest::collection::vec(bytes(20), 0..4));
        let texts = (
            proptest::collection::vec(bytes(20), 0..4),
            proptest::option::of(path()),
            proptest::option::of(bytes(60)),
        );
        (argv, texts, any::<(Option<(u16, u16)>, bool, Option<u64>, bool, bool)>()).prop_map(
            |((program, rest), (env, cwd, user), (tty, stdin, timeout_ms, main, detached))| {
                let argv = std::iter::once(program).chain(rest).collect();
                Request::Spawn(Spawn { argv, env, cwd, user, tty, stdin, timeout_ms, main, detached })
            },
        )
    }

    fn frame() -> impl Strategy<Value = ToGuest> {
        prop_oneof![
            any::<(u16, u16)>().prop_map(|(version, min_version)| ToGuest::Hello { version, min_version }),
            any::<u64>().prop_map(ToGuest::Ping),
            any::<u32>().prop_map(|grace_ms| ToGuest::Shutdown { grace_ms }),
            spawn().prop_map(ToGuest::Request),
            (path(), any::<Option<u32>>(), any::<bool>()).prop_map(|(path, mode, parents)| {
                ToGuest::Request(Request::Write { path, mode: mode.map(|mode| mode & 0o777), parents })
            }),
            path().prop_map(|path| ToGuest::Request(Request::Pack { path })),
            any::<(std::net::IpAddr, u16)>()
                .prop_map(|address| ToGuest::Request(Request::Listen { address: address.into() })),
            proptest::collection::vec(any::<u8>(), 0..100).prop_map(ToGuest::Data),
            any::<u32>().prop_map(ToGuest::Credit),
            (1u8..=64).prop_map(ToGuest::Signal),
            any::<(u16, u16)>().prop_map(|(rows, columns)| ToGuest::Resize { rows, columns }),
            (
                any::<(bool, Option<u64>, u64)>(),
                proptest::option::of(bytes(60)),
                proptest::collection::vec(bytes(20), 0..4)
            )
                .prop_map(|((lease, deadline_ms, keep_capabilities), user, env)| {
                    ToGuest::Configure(Box::new(Configure {
                        lease,
                        deadline_ms,
                        user,
                        env,
                        keep_capabilities,
                        ..Configure::default()
                    }))
                }),
        ]
    }

    proptest! {
        #[test]
        fn every_frame_reads_back(frame in frame(), channel in any::<u32>()) {
            let mut stream = Vec::new();
            frame.encode(channel, &mut stream);
            let mut reader = FrameReader::new(MAX_TO_GUEST);
            reader.push(&stream);
            let (header, payload) = reader.next().unwrap().unwrap();
            prop_assert_eq!(header.channel, channel);
            prop_assert_eq!(ToGuest::decode(header.kind, payload).unwrap(), frame);
        }

        #[test]
        fn garbage_never_panics(kind in any::<u8>(), payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _frame = ToGuest::decode(kind, &payload);
        }
    }

    #[test]
    fn a_list_that_claims_more_than_the_payload_holds_is_refused() {
        assert!(ToGuest::decode(0x10, &[0xff, 0xff, 0x03, 0]).is_err());
    }

    #[test]
    fn the_descriptor_frame_is_reserved() {
        assert!(ToGuest::decode(ToGuest::DESCRIPTOR, &[]).is_err());
    }
}
