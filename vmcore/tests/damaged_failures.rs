//! The real dumps of failures in damaged copies: cut, with flipped bits, with stretches of zeros, and with pages in each other's place.
//!
//! Whatever the damage is, no analysis meets a fault of its own, and what the damage takes is told: a report that knows another
//! reason for the crash than the whole dump has says that something is missing. `KDT_DAMAGE_COPIES` sets how many copies are
//! tried, of one dump after the other.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::PathBuf;
use std::sync::Arc;

use fixtures::shuffle::Seed;
use rayon::prelude::*;
use vmcore::analysis::subject::Subject;
use vmcore::analysis::triage::{Options, Section, triage};
use vmcore::progress::{Cancel, Quiet};
use vmcore::report::{Confidence, PanicKind, Report};
use vmcore::{Dump, OpenOptions};

/// Bytes of a stretch that is overwritten or moved.
const STRETCH: usize = 4096;
/// Bytes that are lost at once where the end of a log is to be hit.
const LOST: usize = 8192;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/data/failures")
}

fn copies() -> u64 {
    std::env::var("KDT_DAMAGE_COPIES").map_or(12, |n| n.parse().unwrap())
}

/// The report on these bytes; `None` where they can't be opened, which is an answer too.
fn report(bytes: Vec<u8>) -> Option<Report> {
    report_with(bytes, &Options::new("kdt", "test"))
}

fn report_with(bytes: Vec<u8>, options: &Options) -> Option<Report> {
    let dump = Dump::from_source(Arc::new(bytes), "damaged", &OpenOptions::default()).ok()?;
    Some(triage(&Subject::new(&dump), options, &Quiet, &Cancel::default()))
}

fn below(dice: &mut Seed, limit: usize) -> usize {
    usize::try_from(dice.below(limit as u64)).unwrap()
}

/// Damages them in one of the ways; the dump's headers lie in the first stretches and are hit by two of them.
fn damage(bytes: &mut Vec<u8>, dice: &mut Seed, way: u64) {
    let times = 1 << dice.below(7);
    let len = bytes.len();
    let stretch = |dice: &mut Seed| below(dice, len / STRETCH) * STRETCH;
    match way % 5 {
        0 => bytes.truncate(below(dice, len)),
        1 => (0..times).for_each(|_| bytes[below(dice, len)] ^= 1 << dice.below(8)),
        2 => (0..times).for_each(|_| bytes[below(dice, 64 * STRETCH)] ^= 1 << dice.below(8)),
        3 => (0..times).for_each(|_| {
            let at = stretch(dice);
            bytes[at..at + STRETCH].fill(0);
        }),
        _ => (0..times).for_each(|_| {
            let (a, b) = (stretch(dice), stretch(dice));
            for inside in 0..STRETCH {
                bytes.swap(a + inside, b + inside);
            }
        }),
    }
}

/// What is wrong with a report on a damaged copy.
fn wrong(whole: &Report, damaged: &Report) -> Option<String> {
    if let Some(skipped) =
        damaged.not_looked_at.iter().find(|skipped| skipped.why.contains("fault of its own"))
    {
        return Some(format!("the analysis {} panicked", skipped.what));
    }
    let kind = |report: &Report| report.panic.as_ref().map(|panic| panic.kind);
    let told = damaged.not_looked_at.iter().any(|skipped| !whole.not_looked_at.contains(skipped));
    let lost = damaged.findings.iter().any(|finding| finding.code == "KD-LOG-LOST");
    if kind(damaged) != kind(whole) && !told && !lost {
        return Some(format!("it was {:?}, and is said to be {:?}", kind(whole), kind(damaged)));
    }
    let misplaced = damaged.findings.iter().any(|finding| finding.code == "KD-DUMP-MISPLACED");
    let sure = damaged
        .findings
        .iter()
        .find(|finding| finding.confidence == Confidence::Certain && !finding.code.starts_with("KD-DUMP-"));
    if let Some(sure) = sure.filter(|_| misplaced) {
        return Some(format!("pages can be those of other frames, and {} is certain", sure.code));
    }
    let invented = damaged.findings.iter().find(|finding| {
        let is_panic = finding.code.starts_with("KD-PANIC-") && finding.code != "KD-PANIC-UNTOLD";
        let known = whole.findings.iter().any(|known| known.code == finding.code);
        is_panic && !known && finding.confidence == Confidence::Certain
    });
    invented.map(|finding| format!("{} is certain, and was not so: {}", finding.code, finding.title))
}

#[test]
fn damage_is_told_and_nothing_certain_is_made_of_it() {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder()).unwrap().map(|e| e.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "kdump"));
    paths.sort();
    assert!(paths.len() > 20, "{paths:?}");
    let opened = (0..copies())
        .into_par_iter()
        .filter(|copy| {
            // Neighbours are damaged in different ways, and a dump in another way each time that its turn comes.
            let number = usize::try_from(*copy).unwrap();
            let path = &paths[number % paths.len()];
            let bytes = std::fs::read(path).unwrap();
            let mut damaged = bytes.clone();
            damage(&mut damaged, &mut Seed(1 + copy), copy + copy / paths.len() as u64);
            let Some(damaged) = report(damaged) else { return false };
            let wrong = wrong(&report(bytes).unwrap(), &damaged);
            assert!(wrong.is_none(), "{}, copy {copy}: {}", path.display(), wrong.unwrap());
            true
        })
        .count();
    assert!(opened as u64 > copies() / 2, "only {opened} copies could be opened");
}

#[test]
fn a_count_of_blocked_tasks_says_that_there_can_be_more_where_tasks_are_lost() {
    let title = |report: &Report| {
        let found = report.findings.iter().find(|finding| finding.code == "KD-HANG-TASKS");
        found.map(|finding| finding.title.clone()).unwrap_or_default()
    };
    let bytes = std::fs::read(folder().join("6.1-mutex-abba.kdump")).unwrap();
    let whole = title(&report(bytes.clone()).unwrap());
    assert!(whole.starts_with("4 tasks are blocked for 8 s or longer; "), "{whole}");
    // Wherever some of the four lie, one of these cuts takes them.
    let cuts: Vec<String> = (90..100_usize)
        .into_par_iter()
        .filter_map(|percent| report(bytes[..bytes.len() / 100 * percent].to_vec()))
        .map(|report| title(&report))
        .filter(|title| !title.is_empty() && !title.contains("4 tasks are"))
        .collect();
    assert!(!cuts.is_empty() && cuts.iter().all(|title| title.starts_with("At least ")), "{cuts:?}");
}

#[test]
fn where_the_end_of_the_log_is_lost_no_trouble_before_it_is_what_the_kernel_died_of() {
    let mut options = Options::new("kdt", "test");
    options.only = vec![Section::Panic];
    // Both ran out of memory in their last seconds, went on, and were crashed by hand.
    for name in ["6.1-earlier.kdump", "6.1-cgroup-oom.kdump"] {
        let bytes = std::fs::read(folder().join(name)).unwrap();
        // The log lies at the end of such a dump. Stretches that are lost there take its last lines, others or none.
        let places: Vec<usize> =
            (bytes.len() / 100 * 85 / LOST * LOST..bytes.len() - LOST).step_by(LOST).collect();
        let kinds: Vec<Option<PanicKind>> = places
            .into_par_iter()
            .filter_map(|at| {
                let mut damaged = bytes.clone();
                damaged[at..at + LOST].fill(0);
                Some(report_with(damaged, &options)?.panic.map(|panic| panic.kind))
            })
            .collect();
        assert!(kinds.contains(&None), "{name}: no stretch took the end");
        let all = kinds.iter().flatten().all(|kind| *kind == PanicKind::Sysrq);
        assert!(all, "{name}: {kinds:?}");
    }
}
