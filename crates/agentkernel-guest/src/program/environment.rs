//! The variables of a command: of the image, of the sandbox, its own; the last one wins.
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStringExt;

use super::identity::Identity;
use super::user::Users;

/// Where programs are looked for when nobody says it.
const PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment(BTreeMap<Vec<u8>, Vec<u8>>);

impl Environment {
    /// Takes the guest's own environment, which is the image's. Engines add a `HOME` of the user that the guest was
    /// started as; that is not the commands'.
    pub(crate) fn inherited() -> Self {
        let mut variables: BTreeMap<Vec<u8>, Vec<u8>> =
            std::env::vars_os().map(|(name, value)| (name.into_vec(), value.into_vec())).collect();
        let users = Users::read();
        let engine = users.home(rustix::process::getuid().as_raw());
        if variables
            .get(b"HOME".as_slice())
            .is_some_and(|home| home == b"/" || Some(home.as_slice()) == engine)
        {
            variables.remove(b"HOME".as_slice());
        }
        Self(variables)
    }

    /// Adds `NAME=value`s.
    pub(crate) fn extend(&mut self, variables: &[Vec<u8>]) {
        for variable in variables {
            let mut parts = variable.splitn(2, |byte| *byte == b'=');
            if let (Some(name), Some(value)) = (parts.next(), parts.next()) {
                self.0.insert(name.to_vec(), value.to_vec());
            }
        }
    }

    /// Adds what every command expects and nobody has set.
    pub(crate) fn complete(&mut self, identity: &Identity, tty: bool) {
        let mut default = |name: &[u8], value: &[u8]| {
            self.0.entry(name.to_vec()).or_insert_with(|| value.to_vec());
        };
        default(b"PATH", PATH);
        default(b"HOME", identity.home.as_deref().unwrap_or(b"/"));
        if tty {
            default(b"TERM", b"xterm-256color");
        }
    }

    pub(crate) fn path(&self) -> &[u8] {
        self.0.get(b"PATH".as_slice()).map_or(PATH, Vec::as_slice)
    }

    /// Returns `NAME=value`s.
    pub(crate) fn into_strings(self) -> impl Iterator<Item = Vec<u8>> {
        self.0.into_iter().map(|(mut name, value)| {
            name.push(b'=');
            name.extend(value);
            name
        })
    }
}
