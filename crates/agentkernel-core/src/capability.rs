//! What a backend can do and enforce.
use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

macro_rules! capabilities {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// One thing that a backend can do or enforce. Its name serves docs, errors, tests and the command alike.
        #[non_exhaustive]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Capability {
            $($(#[doc = $doc])+ #[serde(rename = $text)] $name,)+
        }

        impl Capability {
            /// Every capability, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Returns the stable name; that of a restriction is the config field it enforces.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// Returns what it means, in a sentence.
            pub fn description(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc,)+).trim_start(),)+ }
            }
        }
    };
}

capabilities! {
    /// Commands can be given stdin.
    ExecStdin = "exec_stdin",
    /// Commands can have a terminal of their own, which can be resized.
    ExecTty = "exec_tty",
    /// Running commands can be sent signals.
    ExecSignal = "exec_signal",
    /// Commands can run as a user other than the default.
    ExecUser = "user",
    /// Commands can outlive their client, be listed, and be attached again.
    ExecDetached = "exec_detached",
    /// A missing program is told apart from a program that says so.
    TypedExit = "typed_exit",
    /// Ending a command ends everything that it started.
    KillTree = "kill_tree",
    /// Arguments, variables and paths need not be UTF-8.
    RawBytes = "raw_bytes",
    /// Files and trees go in and out.
    Files = "files",
    /// Host directories and files can be shown inside.
    BindMount = "mounts",
    /// Named volumes can be shown inside.
    Volume = "volumes",
    /// File systems in memory can be shown inside, with a size limit.
    Tmpfs = "tmpfs",
    /// Connections go to ports inside, without any network.
    Forward = "forward",
    /// Ports of the host lead to ports inside.
    PortMapping = "ports",
    /// Commands can be kept from every network.
    NetworkNone = "network_none",
    /// Commands can be kept to named hosts.
    NetworkAllow = "network_allow",
    /// Commands can be given a network.
    NetworkFull = "network_full",
    /// Processor time is limited.
    CpuLimit = "vcpus",
    /// Memory is limited, swap included.
    MemoryLimit = "memory_mb",
    /// The number of processes and threads is limited.
    PidsLimit = "pids",
    /// Disk space is limited.
    DiskLimit = "disk_mb",
    /// The number of open files of a process is limited.
    OpenFilesLimit = "open_files",
    /// The root file system can be made read-only.
    ReadOnlyRoot = "read_only",
    /// Commands have no Linux capabilities but those asked for.
    DropCapabilities = "cap_add",
    /// Commands cannot gain privileges by set-user-id programs.
    NoNewPrivileges = "no_new_privileges",
    /// System calls that sandboxed programs do not need are refused.
    SyscallFilter = "syscall_filter",
    /// A sandbox ends when its owner dies, whatever way.
    Lease = "lease",
    /// A sandbox can outlive its owner.
    Persistence = "persistence",
    /// A sandbox's state can be kept as an image and restored.
    Snapshot = "snapshot",
    /// The main command's output is kept and can be read later.
    Logs = "logs",
    /// Use of processor, memory and processes can be read.
    Stats = "stats",
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Capability {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.iter().copied().find(|known| known.as_str() == text).ok_or_else(|| {
            Error::invalid("capability", "there is no such capability")
                .with_context("capability", text.chars().take(32).collect::<String>())
                .with_hint("use a name that `agentkernel backends` shows, like `pids`")
        })
    }
}

/// How strongly a sandbox is separated from the host, weakest first, so that they compare.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// A process under the same kernel, without a container around it.
    Process,
    /// A container whose root is root of the host.
    RootContainer,
    /// A container whose root is an unprivileged user of the host.
    UsernsContainer,
    /// A kernel of its own.
    Vm,
}

impl Isolation {
    /// Every class, weakest first.
    pub const ALL: &'static [Self] = &[Self::Process, Self::RootContainer, Self::UsernsContainer, Self::Vm];

    /// Returns the stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::RootContainer => "root-container",
            Self::UsernsContainer => "userns-container",
            Self::Vm => "vm",
        }
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Isolation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.iter().copied().find(|known| known.as_str() == text).ok_or_else(|| {
            Error::invalid("isolation class", "there is no such isolation class")
                .with_context("isolation", text.chars().take(32).collect::<String>())
                .with_hint("use process, root-container, userns-container or vm")
        })
    }
}

/// What a backend can do, and how strongly it isolates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    set: u64,
    isolation: Isolation,
}

impl Capabilities {
    /// Makes a set without any capability.
    pub const fn new(isolation: Isolation) -> Self {
        Self { set: 0, isolation }
    }

    /// Adds a capability.
    #[must_use]
    pub const fn with(mut self, capability: Capability) -> Self {
        self.set |= 1 << capability as u32;
        self
    }

    /// Adds capabilities.
    #[must_use]
    pub const fn with_all(mut self, capabilities: &[Capability]) -> Self {
        let mut index = 0;
        while index < capabilities.len() {
            self = self.with(capabilities[index]);
            index += 1;
        }
        self
    }

    /// Removes a capability: what the upper bound has and this machine has not.
    #[must_use]
    pub const fn without(mut self, capability: Capability) -> Self {
        self.set &= !(1 << capability as u32);
        self
    }

    /// Sets the isolation class.
    #[must_use]
    pub const fn with_isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// Returns whether the capability is in the set.
    pub const fn has(self, capability: Capability) -> bool {
        self.set & (1 << capability as u32) != 0
    }

    /// Returns the isolation class.
    pub const fn isolation(self) -> Isolation {
        self.isolation
    }

    /// Returns the capabilities of the set, in the order of [`Capability::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Capability> {
        Capability::ALL.iter().copied().filter(move |capability| self.has(*capability))
    }
}

impl Serialize for Capabilities {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_capability_reads_back_its_own_name_and_is_described() {
        for capability in Capability::ALL {
            assert_eq!(capability.as_str().parse::<Capability>().unwrap(), *capability);
            assert!(capability.description().ends_with('.') && !capability.description().starts_with(' '));
        }
    }

    #[test]
    fn sets_hold_what_was_added_and_not_removed() {
        let set = Capabilities::new(Isolation::Process)
            .with_all(&[Capability::Files, Capability::Stats])
            .without(Capability::Files);
        assert_eq!(set.iter().collect::<Vec<_>>(), [Capability::Stats]);
    }

    #[test]
    fn isolation_compares_weakest_first() {
        assert!(Isolation::ALL.is_sorted());
    }

    proptest! {
        #[test]
        fn parsers_never_panic(text in ".{0,40}") {
            let _capability = text.parse::<Capability>();
            let _isolation = text.parse::<Isolation>();
        }
    }
}
