//! The walk over every `struct page` of a dump.

use std::ops::Range;

use rayon::prelude::*;

use super::rules::{Rules, Seen};
use super::sections::Sections;
use super::selection::Bits;
use super::{Class, Counts, Level, Samples, Selection};
use crate::addr::Pfn;
use crate::format::vmcoreinfo::Vmcoreinfo;
use crate::limits::Limits;
use crate::mem::{Dump, PageState, PhysicalMemory};
use crate::progress::{Cancel, Progress};
use crate::sym::btf::Types;
use crate::xlat::{KernelMemory, Sparse};

/// `struct page` that are read at once.
const PIECE: u64 = 2048;
/// Stretches of frames that are looked at before what was found is put together.
const ROUND: usize = 64;

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
    watch.1.step("look at pages", Some(classes.kept.len()));
    Walk { memory, sections, rules, level }.all(&mut classes, watch)?;
    let unknown = classes.counts.get(Class::Unknown);
    if unknown > 0 {
        classes.notes.push(format!(
            "{unknown} pages are kept because their struct page can't be read or contradicts its neighbours"
        ));
    }
    Ok(classes)
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

/// How the pages are looked at.
struct Walk<'a, 'm> {
    memory: &'a KernelMemory<'m>,
    sections: Sections,
    rules: Rules,
    level: Level,
}

/// What was found in a stretch.
struct Found {
    /// The frames to keep.
    kept: Box<Bits>,
    counts: Counts,
    samples: Samples,
    /// What may go on behind the stretch.
    block: Option<Block>,
}

impl Walk<'_, '_> {
    /// Looks at all frames that are kept so far, on several threads, and takes those out that the level leaves out.
    fn all(
        &self,
        classes: &mut Classes,
        (cancel, progress): (&Cancel, &dyn Progress),
    ) -> Result<(), FilterError> {
        let stretches: Vec<_> = classes.kept.stretches().collect();
        let mut block: Option<Block> = None;
        // Round by round, so that what was found takes no room that grows with the dump.
        for round in stretches.chunks(ROUND) {
            let kept = &classes.kept;
            let found: Vec<_> = round
                .par_iter()
                .map(|stretch| (!cancel.is_cancelled()).then(|| self.stretch(stretch, kept, None)))
                .collect();
            for (stretch, found) in round.iter().zip(found) {
                let Some(mut found) = found else { return Err(FilterError::Cancelled) };
                // A block from before goes on in here, which nobody knew.
                if block.is_some_and(|block| block.end > stretch.start) {
                    found = self.stretch(stretch, &classes.kept, block);
                }
                block = found.block;
                progress.advance(classes.kept.count(stretch.clone()));
                classes.kept.put(stretch.start, &found.kept);
                classes.counts.append(&found.counts);
                classes.samples.append(found.samples);
            }
        }
        Ok(())
    }

    fn stretch(&self, stretch: &Range<u64>, kept: &Selection, block: Option<Block>) -> Found {
        let (counts, samples) = (Counts::default(), Samples::default());
        let mut found = Found { kept: kept.bits(stretch.start), counts, samples, block };
        let (mut pfn, mut sparse) = (stretch.start, Sparse::default());
        while pfn < stretch.end {
            let end = pfn.saturating_add(PIECE).min(stretch.end).min(self.sections.end_of(pfn));
            // A block that ends in a piece without frames has nothing left to say there.
            if (pfn..end).any(|pfn| found.kept.contains(pfn)) {
                self.piece(pfn..end, &mut sparse, &mut found);
            }
            pfn = end;
        }
        found
    }

    fn piece(&self, frames: Range<u64>, sparse: &mut Sparse, found: &mut Found) {
        let size = self.sections.page_struct();
        let Some(at) = self.sections.page(self.memory, frames.start) else {
            found.block = None;
            for pfn in frames.filter(|pfn| found.kept.contains(*pfn)) {
                found.counts.add(Class::Unknown);
                found.samples.add(Class::Unknown, pfn);
            }
            return;
        };
        // One more, for the one behind the last; it may be in the next section, and not there.
        let count = frames.end.saturating_sub(frames.start).saturating_add(1);
        self.memory.read_sparse_into(at, usize::try_from(count.saturating_mul(size)).unwrap_or(0), sparse);
        let step = usize::try_from(size).unwrap_or(64);
        let mut from = 0_usize;
        for pfn in frames {
            let to = from.saturating_add(step);
            let range = from..to;
            from = to;
            if !found.kept.contains(pfn) {
                // Its struct page still counts where it is the first of a block.
                if let Some(page) = sparse.bytes.get(range.clone())
                    && sparse.missing.is_empty()
                    && found.inside(pfn).is_none()
                {
                    let second = sparse.bytes.get(to..to.saturating_add(step)).unwrap_or_default();
                    found.begin(pfn, self.rules.see(pfn, page, second));
                }
                continue;
            }
            let readable = sparse.missing.is_empty() || sparse.why_missing(&range).is_none();
            let class = match sparse.bytes.get(range) {
                Some(page) if readable => {
                    let next = to..to.saturating_add(step);
                    let whole = sparse.missing.is_empty() || sparse.why_missing(&next).is_none();
                    let second = sparse.bytes.get(next).filter(|_| whole).unwrap_or_default();
                    self.class_of(pfn, page, second, found)
                }
                _ => {
                    found.block = None;
                    Class::Unknown
                }
            };
            found.counts.add(class);
            found.samples.add(class, pfn);
            if self.level.excludes(class) {
                found.kept.remove(pfn);
            }
        }
    }

    fn class_of(&self, pfn: u64, page: &[u8], second: &[u8], found: &mut Found) -> Class {
        if let Some(block) = found.inside(pfn) {
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
        found.begin(pfn, seen);
        match seen {
            Some(seen) if seen.poisoned => Class::HwPoison,
            Some(seen) => seen.class,
            // A tail of what is the kernel's own, or of what makes no sense: it stays.
            None if self.rules.is_tail(page) == Some(true) => Class::Kernel,
            None => Class::Unknown,
        }
    }
}

impl Found {
    fn inside(&self, pfn: u64) -> Option<Block> {
        self.block.filter(|block| pfn < block.end)
    }

    fn begin(&mut self, pfn: u64, seen: Option<Seen>) {
        self.block = seen
            .filter(|seen| seen.frames > 1)
            .and_then(|seen| Some(Block { end: pfn.checked_add(seen.frames)?, seen }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{KVirtAddr, PhysAddr};
    use crate::error::PageError;
    use crate::progress::Quiet;
    use crate::xlat::{Linear, Translation};

    const DIRECT: u64 = 0xffff_8880_0000_0000;
    const ENTRIES: u64 = 0x2000;
    const MAP: u64 = 0x100_0000;
    /// A huge page of 2^16 frames: it reaches over a whole stretch, and ends inside the one behind.
    const HUGE: Range<u64> = 0x1_0000..0x2_0000;
    const END: u64 = 0x2_4000;

    /// A machine of which there is nothing but the way to its `struct page`s and these.
    struct Machine;

    fn word(at: u64) -> u64 {
        if at == 0x1000 {
            return DIRECT + ENTRIES;
        }
        if (ENTRIES..ENTRIES + 0x1000).contains(&at) {
            return if at.is_multiple_of(16) { (DIRECT + MAP) | 3 } else { 0 };
        }
        let (pfn, member) = (at.wrapping_sub(MAP) / 64, at % 64);
        match member {
            // PG_head, and in the second one the order.
            0 if pfn == HUGE.start => 1 << 16,
            8 if pfn > HUGE.start && pfn < HUGE.end => (DIRECT + MAP + HUGE.start * 64) | 1,
            16 if pfn == HUGE.start + 1 => 16,
            24 if pfn == HUGE.start => 1,
            48 => 0xffff_ffff,
            _ => 0,
        }
    }

    impl PhysicalMemory for Machine {
        fn page_size(&self) -> u64 {
            4096
        }
        fn end_pfn(&self) -> Pfn {
            Pfn(END)
        }
        fn state(&self, _: Pfn) -> PageState {
            PageState::Present
        }
        fn read(&self, paddr: PhysAddr, buf: &mut [u8]) -> Result<(), PageError> {
            for (at, byte) in (paddr.0..).zip(buf) {
                *byte = word(at & !7).to_le_bytes()[usize::try_from(at & 7).unwrap()];
            }
            Ok(())
        }
    }

    fn classes(frames: &[Range<u64>]) -> Classes {
        let info = Vmcoreinfo::parse(
            b"SYMBOL(mem_section)=ffff888000001000\nLENGTH(mem_section)=1\nSIZE(mem_section)=16\nSIZE(page)=64\n\
              OFFSET(mem_section.section_mem_map)=0\nNUMBER(SECTION_SIZE_BITS)=27\nOFFSET(page.flags)=0\n\
              OFFSET(page.compound_head)=8\nOFFSET(page.compound_order)=16\nOFFSET(page.mapping)=24\n\
              OFFSET(page.private)=40\nOFFSET(page._mapcount)=48\nNUMBER(PG_head_mask)=65536\nNUMBER(PG_slab)=9\n\
              NUMBER(PG_lru)=4\nNUMBER(PG_private)=13\nNUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)=-129\n",
        );
        let direct = Linear { start: KVirtAddr(DIRECT), paddr: PhysAddr(0), len: 1 << 40 };
        let memory =
            KernelMemory::new(&Machine, Translation { direct: Some(direct), ..Translation::default() });
        let mut classes = Classes::default();
        for frames in frames {
            classes.kept.insert_all(frames.clone());
        }
        let sections = Sections::find(&memory, &info, 0).unwrap();
        let walk =
            Walk { memory: &memory, sections, rules: Rules::new(&info, None).unwrap(), level: Level::MAX };
        walk.all(&mut classes, (&Cancel::default(), &Quiet)).unwrap();
        classes
    }

    #[test]
    fn a_huge_page_goes_on_in_the_stretches_behind_its_first() {
        let found = classes(std::slice::from_ref(&(0..END)));
        assert_eq!(found.counts.get(Class::User), HUGE.end - HUGE.start);
        assert_eq!(found.counts.get(Class::Kernel), END - (HUGE.end - HUGE.start));
        let kept: Vec<_> = found.kept.runs(0..END).collect();
        assert_eq!(kept, [0..HUGE.start, HUGE.end..END]);
    }

    #[test]
    fn a_huge_page_goes_on_behind_frames_that_are_not_there() {
        let found = classes(&[0..HUGE.start + 1, HUGE.start + 40_000..END]);
        assert_eq!(found.counts.get(Class::User), 1 + HUGE.end - HUGE.start - 40_000);
    }
}
