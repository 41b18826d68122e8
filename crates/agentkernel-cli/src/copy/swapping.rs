//! For tests: a directory that is a link by turns, as a program in a sandbox makes of one that it shares.
use std::{
    os::unix::fs::symlink,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

/// How often the work is done meanwhile.
const ROUNDS: usize = 300;

/// Does the work again and again while `tree/way`, a directory, and a link to `outside` change places without end.
pub(super) fn while_swapped<T>(tree: &Path, outside: &Path, mut work: impl FnMut() -> T) -> Vec<T> {
    let (way, other, ended) = (tree.join("way"), tree.join("other"), AtomicBool::new(false));
    symlink(outside, &other).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                renameat_with(CWD, &way, CWD, &other, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let results = (0..ROUNDS).map(|_| work()).collect();
        ended.store(true, Ordering::Relaxed);
        results
    })
}
