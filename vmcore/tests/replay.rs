//! The fuzz targets on a stable compiler: each over its corpus, and over mutations of it from fixed seeds.
//!
//! `KDT_REPLAY_MUTATIONS` sets how many mutations of each seed are run (40 where it is not set); `vmcore/fuzz/run-short.sh`
//! raises it where there is no nightly compiler.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]
#![allow(
    clippy::allow_attributes,
    missing_docs,
    unreachable_pub,
    reason = "the entry functions are another crate's"
)]

#[path = "../fuzz/src/lib.rs"]
mod entry;
#[path = "support/mod.rs"]
mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use fixtures::shuffle::Seed;

/// Bytes that parsers stumble over.
const ODD: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, b'\n', b'=', b'('];

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|why| panic!("{}: {why}", folder.display()));
    let mut seeds: Vec<(String, Vec<u8>)> = files
        .map(|file| file.unwrap().path())
        .map(|path| (path.display().to_string(), std::fs::read(&path).unwrap()))
        .collect();
    seeds.sort();
    assert!(!seeds.is_empty(), "{} has no seed", folder.display());
    seeds
}

/// One of the things that happen to files: bytes change, words change, a piece is doubled, cut out or cut off.
fn mutate(bytes: &mut Vec<u8>, seed: &mut Seed) {
    let len = bytes.len() as u64;
    if len == 0 {
        return;
    }
    let at = |seed: &mut Seed| usize::try_from(seed.below(len)).unwrap();
    // Headers are small and bodies large: half of the changes go to the first bytes that are not zero.
    let near = |seed: &mut Seed, bytes: &[u8]| {
        let set: Vec<usize> = (0..bytes.len()).filter(|i| bytes[*i] != 0).take(400).collect();
        if set.is_empty() || seed.below(2) == 0 {
            at(seed)
        } else {
            set[usize::try_from(seed.below(set.len() as u64)).unwrap()]
        }
    };
    match seed.below(6) {
        0 => {
            let place = near(seed, bytes);
            bytes[place] ^= 1 << seed.below(8);
        }
        1 => {
            let place = near(seed, bytes);
            bytes[place] = ODD[usize::try_from(seed.below(8)).unwrap()];
        }
        2 => {
            let place = near(seed, bytes);
            let word = [u64::MAX, 1 << 63, 1 << 31, 0, 0x1000, u64::MAX - 0xfff]
                [usize::try_from(seed.below(6)).unwrap()];
            for (byte, new) in bytes[place..].iter_mut().zip(word.to_le_bytes()) {
                *byte = new;
            }
        }
        3 => bytes.truncate(at(seed)),
        4 => {
            let (from, to) = (at(seed), at(seed));
            let piece: Vec<u8> = bytes[from.min(to)..from.max(to)].iter().take(4096).copied().collect();
            bytes.splice(to..to, piece);
        }
        _ => {
            let (from, to) = (at(seed), at(seed));
            bytes.drain(from.min(to)..from.max(to).min(from.min(to) + 64));
        }
    }
}

fn replay(target: &str) {
    support::bound_memory(8192);
    let run = entry::TARGETS.iter().find(|(name, _)| *name == target).unwrap().1;
    let mutations: u64 = std::env::var("KDT_REPLAY_MUTATIONS").map_or(40, |n| n.parse().unwrap());
    for (name, bytes) in corpus(target) {
        run(&bytes);
        for number in 0..mutations {
            let mut seed = Seed(number + 1);
            let mut mutant = bytes.clone();
            for _ in 0..=seed.below(4) {
                mutate(&mut mutant, &mut seed);
            }
            let start = Instant::now();
            let outcome = std::panic::catch_unwind(|| run(&mutant));
            let took = start.elapsed();
            if outcome.is_err() || took > Duration::from_secs(20) {
                let kept = std::env::temp_dir().join(format!("kdt-replay-{target}-{number}"));
                std::fs::write(&kept, &mutant).unwrap();
                panic!("mutation {number} of {name}, kept as {}: panicked or took {took:?}", kept.display());
            }
        }
    }
}

#[test]
fn open() {
    replay("open");
}

#[test]
fn notes() {
    replay("notes");
}

#[test]
fn flattened() {
    replay("flattened");
}

#[test]
fn page() {
    replay("page");
}

#[test]
fn log() {
    replay("log");
}

#[test]
fn vmcoreinfo() {
    replay("vmcoreinfo");
}

#[test]
fn panic_text() {
    replay("panic_text");
}

#[test]
fn orc() {
    replay("orc");
}
