//! A real dump in a thousand damaged copies: some have flipped bits in the file, some in what the machine's memory holds.
//!
//! Whatever the damage is, the analysis ends, does not panic, does not read memory without end, and does not grow. What it
//! can't read it says. `KDT_FLIP_SEEDS` sets how many copies are tried, half of each kind; `KDT_FLIP_DUMP` names another dump.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::io;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fixtures::shuffle::Seed;
use rayon::prelude::*;
use vmcore::addr::{Pfn, PhysAddr};
use vmcore::analysis::subject::Subject;
use vmcore::analysis::triage::{Options, triage};
use vmcore::error::PageError;
use vmcore::progress::{Cancel, Quiet};
use vmcore::report::Report;
use vmcore::source::ReadAt;
use vmcore::{Dump, OpenOptions, PageState, PhysicalMemory};

/// A bit flips, at most, in each piece of this many bytes.
const PIECE: u64 = 64;
/// Reads that no healthy analysis comes near: the dump as it is takes a hundredth of them.
const READS: u64 = 20_000_000;
/// What the process may ever take, all copies together.
const MOST_MEMORY_KIB: u64 = 200 << 10;

fn dump_path() -> PathBuf {
    let ours = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/data/panic-6.1.kdump");
    std::env::var_os("KDT_FLIP_DUMP").map_or_else(ours, PathBuf::from)
}

fn seeds() -> u64 {
    std::env::var("KDT_FLIP_SEEDS").map_or(1000, |n| n.parse().unwrap())
}

/// Which bits of a sequence of bytes are wrong, the same ones at each look.
#[derive(Clone, Copy)]
struct Flips {
    seed: u64,
    /// One piece in this many has a flipped bit.
    rate: u64,
}

impl Flips {
    /// From a flip in 16 KiB to one in 16 MiB.
    fn new(seed: u64) -> Self {
        Self { seed, rate: 256 << (seed % 11) }
    }

    fn apply(self, start: u64, buf: &mut [u8]) {
        if buf.is_empty() {
            return;
        }
        let last = start + buf.len() as u64 - 1;
        for piece in start / PIECE..=last / PIECE {
            let mut dice = Seed(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ piece.wrapping_add(1));
            dice.draw();
            if !dice.draw().is_multiple_of(self.rate) {
                continue;
            }
            let at = piece * PIECE + dice.below(PIECE);
            let Some(place) = at.checked_sub(start) else { continue };
            if let Some(byte) = buf.get_mut(usize::try_from(place).unwrap()) {
                *byte ^= 1 << dice.below(8);
            }
        }
    }
}

/// A file with flipped bits.
struct FlippedFile {
    file: Arc<dyn ReadAt>,
    flips: Flips,
}

impl ReadAt for FlippedFile {
    fn len(&self) -> u64 {
        self.file.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(offset, buf)?;
        self.flips.apply(offset, &mut buf[..count]);
        Ok(count)
    }
}

/// A machine whose memory has flipped bits, and who counts how often it is read.
struct FlippedMemory<'d> {
    memory: &'d dyn PhysicalMemory,
    flips: Option<Flips>,
    reads: AtomicU64,
}

impl PhysicalMemory for FlippedMemory<'_> {
    fn page_size(&self) -> u64 {
        self.memory.page_size()
    }

    fn end_pfn(&self) -> Pfn {
        self.memory.end_pfn()
    }

    fn state(&self, pfn: Pfn) -> PageState {
        self.memory.state(pfn)
    }

    fn read(&self, paddr: PhysAddr, buf: &mut [u8]) -> Result<(), PageError> {
        assert!(self.reads.fetch_add(1, Ordering::Relaxed) < READS, "it reads without end");
        self.memory.read(paddr, buf)?;
        if let Some(flips) = self.flips {
            flips.apply(paddr.0, buf);
        }
        Ok(())
    }

    fn next_frame(&self, pfn: Pfn) -> Option<Pfn> {
        self.memory.next_frame(pfn)
    }

    fn next_present(&self, pfn: Pfn) -> Option<Pfn> {
        self.memory.next_present(pfn)
    }
}

fn analyse(dump: &Dump, flips: Option<Flips>) -> (Report, u64) {
    let memory = FlippedMemory { memory: dump, flips, reads: AtomicU64::new(0) };
    let mut subject = Subject::new(dump);
    subject.memory = &memory;
    let report = triage(&subject, &Options::new("kdt", "test"), &Quiet, &Cancel::default());
    (report, memory.reads.load(Ordering::Relaxed))
}

/// Analyses one damaged copy; `None` where it can't even be opened, which is an answer too.
fn one(file: &Arc<dyn ReadAt>, seed: u64) -> Option<Report> {
    let flips = Flips::new(seed);
    if seed.is_multiple_of(2) {
        let source = FlippedFile { file: Arc::clone(file), flips };
        let dump = Dump::from_source(Arc::new(source), "flipped", &OpenOptions::default()).ok()?;
        Some(analyse(&dump, None).0)
    } else {
        let dump = Dump::from_source(Arc::new(Arc::clone(file)), "flipped", &OpenOptions::default()).unwrap();
        Some(analyse(&dump, Some(flips)).0)
    }
}

/// The most memory that this process ever had, as the system counts it.
fn peak_memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn no_flipped_bits_panic_hang_or_fill_the_memory() {
    let file: Arc<dyn ReadAt> = Arc::new(vmcore::source::open_file(&dump_path()).unwrap());
    let healthy = Dump::from_source(Arc::new(Arc::clone(&file)), "whole", &OpenOptions::default()).unwrap();
    let (whole, reads) = analyse(&healthy, None);
    assert!(reads < READS / 100, "the limit of reads is too near: {reads} for a healthy dump");

    let same = |report: &Report| report.log == whole.log && report.tasks == whole.tasks;
    // Whether each is as good as whole; `None` where it could not be opened.
    let outcomes: Vec<Option<bool>> = (1..=seeds())
        .into_par_iter()
        .map(|seed| {
            let done = std::panic::catch_unwind(AssertUnwindSafe(|| one(&file, seed)));
            let report = done.unwrap_or_else(|_| panic!("seed {seed} panicked, or read without end"));
            report.as_ref().map(same)
        })
        .collect();
    let analysed: Vec<bool> = outcomes.iter().flatten().copied().collect();
    // The damage is such that it matters: some copies lose something, and some are as good as whole.
    assert!(analysed.len() > outcomes.len() / 2, "{} of {} could be opened", analysed.len(), outcomes.len());
    let unharmed = analysed.iter().filter(|same| **same).count();
    assert!(unharmed > 0 && unharmed < analysed.len(), "{unharmed} of {} are unharmed", analysed.len());
    let most = peak_memory_kib();
    assert!(most < MOST_MEMORY_KIB, "{most} KiB were used");
}
