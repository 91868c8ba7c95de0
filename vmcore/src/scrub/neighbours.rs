//! Pages that follow each other in virtual memory and not in physical memory: a text can go from one to the next.
//!
//! All page tables are walked, those of processes and the kernel's own but for its direct map, and each border is looked at as it
//! is met: nothing is held but what was found.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::text::{HITS, Pattern};
use crate::addr::{KVirtAddr, Pfn, PhysAddr};
use crate::analysis::subject::Subject;
use crate::kernel::describe::Description;
use crate::kernel::percpu::PerCpu;
use crate::kernel::reader::Reader;
use crate::kernel::task::{self, Tasks};
use crate::kernel::{Kernel, Options};
use crate::limits::Limits;
use crate::mem::{Dump, PageState, PhysicalMemory};
use crate::progress::{Cancel, Progress};
use crate::xlat::x86_64::Leaf;
use crate::xlat::{KernelMemory, UserMemory};

/// Borders that are remembered, so that memory which many processes share is looked at once; another in the same place displaces one.
const REMEMBERED: usize = 1 << 16;

/// A text across a border: the end of one frame, and the beginning of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Across {
    /// Which pattern.
    pub(super) pattern: usize,
    /// Where its two pieces are, and how many bytes each has.
    pub(super) pieces: [(PhysAddr, u64); 2],
}

/// What was found across all borders.
#[derive(Debug, Default)]
pub(super) struct Borders {
    pub(super) hits: BTreeSet<Across>,
    /// Hits that are not held.
    pub(super) more: u64,
    /// Borders that were looked at, some more than once.
    pub(super) looked: u64,
    /// Why others could not be.
    pub(super) lost: Vec<String>,
}

/// Looks for the patterns across each border of which `wanted` has one of the two frames.
pub(super) fn sweep(
    dump: &Dump,
    source: &Reader<'_, '_>,
    tasks: &Tasks,
    patterns: &[Pattern],
    wanted: &(dyn Fn(u64) -> bool + Sync),
    (cancel, progress): (&Cancel, &dyn Progress),
) -> Borders {
    let mut lost: Vec<String> = tasks.lost.iter().map(|lost| format!("a task: {lost}")).collect();
    if tasks.tasks.is_empty() {
        lost.push("no task is found, so that the memory of processes is not known".into());
    }
    let mms: BTreeSet<KVirtAddr> = tasks.tasks.iter().filter_map(|task| task.mm).collect();
    let mut spaces = vec![None];
    for mm in mms {
        match source.member(mm, "mm_struct", &["pgd"]) {
            Ok(pgd) => spaces.push(Some(KVirtAddr(pgd))),
            Err(why) => lost.push(format!("the process with the mm_struct at {mm}: {why}")),
        }
    }
    progress.step("look across the borders of pages in virtual memory", u64::try_from(spaces.len()).ok());
    let memory = source.memory;
    let seen = Seen((0..REMEMBERED).map(|_| AtomicU64::new(0)).collect());
    let found = Mutex::new(Borders { lost, ..Borders::default() });
    spaces.into_par_iter().for_each(|space| {
        let mut walk = Space {
            dump,
            patterns,
            wanted,
            seen: &seen,
            size: usize::try_from(source.page_size).unwrap_or(4096),
            end: None,
            bytes: Vec::new(),
            has: None,
            found: Borders::default(),
        };
        if let Err(why) = walk.all(memory, space, &|| cancel.is_cancelled()) {
            walk.found.lost.push(why);
        }
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        let Borders { hits, more, looked, lost } = walk.found;
        found.looked = found.looked.saturating_add(looked);
        found.more = found.more.saturating_add(more);
        found.lost.extend(lost);
        for hit in hits {
            if found.hits.len() < HITS {
                found.hits.insert(hit);
            } else if !found.hits.contains(&hit) {
                found.more = found.more.saturating_add(1);
            }
        }
        progress.advance(1);
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// The same across all borders of a dump that is all that is known.
pub(super) fn sweep_all(dump: &Dump, patterns: &[Pattern], watch: (&Cancel, &dyn Progress)) -> Borders {
    let (subject, limits) = (Subject::new(dump), Limits::default());
    let kernel = Kernel::open(subject.memory, &subject.hints, Options::default().watched(watch.0, watch.1));
    let memory = kernel.memory();
    let description = Description::load(memory, kernel.vmcoreinfo(), &limits);
    let per_cpu = PerCpu::read(memory, &description.symbols, &limits).unwrap_or_default();
    let tasks = task::read(memory, &description, &per_cpu, &limits);
    let source = Reader::new(memory, &description, &per_cpu, &limits, dump.page_size());
    sweep(dump, &source, &tasks, patterns, &|_| true, watch)
}

/// One address space, as it is walked.
struct Space<'a> {
    dump: &'a Dump,
    patterns: &'a [Pattern],
    wanted: &'a (dyn Fn(u64) -> bool + Sync),
    seen: &'a Seen,
    size: usize,
    /// Where the mapping before this one ended, and its last frame.
    end: Option<(u64, u64)>,
    /// Two pages, one behind the other; and the frame that the second is.
    bytes: Vec<u8>,
    has: Option<u64>,
    found: Borders,
}

impl Space<'_> {
    /// The kernel's, or that of a process by its PGD.
    fn all(
        &mut self,
        memory: &KernelMemory<'_>,
        space: Option<KVirtAddr>,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), String> {
        let mut visit = |at, leaf| self.mapping(at, leaf);
        let lost = match space {
            None => memory.leaves(stop, &mut visit).ok_or("the page tables are not known")?,
            Some(pgd) => {
                let user = UserMemory::new(memory, pgd)
                    .map_err(|why| format!("the page tables of the process with the PGD at {pgd}: {why}"))?;
                user.leaves(stop, &mut visit)
            }
        };
        let whose = space.map_or("the kernel".to_owned(), |pgd| format!("the process with the PGD at {pgd}"));
        (lost == 0).then_some(()).ok_or_else(|| format!("{lost} of the page tables of {whose} can't be read"))
    }

    fn mapping(&mut self, at: u64, leaf: Leaf) {
        let size = u64::try_from(self.size).unwrap_or(4096);
        let (Some(first), Some(pages)) = (leaf.paddr.pfn(size), leaf.run.checked_div(size)) else { return };
        let last = first.0.saturating_add(pages.saturating_sub(1));
        let before = self.end.replace((at.wrapping_add(leaf.run), last));
        if let Some((_, frame)) = before.filter(|(end, _)| *end == at) {
            self.border(frame, first.0);
        }
    }

    fn border(&mut self, before: u64, after: u64) {
        // Neighbours in physical memory are looked at there.
        if before == after || before.checked_add(1) == Some(after) {
            return;
        }
        let there = |pfn: u64| self.dump.state(Pfn(pfn)) == PageState::Present;
        let wanted = (self.wanted)(before) || (self.wanted)(after);
        if !wanted || !there(before) || !there(after) || self.seen.was(before, after) {
            return;
        }
        self.bytes.resize(self.size.saturating_mul(2), 0);
        let Some((first, second)) = self.bytes.split_at_mut_checked(self.size) else { return };
        if self.has == Some(before) {
            first.copy_from_slice(second);
        } else if self.dump.read_frame(Pfn(before), first).is_err() {
            return;
        }
        self.has = self.dump.read_frame(Pfn(after), second).is_ok().then_some(after);
        if self.has.is_none() {
            return;
        }
        self.found.looked = self.found.looked.saturating_add(1);
        for (number, pattern) in self.patterns.iter().enumerate() {
            for hit in pattern.hits(&self.bytes).filter(|hit| hit.start < self.size && hit.end > self.size) {
                if self.found.hits.len() >= HITS {
                    self.found.more = self.found.more.saturating_add(1);
                    continue;
                }
                let piece = |pfn: u64, from: usize, to: usize| {
                    let start = Pfn(pfn).start(self.dump.page_size())?;
                    let at = start.checked_add(u64::try_from(from).ok()?)?;
                    Some((at, u64::try_from(to.saturating_sub(from)).ok()?))
                };
                let behind = hit.end.saturating_sub(self.size);
                if let (Some(one), Some(other)) =
                    (piece(before, hit.start, self.size), piece(after, 0, behind))
                {
                    self.found.hits.insert(Across { pattern: number, pieces: [one, other] });
                }
            }
        }
    }
}

/// Borders that were looked at a moment ago.
struct Seen(Vec<AtomicU64>);

impl Seen {
    /// True where this one was; it is from now on.
    fn was(&self, before: u64, after: u64) -> bool {
        // Two frames below 16 TiB fit into one word: of others none is remembered.
        if before >> 32 != 0 || after >> 32 != 0 {
            return false;
        }
        let both = before << 32 | after;
        let place = usize::try_from(both.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).unwrap_or(0);
        let Some(slot) = place.checked_rem(self.0.len()).and_then(|place| self.0.get(place)) else {
            return false;
        };
        slot.swap(both, Ordering::Relaxed) == both
    }
}
