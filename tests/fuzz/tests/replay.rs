//! What `cargo test` does of the fuzzing: every input of the corpus again, and a few hundred changes of them.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test says so by failing")]
use std::{fs, path::PathBuf};

use agentkernel_fuzz::{TARGETS, Target};
use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, TestError, TestRunner},
};

/// How many changes of the corpus are tried for each target.
const CASES: u32 = 300;

fn corpus(target: &Target) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name)
}

/// Returns the seeds and what was found; a target without findings has no directory.
fn inputs(target: &Target) -> Vec<Vec<u8>> {
    let mut inputs = (target.seeds)();
    for entry in fs::read_dir(corpus(target)).into_iter().flatten() {
        inputs.push(fs::read(entry.unwrap().path()).unwrap());
    }
    inputs
}

/// One change of an input.
#[derive(Debug, Clone)]
enum Edit {
    Set(Index, u8),
    Flip(Index, u8),
    Remove(Index, u8),
    Insert(Index, Vec<u8>),
    Repeat(Index, u8),
    Number(Index, u64),
    Append(Index),
}

fn edit() -> impl Strategy<Value = Edit> {
    let number = prop_oneof![Just(0), Just(u64::MAX), Just(1 << 31), Just(i64::MAX as u64), any::<u64>()];
    prop_oneof![
        any::<(Index, u8)>().prop_map(|(at, byte)| Edit::Set(at, byte)),
        (any::<Index>(), 0..8u8).prop_map(|(at, bit)| Edit::Flip(at, bit)),
        any::<(Index, u8)>().prop_map(|(at, length)| Edit::Remove(at, length)),
        (any::<Index>(), prop::collection::vec(any::<u8>(), 1..16))
            .prop_map(|(at, new)| Edit::Insert(at, new)),
        any::<(Index, u8)>().prop_map(|(at, length)| Edit::Repeat(at, length)),
        (any::<Index>(), number).prop_map(|(at, number)| Edit::Number(at, number)),
        any::<Index>().prop_map(Edit::Append),
    ]
}

fn changed(inputs: &[Vec<u8>], first: Index, edits: &[Edit], most: usize) -> Vec<u8> {
    let mut bytes = first.get(inputs).clone();
    for edit in edits {
        let length = bytes.len();
        match edit {
            Edit::Append(other) => bytes.extend(other.get(inputs).iter().copied()),
            Edit::Insert(at, new) => {
                let at = at.index(length + 1);
                bytes.splice(at..at, new.iter().copied());
            }
            _ if length == 0 => {}
            Edit::Set(at, byte) => bytes[at.index(length)] = *byte,
            Edit::Flip(at, bit) => bytes[at.index(length)] ^= 1 << bit,
            Edit::Remove(at, count) => {
                let at = at.index(length);
                bytes.drain(at..(at + usize::from(*count)).min(length));
            }
            Edit::Repeat(at, count) => {
                let at = at.index(length);
                bytes.extend_from_within(at..(at + usize::from(*count)).min(length));
            }
            Edit::Number(at, number) => {
                let at = at.index(length);
                let end = (at + 8).min(length);
                bytes[at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
            }
        }
    }
    bytes.truncate(most);
    bytes
}

/// Replays a target's corpus, then tries changes of it; one that fails is made small and put into the corpus.
fn replay(name: &str) {
    let target = agentkernel_fuzz::target(name).unwrap();
    let inputs = inputs(target);
    inputs.iter().for_each(|input| (target.run)(input));
    let strategy = (any::<Index>(), prop::collection::vec(edit(), 1..6));
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let tried = TestRunner::new(config).run(&strategy, |(first, edits)| {
        (target.run)(&changed(&inputs, first, &edits, target.most));
        Ok(())
    });
    if let Err(TestError::Fail(reason, (first, edits))) = tried {
        let path = corpus(target).join(format!("found-{:08x}", proptest_seed(&edits)));
        fs::create_dir_all(corpus(target)).unwrap();
        fs::write(&path, changed(&inputs, first, &edits, target.most)).unwrap();
        panic!("{name}: {reason}; the input is now {}", path.display());
    }
    tried.unwrap();
}

/// A name for the input, so that two of them can lie side by side.
fn proptest_seed(edits: &[Edit]) -> u32 {
    format!("{edits:?}").bytes().fold(7, |hash: u32, byte| hash.wrapping_mul(31).wrapping_add(byte.into()))
}

macro_rules! targets {
    ($($name:ident)+) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name));
        })+

        #[test]
        fn every_target_is_replayed() {
            assert_eq!(TARGETS.iter().map(|target| target.name).collect::<Vec<_>>(), [$(stringify!($name)),+]);
        }
    };
}

targets! {
    from_guest client to_guest archive labels engine_container engine_system engine_image engine_progress
    engine_load engine_archive apple_answer apple_words apple_archive apple_inside docker_context docker_address
    values
}
