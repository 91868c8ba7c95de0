//! The walk over every `struct page` of a dump.

use super::rules::{Rules, Seen};
use super::sections::Sections;
use super::{Class, Counts, Level, Samples, Selection};
use crate::addr::Pfn;
use crate::format::vmcoreinfo::Vmcoreinfo;
use crate::limits::Limits;
use crate::mem::{Dump, PageState, PhysicalMemory};
use crate::progress::{Cancel, Progress};
use crate::sym::btf::Types;
use crate::xlat::KernelMemory;

/// `struct page` that are read at once.
const PIECE: u64 = 2048;

/// Why pages can't be chosen at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// Somebody asked for the stop.
    #[error("it was interrupted")]
    Cancelled,
    /// A header that lies, most likely.
    #[error("the dump announces {found} frames, more than {limit}")]
    TooMany {
        /// How many.
        found: u64,
        /// The limit.
        limit: u64,
    },
}

/// What each page of a dump was used for, in sum, and which frames are to be kept.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Classes {
    /// Frames of RAM that the dump speaks of.
    pub ram: Selection,
    /// Frames to keep: those that the dump has and the level does not leave out.
    pub kept: Selection,
    /// Pages that the dump has, by class. Nothing but [`Class::Unknown`] where the classes can't be told.
    pub counts: Counts,
    /// Some frames of each class; none where the classes can't be told.
    pub samples: Samples,
    /// Frames whose bytes were lost before: the dump is not whole, and no copy of it is.
    pub lost: u64,
    /// Which these are.
    pub missing: Selection,
    /// One sentence per thing that could not be told, and what that means.
    pub notes: Vec<String>,
}

impl Classes {
    /// Counts the frames that were lost among those to keep: a form that can say of a frame that it is missing, and not left
    /// out, finds that it can't be read and says so.
    pub fn keep_missing(&mut self) {
        for run in self.missing.runs(0..u64::MAX) {
            self.kept.insert_all(run);
        }
        (self.lost, self.missing) = (0, Selection::default());
    }

    /// Keeps nothing but `frames`, runs of first and count: who chose them knows why. Those that the dump does not have stay missing.
    pub fn keep_only(&mut self, frames: &[(Pfn, u64)]) {
        let mut kept = Selection::default();
        for (first, count) in frames {
            let run = first.0..first.0.saturating_add(*count);
            run.filter(|pfn| self.kept.contains(*pfn)).for_each(|pfn| kept.insert(pfn));
        }
        self.kept = kept;
    }
}

/// Finds out which frames the dump has, and which of them are to be kept at `level`. Without what it takes to tell
/// the classes, all are kept, and [`Classes::notes`] says why.
///
/// # Errors
/// [`FilterError`]
pub fn classify(
    dump: &Dump,
    memory: &KernelMemory<'_>,
    info: &Vmcoreinfo,
    types: Option<&Types>,
    level: Level,
    limits: &Limits,
    watch: (&Cancel, &dyn Progress),
) -> Result<Classes, FilterError> {
    let mut classes = frames(dump, limits, watch.0)?;
    if !level.needs_classes() {
        return Ok(classes);
    }
    let first = classes.kept.runs(0..u64::MAX).next().map(|run| run.start);
    let ways = Rules::new(info, types)
        .and_then(|rules| Ok((Sections::find(memory, info, first.unwrap_or(0))?, rules)));
    let (sections, rules) = match ways {
        Ok(ways) => ways,
        Err(why) => {
            let all = classes.kept.len();
            classes.notes.push(format!(
                "what pages were used for can't be told ({why}): all {all} are kept, and zeros alone are left out"
            ));
            return Ok(classes);
        }
    };
    classes.notes.extend(rules.missing().iter().cloned());
    let mut walk = Walk { memory, sections, rules, level, block: None, classes };
    watch.1.step("look at pages", Some(walk.classes.kept.len()));
    walk.all(watch)?;
    let unknown = walk.classes.counts.get(Class::Unknown);
    if unknown > 0 {
        walk.classes.notes.push(format!(
            "{unknown} pages are kept because their struct page can't be read or contradicts its neighbours"
        ));
    }
    Ok(walk.classes)
}

/// Which frames the dump speaks of, and which it has: all of these are kept, whatever they were used for.
///
/// # Errors
/// [`FilterError`]
pub fn frames(dump: &Dump, limits: &Limits, cancel: &Cancel) -> Result<Classes, FilterError> {
    let limit = limits.frames >> 2;
    let found = dump.completeness().announced_pages;
    if found > limit || dump.end_pfn().0 > limits.frames {
        return Err(FilterError::TooMany { found: found.max(dump.end_pfn().0), limit });
    }
    let mut classes = Classes::default();
    let mut next = dump.next_frame(Pfn(0));
    let mut steps = 0_u64;
    while let Some(pfn) = next {
        let (state, end) = dump.states(pfn);
        let frames = pfn.0..end.0;
        match state {
            PageState::Hole => {}
            PageState::Excluded => classes.ram.insert_all(frames),
            PageState::Lost => {
                classes.lost = classes.lost.saturating_add(end.0.saturating_sub(pfn.0));
                classes.ram.insert_all(frames.clone());
                classes.missing.insert_all(frames);
            }
            PageState::Present => {
                classes.ram.insert_all(frames.clone());
                classes.kept.insert_all(frames);
            }
        }
        next = dump.next_frame(end);
        steps = steps.wrapping_add(1);
        if steps.is_multiple_of(1 << 16) && cancel.is_cancelled() {
            return Err(FilterError::Cancelled);
        }
    }
    Ok(classes)
}

/// A free block or a compound page whose first frame was seen.
#[derive(Clone, Copy, Debug)]
struct Block {
    end: u64,
    seen: Seen,
}

struct Walk<'a, 'm> {
    memory: &'a KernelMemory<'m>,
    sections: Sections,
    rules: Rules,
    level: Level,
    block: Option<Block>,
    classes: Classes,
}

impl Walk<'_, '_> {
    fn all(&mut self, (cancel, progress): (&Cancel, &dyn Progress)) -> Result<(), FilterError> {
        let stretches: Vec<_> = self.classes.kept.stretches().collect();
        for stretch in stretches {
            if cancel.is_cancelled() {
                return Err(FilterError::Cancelled);
            }
            let mut pfn = stretch.start;
            while pfn < stretch.end {
                let end = pfn.saturating_add(PIECE).min(stretch.end).min(self.sections.end_of(pfn));
                let there = self.classes.kept.count(pfn..end);
                // A block that ends in a piece without frames has nothing left to say there.
                if there > 0 {
                    self.piece(pfn, end);
                }
                progress.advance(there);
                pfn = end;
            }
        }
        Ok(())
    }

    fn piece(&mut self, start: u64, end: u64) {
        let size = self.sections.page_struct();
        let frames = end.saturating_sub(start);
        let Some(at) = self.sections.page(self.memory, start) else {
            return self.unreadable(start, end);
        };
        // One more, for the one behind the last; it may be in the next section, and not there.
        let bytes = frames.saturating_add(1).saturating_mul(size);
        let sparse = self.memory.read_sparse(at, usize::try_from(bytes).unwrap_or(0));
        let step = usize::try_from(size).unwrap_or(64);
        let mut from = 0_usize;
        for pfn in start..end {
            let to = from.saturating_add(step);
            let range = from..to;
            from = to;
            if !self.classes.kept.contains(pfn) {
                // Its struct page still counts where it is the first of a block.
                if let Some(page) = sparse.bytes.get(range.clone())
                    && sparse.missing.is_empty()
                    && self.inside(pfn).is_none()
                {
                    let second = sparse.bytes.get(to..to.saturating_add(step)).unwrap_or_default();
                    self.begin(pfn, self.rules.see(pfn, page, second));
                }
                continue;
            }
            let readable = sparse.missing.is_empty() || sparse.why_missing(&range).is_none();
            let class = match sparse.bytes.get(range) {
                Some(page) if readable => {
                    let next = to..to.saturating_add(step);
                    let whole = sparse.missing.is_empty() || sparse.why_missing(&next).is_none();
                    let second = sparse.bytes.get(next).filter(|_| whole).unwrap_or_default();
                    self.class_of(pfn, page, second)
                }
                _ => {
                    self.block = None;
                    Class::Unknown
                }
            };
            self.classes.counts.add(class);
            self.classes.samples.add(class, pfn);
            if self.level.excludes(class) {
                self.classes.kept.remove(pfn);
            }
        }
    }

    fn unreadable(&mut self, start: u64, end: u64) {
        self.block = None;
        for pfn in start..end {
            if self.classes.kept.contains(pfn) {
                self.classes.counts.add(Class::Unknown);
                self.classes.samples.add(Class::Unknown, pfn);
            }
        }
    }

    fn inside(&self, pfn: u64) -> Option<Block> {
        self.block.filter(|block| pfn < block.end)
    }

    fn begin(&mut self, pfn: u64, seen: Option<Seen>) {
        self.block = seen
            .filter(|seen| seen.frames > 1)
            .and_then(|seen| Some(Block { end: pfn.checked_add(seen.frames)?, seen }));
    }

    fn class_of(&mut self, pfn: u64, page: &[u8], second: &[u8]) -> Class {
        if let Some(block) = self.inside(pfn) {
            let agrees = if block.seen.compound {
                self.rules.continues(pfn, page, self.sections.page_struct())
            } else {
                !self.rules.begins(page)
            };
            if agrees {
                return if self.rules.is_poisoned(page) { Class::HwPoison } else { block.seen.class };
            }
        }
        let seen = self.rules.see(pfn, page, second);
        self.begin(pfn, seen);
        match seen {
            Some(seen) if seen.poisoned => Class::HwPoison,
            Some(seen) => seen.class,
            // A tail of what is the kernel's own, or of what makes no sense: it stays.
            None if self.rules.is_tail(page) == Some(true) => Class::Kernel,
            None => Class::Unknown,
        }
    }
}
