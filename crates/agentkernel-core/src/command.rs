//! The checked parts of a command: arguments, environment, user, signal, terminal size.
use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The longest argument or `NAME=value` in bytes: `MAX_ARG_STRLEN` of Linux less its NUL (execve(2)).
const MAX_STRING: usize = 128 * 1024 - 1;

/// One argument of a command: any bytes but NUL, at most 131,071 of them (execve(2)).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Arg(Vec<u8>);

impl Arg {
    /// Makes an argument.
    ///
    /// # Errors
    /// `InvalidConfig` if it has a NUL byte or is too long for the kernel.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self> {
        let bytes = bytes.into();
        if bytes.contains(&0) {
            return Err(Error::invalid("argument", "the argument has a NUL byte"));
        }
        if bytes.len() > MAX_STRING {
            return Err(Error::invalid("argument", "the argument is longer than 131071 bytes")
                .with_context("length", bytes.len())
                .with_hint("pass the content on stdin or in a file"));
        }
        Ok(Self(bytes))
    }

    /// Returns the bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// An environment variable. The name is a letter or `_`, then letters, digits, `_`, `.` or `-`; the value any bytes but
/// NUL; `NAME=value` at most 131,071 bytes (execve(2)).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EnvVar {
    name: String,
    value: Vec<u8>,
}

impl EnvVar {
    /// Makes a variable.
    ///
    /// # Errors
    /// `InvalidConfig` if the name or the value is not of the form above. The value is never shown.
    pub fn new(name: impl Into<String>, value: impl Into<Vec<u8>>) -> Result<Self> {
        let (name, value) = (name.into(), value.into());
        let fail = |message: &'static str| {
            Err(Error::invalid("environment variable", message)
                .with_context("name", name.chars().take(64).collect::<String>()))
        };
        let mut bytes = name.bytes();
        if !bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
            || !bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
        {
            return fail("the name is empty or has a character that is not allowed");
        }
        if value.contains(&0) {
            return fail("the value has a NUL byte");
        }
        if name.len() + 1 + value.len() > MAX_STRING {
            return fail("name and value are longer than 131070 bytes");
        }
        Ok(Self { name, value })
    }

    /// Reads `NAME=value`.
    ///
    /// # Errors
    /// `InvalidConfig` if there is no `=` or a part is not of the form above.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let Some(at) = bytes.iter().position(|byte| *byte == b'=') else {
            return Err(Error::invalid("environment variable", "there is no `=`")
                .with_hint("write NAME=value; a variable of the host is never taken by its name alone"));
        };
        Self::new(String::from_utf8_lossy(&bytes[..at]), &bytes[at + 1..])
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the value.
    pub fn value(&self) -> &[u8] {
        &self.value
    }
}

/// Values are often secrets: only the name is shown.
impl fmt::Debug for EnvVar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvVar").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The id of a command in its sandbox, given by the backend: 1 to 64 of `a-z`, `0-9` and `-`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct ExecId(String);

impl ExecId {
    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<u64> for ExecId {
    fn from(id: u64) -> Self {
        Self(id.to_string())
    }
}

impl FromStr for ExecId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let well_formed = (1..=64).contains(&text.len())
            && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if !well_formed {
            return Err(Error::invalid("command id", "the id is not 1 to 64 of a-z, 0-9 and `-`"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for ExecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who a command runs as: `NAME`, `UID`, `NAME:GROUP` or `UID:GID`. Names are looked up inside the sandbox, in its own
/// `/etc/passwd` and `/etc/group`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct User(String);

impl User {
    /// Returns the text as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for User {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.splitn(2, ':');
        if parts.all(is_user_or_group) {
            return Ok(Self(text.to_owned()));
        }
        Err(Error::invalid("user", "the user is not of the form NAME, UID, NAME:GROUP or UID:GID")
            .with_context("user", text.chars().take(64).collect::<String>())
            .with_hint("for example `--user 1000:1000`"))
    }
}

/// useradd(8) for names; ids up to 2^31-1, since -1 and what wraps to it mean "unchanged" to the kernel (setresuid(2)).
fn is_user_or_group(part: &str) -> bool {
    let mut bytes = part.bytes();
    match bytes.next() {
        Some(first) if first.is_ascii_digit() => {
            part.parse::<u32>().is_ok_and(|id| i32::try_from(id).is_ok())
        }
        Some(first) if first.is_ascii_alphabetic() || first == b'_' => {
            part.len() <= 32
                && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
        }
        _ => false,
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A signal by its Linux number, 1 to 64 (signal(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Signal(u8);

/// Linux numbers on x86 and ARM (signal(7)).
const SIGNALS: [(&str, u8); 31] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

impl Signal {
    /// Hangup of the terminal.
    pub const HUP: Self = Self(1);
    /// Interrupt from the keyboard.
    pub const INT: Self = Self(2);
    /// Quit from the keyboard.
    pub const QUIT: Self = Self(3);
    /// The end that cannot be caught.
    pub const KILL: Self = Self(9);
    /// The polite end.
    pub const TERM: Self = Self(15);

    /// Makes a signal; `None` unless 1 to 64.
    pub const fn new(number: u8) -> Option<Self> {
        if number >= 1 && number <= 64 { Some(Self(number)) } else { None }
    }

    /// Returns the Linux number.
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl FromStr for Signal {
    type Err = Error;

    /// Reads `TERM`, `SIGTERM`, `sigterm`, `15` or `SIG40`.
    fn from_str(text: &str) -> Result<Self> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let number = SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
        number.or_else(|| name.parse().ok()).and_then(Self::new).ok_or_else(|| {
            Error::invalid("signal", "there is no such signal")
                .with_context("signal", text.chars().take(32).collect::<String>())
                .with_hint("use a name like TERM or a number from 1 to 64")
        })
    }
}

/// `SIGTERM`, or `SIG40` for a real-time signal.
impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SIGNALS.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => write!(f, "SIG{name}"),
            None => write!(f, "SIG{}", self.0),
        }
    }
}

/// The size of a terminal in character cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TtySize {
    /// Height in rows.
    pub rows: u16,
    /// Width in columns.
    pub columns: u16,
}

impl Default for TtySize {
    fn default() -> Self {
        Self { rows: 24, columns: 80 }
    }
}

/// A Linux capability that a command may keep, by its name in capabilities(7) without `CAP_`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LinuxCapability(u8);

/// In the order of their numbers (linux/capability.h).
const LINUX_CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

impl LinuxCapability {
    /// Returns the number (linux/capability.h).
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Returns the name without `CAP_`.
    pub fn name(self) -> &'static str {
        LINUX_CAPABILITIES[usize::from(self.0)]
    }
}

impl FromStr for LinuxCapability {
    type Err = Error;

    /// Reads `NET_RAW`, `CAP_NET_RAW` or `net_raw`.
    fn from_str(text: &str) -> Result<Self> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let found = LINUX_CAPABILITIES.iter().position(|known| *known == name);
        found.and_then(|number| u8::try_from(number).ok()).map(Self).ok_or_else(|| {
            Error::invalid("capability", "there is no such Linux capability")
                .with_context("capability", text.chars().take(32).collect::<String>())
                .with_hint("use a name of capabilities(7), like NET_BIND_SERVICE; `ALL` is not accepted")
        })
    }
}

impl TryFrom<String> for LinuxCapability {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<LinuxCapability> for String {
    fn from(capability: LinuxCapability) -> Self {
        capability.name().to_owned()
    }
}

impl fmt::Display for LinuxCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn arguments_are_bytes_without_nul_up_to_the_limit_of_the_kernel() {
        assert_eq!(Arg::new(*b"\xff\n").unwrap().as_bytes(), b"\xff\n");
        assert!(Arg::new(*b"a\0").is_err());
        assert!(Arg::new(vec![b'a'; 131_071]).is_ok());
        assert!(Arg::new(vec![b'a'; 131_072]).is_err());
    }

    #[test]
    fn variables_without_a_name_or_with_a_strange_one_are_refused() {
        for bad in ["", "=x", "A", "A B=1", "1A=2", "A\n=1", "A=\0", "É=1"] {
            assert!(EnvVar::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn values_keep_every_byte() {
        let var = EnvVar::parse(b"A=b=c\n\xff").unwrap();
        assert_eq!((var.name(), var.value()), ("A", b"b=c\n\xff".as_slice()));
    }

    #[test]
    fn values_are_never_shown() {
        assert!(!format!("{:?}", EnvVar::new("A", "secret").unwrap()).contains("secret"));
        assert!(!EnvVar::new("A B", "secret").unwrap_err().to_string().contains("secret"));
    }

    #[test]
    fn users_that_wrap_or_have_three_parts_are_refused() {
        for bad in ["", "-1", "4294967295", "2147483648", "a:b:c", ":", "a:", ":1", "\n", "a b", "1x"] {
            assert!(bad.parse::<User>().is_err(), "{bad:?}");
        }
        for good in ["root", "0", "0:0", "1000:1000", "www-data:www-data", "_apt"] {
            assert!(good.parse::<User>().is_ok(), "{good:?}");
        }
    }

    #[test]
    fn signals_have_names_and_numbers() {
        assert_eq!("SIGTERM".parse::<Signal>().unwrap(), Signal::TERM);
        assert_eq!("int".parse::<Signal>().unwrap(), Signal::INT);
        assert_eq!("9".parse::<Signal>().unwrap().to_string(), "SIGKILL");
        assert!("0".parse::<Signal>().is_err());
        assert!("65".parse::<Signal>().is_err());
    }

    #[test]
    fn all_is_no_capability() {
        assert!("ALL".parse::<LinuxCapability>().is_err());
        assert_eq!("cap_net_raw".parse::<LinuxCapability>().unwrap().number(), 13);
    }

    proptest! {
        #[test]
        fn parsers_never_panic(text in ".{0,80}") {
            let _user = text.parse::<User>();
            let _signal = text.parse::<Signal>();
            let _id = text.parse::<ExecId>();
            let _capability = text.parse::<LinuxCapability>();
        }

        #[test]
        fn every_signal_reads_back_its_own_name(number in 1u8..=64) {
            let signal = Signal::new(number).unwrap();
            prop_assert_eq!(signal.to_string().parse::<Signal>().unwrap(), signal);
        }

        #[test]
        fn env_parse_splits_at_the_first_equals(name in "[A-Za-z_][A-Za-z0-9_]{0,8}", value in proptest::collection::vec(1u8.., 0..40)) {
            let text = [name.as_bytes(), b"=", &value].concat();
            let var = EnvVar::parse(&text).unwrap();
            prop_assert_eq!((var.name(), var.value()), (name.as_str(), value.as_slice()));
        }
    }
}
