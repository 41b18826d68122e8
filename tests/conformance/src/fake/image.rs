//! What the fake's image has: the programs, `/etc/passwd`, and the places to write.
use std::collections::BTreeMap;

use super::{
    applets::APPLETS,
    tree::{Kind, Person, ROOT, Tree},
};

/// What a file begins with that is a program of the fake's own; the program's name follows.
pub(super) const MAGIC: &[u8] = b"\x7fagentkernel-fake\n";

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n";
const GROUP: &str = "root:x:0:\nuser:x:1000:\n";
const ROUTE: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n";
const DEFAULT_ROUTE: &str = "eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\n";

/// Returns the image's file tree, as it is without a network or with one.
pub(super) fn tree(without_network: bool) -> Tree {
    let mut tree = Tree::new();
    for directory in ["/bin", "/etc", "/home", "/home/user", "/proc/net", "/root", "/opt", "/usr/bin"] {
        let _made = tree.make_directories(directory.as_bytes(), ROOT);
    }
    for program in APPLETS.iter().chain(&["sh"]) {
        let _made = tree.replace(
            format!("/bin/{program}").as_bytes(),
            [MAGIC, program.as_bytes()].concat(),
            Some(0o755),
            ROOT,
        );
    }
    let routes = format!("{ROUTE}{}", if without_network { "" } else { DEFAULT_ROUTE });
    for (path, content) in [("/etc/passwd", PASSWD), ("/etc/group", GROUP), ("/proc/net/route", &routes)] {
        let _made = tree.replace(path.as_bytes(), content.as_bytes().to_vec(), Some(0o644), ROOT);
    }
    let _made = tree.make_directories(b"/dev", ROOT);
    let _made = tree.make(b"/dev/null", Kind::Null, 0o666, ROOT);
    let _made = tree.make(b"/dev/zero", Kind::Zero, 0o666, ROOT);
    for directory in ["/tmp", "/run", "/dev/shm"] {
        let made = tree.make(directory.as_bytes(), Kind::Directory(BTreeMap::new()), 0o1777, ROOT);
        if let Ok(id) = made {
            tree.set_memory(id);
        }
    }
    if let Ok(home) = tree.find(b"/home/user", super::tree::Follow::Yes) {
        tree.set_owner(home, Person { uid: 1000, gid: 1000 });
    }
    tree
}

/// Finds a user or group by name or number in a file like `/etc/passwd`.
pub(super) fn look_up(table: &[u8], name: &str) -> Option<(u32, Option<u32>)> {
    let table = String::from_utf8_lossy(table);
    let found = table.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (known, _, number) = (fields.next()?, fields.next()?, fields.next()?);
        (known == name || number == name)
            .then(|| (number.parse().ok(), fields.next().and_then(|gid| gid.parse().ok())))
    });
    match found {
        Some((Some(number), group)) => Some((number, group)),
        _ => name.parse().ok().map(|number| (number, None)),
    }
}
