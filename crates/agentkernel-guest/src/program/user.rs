//! Finds users and groups in the sandbox's own `/etc/passwd` and `/etc/group`, which are hostile input.
use std::io::Read;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode, OFlags, fstat, open};

use super::identity::Identity;
use crate::protocol::{Failure, FailureCode, INIT_UID};

/// How much of a file is read.
const MOST: u64 = 1 << 20;
/// How many supplementary groups a user gets.
const MOST_GROUPS: usize = 64;

/// The two files, read once per request.
pub(crate) struct Users {
    passwd: Vec<u8>,
    group: Vec<u8>,
}

struct Entry<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: &'a [u8],
}

impl Users {
    /// Reads the files; what is missing or no regular file is empty.
    pub(crate) fn read() -> Self {
        Self { passwd: read("/etc/passwd"), group: read("/etc/group") }
    }

    /// Resolves `NAME`, `UID`, `NAME:GROUP` or `UID:GID`; `None` is uid 0.
    pub(crate) fn resolve(&self, user: Option<&[u8]>) -> Result<Identity, Failure> {
        let user = user.unwrap_or(b"0");
        let mut parts = user.splitn(2, |byte| *byte == b':');
        let (user, group) = (parts.next().unwrap_or_default(), parts.next());
        let number = number(user);
        let entry = entries(&self.passwd)
            .find(|entry| number.map_or(entry.name == user && !user.is_empty(), |uid| entry.uid == uid));
        let uid = match (number, &entry) {
            (Some(uid), _) => uid,
            (None, Some(entry)) => entry.uid,
            (None, None) => return Err(bad(format!("there is no user `{}`", text(user)))),
        };
        let gid = match group {
            Some(group) => self.group(group)?,
            None => entry.as_ref().map_or(0, |entry| entry.gid),
        };
        if uid == INIT_UID || gid == INIT_UID || uid == u32::MAX || gid == u32::MAX {
            return Err(bad(format!("the user {uid}:{gid} is reserved")));
        }
        // As engines do: a number, or a group that was named, stands for itself alone.
        let groups = match (number, group) {
            (None, None) => self.memberships(user),
            _ => Vec::new(),
        };
        let home = entry.map(|entry| entry.home.to_vec()).filter(|home| home.first() == Some(&b'/'));
        Ok(Identity { uid, gid, groups, home })
    }

    /// Returns the home directory of a user.
    pub(crate) fn home(&self, uid: u32) -> Option<&[u8]> {
        entries(&self.passwd).find(|entry| entry.uid == uid).map(|entry| entry.home)
    }

    fn group(&self, group: &[u8]) -> Result<u32, Failure> {
        if let Some(gid) = number(group) {
            return Ok(gid);
        }
        groups(&self.group)
            .find(|(name, _, _)| *name == group && !group.is_empty())
            .map(|(_, gid, _)| gid)
            .ok_or_else(|| bad(format!("there is no group `{}`", text(group))))
    }

    fn memberships(&self, user: &[u8]) -> Vec<u32> {
        groups(&self.group)
            .filter(|(_, gid, members)| {
                *gid != INIT_UID
                    && *gid != u32::MAX
                    && members.split(|byte| *byte == b',').any(|name| name == user)
            })
            .map(|(_, gid, _)| gid)
            .take(MOST_GROUPS)
            .collect()
    }
}

fn bad(message: String) -> Failure {
    Failure::new(FailureCode::BadUser, 0, message)
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// A decimal number and nothing else; a name may begin with a digit.
fn number(text: &[u8]) -> Option<u32> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The fields of each line, the last of them with all that is too many.
fn lines(file: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    file.split(|byte| *byte == b'\n').map(|line| line.splitn(8, |byte| *byte == b':').collect())
}

fn entries(passwd: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    lines(passwd).filter_map(|fields| match fields.as_slice() {
        [name, _, uid, gid, _, home, ..] => Some(Entry { name, uid: number(uid)?, gid: number(gid)?, home }),
        _ => None,
    })
}

fn groups(group: &[u8]) -> impl Iterator<Item = (&[u8], u32, &[u8])> {
    lines(group).filter_map(|fields| match fields.as_slice() {
        [name, _, gid, members, ..] => Some((*name, number(gid)?, *members)),
        [name, _, gid] => Some((*name, number(gid)?, b"".as_slice())),
        _ => None,
    })
}

/// Reads a file of the sandbox without waiting for a FIFO or a device.
fn read(path: &str) -> Vec<u8> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let regular = |fd: &OwnedFd| fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file());
    let mut content = Vec::new();
    match open(path, flags, Mode::empty()) {
        Ok(fd) if regular(&fd) => match std::fs::File::from(fd).take(MOST).read_to_end(&mut content) {
            Ok(_) => content,
            Err(_) => Vec::new(),
        },
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn users() -> Users {
        Users {
            passwd: b"root:x:0:0:root:/root:/bin/sh\nbroken\n:x:7:7::/:\napp:x:1000:1001::/home/app:/bin/sh\n4me:x:5:6::relative:\n".to_vec(),
            group: b"root:x:0:\nwheel:x:10:app,root\napp:x:1001:\nstaff:x:50:other,app\n".to_vec(),
        }
    }

    fn resolve(user: &str) -> Option<Identity> {
        users().resolve(Some(user.as_bytes())).ok()
    }

    fn identity(uid: u32, gid: u32, groups: &[u32], home: Option<&str>) -> Option<Identity> {
        let home = home.map(|home| home.as_bytes().to_vec());
        Some(Identity { uid, gid, groups: groups.to_vec(), home })
    }

    #[test]
    fn users_are_found_by_name_number_and_group() {
        let home = Some("/home/app");
        assert_eq!(resolve("app"), identity(1000, 1001, &[10, 50], home));
        assert_eq!(resolve("1000"), identity(1000, 1001, &[], home));
        assert_eq!(resolve("app:wheel"), identity(1000, 10, &[], home));
        assert_eq!(resolve("1000:5"), identity(1000, 5, &[], home));
        assert_eq!(resolve("4000"), identity(4000, 0, &[], None));
        assert_eq!(resolve("4me"), identity(5, 6, &[], None));
        assert_eq!(users().resolve(None).unwrap().home, Some(b"/root".to_vec()));
    }

    #[test]
    fn unknown_and_reserved_users_are_refused() {
        for user in ["", "nobody", "app:nobody", "app:", ":", "65432", "0:65432", "4294967295", "99999999999"]
        {
            assert_eq!(resolve(user), None, "{user}");
        }
    }

    #[test]
    fn a_line_of_a_million_fields_costs_no_more_than_its_bytes() {
        let line = vec![b':'; 1 << 20];
        assert!(lines(&line).all(|fields| fields.len() <= 8 && fields.capacity() <= 16));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(passwd: Vec<u8>, group: Vec<u8>, user: Vec<u8>) {
            let _identity = Users { passwd, group }.resolve(Some(&user));
        }
    }
}
