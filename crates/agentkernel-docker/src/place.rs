//! Where an engine is: on our kernel, so that sockets and files can be handed over, or elsewhere.
use agentkernel_core::{Error, ErrorKind, Result};
use agentkernel_host::Machine;
use bollard::models::SystemInfo;

use crate::address::Address;

/// Where an engine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// It runs on our kernel and shares our files.
    Here,
    /// On another machine, in a virtual machine, or behind a connection that does not tell.
    Elsewhere,
}

impl Place {
    /// Judges by the engine's description. Behind tcp nothing tells whose files it sees.
    pub(crate) fn of(info: &SystemInfo, address: &Address) -> Self {
        let ours = rustix::system::uname();
        let same = info.kernel_version.as_deref() == Some(&*ours.release().to_string_lossy());
        if same && address.is_local() { Self::Here } else { Self::Elsewhere }
    }
}

/// What an engine says of itself.
#[derive(Debug)]
pub(crate) struct Described {
    pub info: SystemInfo,
    pub place: Place,
}

impl Described {
    /// Returns the kind of processor that the engine's containers run on.
    ///
    /// # Errors
    /// `Unavailable` if no guest is built for it.
    pub(crate) fn machine(&self) -> Result<Machine> {
        let named = self.info.architecture.as_deref().unwrap_or_default();
        Machine::named(named).ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, "use the engine", "no guest is built for its processor")
                .with_context("architecture", named.chars().take(40).collect::<String>())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_engine_behind_a_socket_on_our_kernel_is_here() {
        let ours = rustix::system::uname().release().to_string_lossy().into_owned();
        let info =
            |kernel: &str| SystemInfo { kernel_version: Some(kernel.to_owned()), ..Default::default() };
        let (socket, tcp) = (Address::Unix("/s".into()), Address::tcp("127.0.0.1:1").unwrap());
        assert_eq!(Place::of(&info(&ours), &socket), Place::Here);
        assert_eq!(Place::of(&info("0.1"), &socket), Place::Elsewhere);
        assert_eq!(Place::of(&info(&ours), &tcp), Place::Elsewhere);
        assert_eq!(Place::of(&SystemInfo::default(), &socket), Place::Elsewhere);
    }
}
