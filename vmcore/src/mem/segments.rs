//! The memory that an ELF vmcore's segments name, as ranges that do not overlap.
//!
//! The kernel's text is there twice, in a segment of its own and in the RAM around it. For each byte the first
//! segment of the file wins that has its bytes; one whose bytes are cut off comes next, one that left them out last.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::format::elf::LoadSegment;
use crate::mem::PageState;
use crate::source::ReadAt;

/// Where the bytes of a range are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backing {
    /// In the file, from this offset on.
    File(u64),
    /// They should be in the file from this offset on, and are not.
    Lost(u64),
    /// Left out on purpose.
    Excluded,
}

impl Backing {
    fn ahead(self, bytes: u64) -> Self {
        match self {
            Self::File(at) => Self::File(at.saturating_add(bytes)),
            Self::Lost(at) => Self::Lost(at.saturating_add(bytes)),
            Self::Excluded => Self::Excluded,
        }
    }
}

/// Physical memory from `start` to before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) backing: Backing,
}

impl Extent {
    /// What is at `paddr`, which is inside, and how many bytes go on like that.
    pub(crate) fn from(&self, paddr: u64) -> (Backing, u64) {
        (self.backing.ahead(paddr.saturating_sub(self.start)), self.end.saturating_sub(paddr))
    }
}

/// Frames by what is known of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) present: u64,
    pub(crate) excluded: u64,
    pub(crate) lost: u64,
}

/// The memory of an ELF vmcore.
pub(crate) struct Segments {
    /// Sorted, none overlaps.
    extents: Vec<Extent>,
    /// The gaps of the source are not all worked in, so that a count of lost frames is a lower bound.
    pub(crate) rough: bool,
}

impl Segments {
    /// Makes the ranges, at most about `limit` of them, from segments whose bytes are in `source`.
    pub(crate) fn new(segments: &[LoadSegment], source: &dyn ReadAt, limit: u64) -> Self {
        let len = source.len();
        let mut pieces = Vec::new();
        for segment in segments {
            let mut push = |from: u64, to: u64, backing: Backing| {
                // A segment past the end of what 64 bits can name stops there.
                let start = segment.paddr.saturating_add(from);
                let end = segment.paddr.saturating_add(to);
                if start < end {
                    pieces.push(Extent { start, end, backing });
                }
            };
            let there = segment.file_size.min(len.saturating_sub(segment.offset));
            push(0, there, Backing::File(segment.offset));
            push(there, segment.file_size, Backing::Lost(segment.offset.saturating_add(there)));
            push(segment.file_size, segment.mem_size, Backing::Excluded);
        }
        let extents = disjoint(&pieces);
        let (extents, rough) = without_gaps(extents, source, usize::try_from(limit).unwrap_or(usize::MAX));
        Self { extents, rough }
    }

    /// The range that holds `paddr`.
    pub(crate) fn at(&self, paddr: u64) -> Option<Extent> {
        self.from(paddr).filter(|extent| extent.start <= paddr)
    }

    /// The range that holds `paddr`, or the first one behind.
    pub(crate) fn from(&self, paddr: u64) -> Option<Extent> {
        self.extents.get(self.extents.partition_point(|extent| extent.end <= paddr)).copied()
    }

    /// The first range at or behind `paddr` whose bytes are in the file.
    pub(crate) fn next_in_file(&self, paddr: u64) -> Option<Extent> {
        let first = self.extents.partition_point(|extent| extent.end <= paddr);
        let behind = self.extents.iter().skip(first);
        behind.copied().find(|extent| matches!(extent.backing, Backing::File(_)))
    }

    /// The ranges that are lost, ascending.
    pub(crate) fn lost(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let lost = self.extents.iter().filter(|extent| matches!(extent.backing, Backing::Lost(_)));
        lost.map(|extent| extent.start..extent.end)
    }

    /// One past the highest byte.
    pub(crate) fn end(&self) -> u64 {
        self.extents.last().map_or(0, |extent| extent.end)
    }

    /// What is known of the frame from `start` to before `end`: lost if any byte of it is, otherwise excluded if any
    /// was left out, otherwise present if any is RAM.
    pub(crate) fn state(&self, start: u64, end: u64) -> PageState {
        let first = self.extents.partition_point(|extent| extent.end <= start);
        let inside = self.extents.iter().skip(first).take_while(|extent| extent.start < end);
        inside.fold(PageState::Hole, |state, extent| worse(state, state_of(extent.backing)))
    }

    /// Counts the frames of a page size.
    pub(crate) fn tally(&self, page_size: u64) -> Tally {
        let mut tally = Tally::default();
        // The last frame of the range before, which the next range may share.
        let mut open: Option<(u64, PageState)> = None;
        let frame = |paddr: u64| paddr.checked_div(page_size).unwrap_or(0);
        for extent in &self.extents {
            let state = state_of(extent.backing);
            let (first, last) = (frame(extent.start), frame(extent.end.saturating_sub(1)));
            let mut head = state;
            if let Some((number, before)) = open {
                if number == first {
                    head = worse(before, state);
                } else {
                    tally.add(before, 1);
                }
            }
            if first == last {
                open = Some((first, head));
            } else {
                tally.add(head, 1);
                tally.add(state, last.saturating_sub(first).saturating_sub(1));
                open = Some((last, state));
            }
        }
        if let Some((_, state)) = open {
            tally.add(state, 1);
        }
        tally
    }
}

impl Tally {
    fn add(&mut self, state: PageState, frames: u64) {
        let count = match state {
            PageState::Present => &mut self.present,
            PageState::Excluded => &mut self.excluded,
            PageState::Lost => &mut self.lost,
            PageState::Hole => return,
        };
        *count = count.saturating_add(frames);
    }
}

fn state_of(backing: Backing) -> PageState {
    match backing {
        Backing::File(_) => PageState::Present,
        Backing::Lost(_) => PageState::Lost,
        Backing::Excluded => PageState::Excluded,
    }
}

/// The state of a frame with parts of two states.
fn worse(a: PageState, b: PageState) -> PageState {
    let weight = |state| match state {
        PageState::Hole => 0,
        PageState::Present => 1,
        PageState::Excluded => 2,
        PageState::Lost => 3,
    };
    if weight(a) >= weight(b) { a } else { b }
}

/// Resolves overlaps: for each byte the best backing wins, and among equals the first.
fn disjoint(pieces: &[Extent]) -> Vec<Extent> {
    let class = |backing| match backing {
        Backing::File(_) => 0u8,
        Backing::Lost(_) => 1,
        Backing::Excluded => 2,
    };
    // Starts and ends in order; `open` holds the pieces around the present place, the best first.
    let mut events: Vec<(u64, bool, usize)> = Vec::with_capacity(pieces.len().saturating_mul(2));
    for (index, piece) in pieces.iter().enumerate() {
        events.push((piece.start, true, index));
        events.push((piece.end, false, index));
    }
    events.sort_unstable();
    let mut open: BTreeSet<(u8, usize)> = BTreeSet::new();
    let mut out: Vec<Extent> = Vec::new();
    let mut at = 0;
    for (place, starts, index) in events {
        let best = open.first().and_then(|(_, index)| pieces.get(*index));
        if let Some(best) = best.filter(|_| place > at) {
            let backing = best.backing.ahead(at.saturating_sub(best.start));
            match out.last_mut() {
                Some(last) if last.end == at && last.from(at).0 == backing => last.end = place,
                _ => out.push(Extent { start: at, end: place, backing }),
            }
        }
        at = place;
        if let Some(piece) = pieces.get(index) {
            let key = (class(piece.backing), index);
            if starts {
                open.insert(key);
            } else {
                open.remove(&key);
            }
        }
    }
    out
}

/// Marks what lies in the gaps of a cut stream as lost. Stops where that would make more ranges than the limit:
/// reading finds the gaps anyway.
fn without_gaps(extents: Vec<Extent>, source: &dyn ReadAt, limit: usize) -> (Vec<Extent>, bool) {
    let gaps = source.gaps();
    if gaps.is_empty() {
        return (extents, false);
    }
    let limit = limit.max(extents.len().saturating_mul(2));
    let mut out = Vec::with_capacity(extents.len());
    let mut rough = false;
    for extent in extents {
        let Backing::File(mut at) = extent.backing else {
            out.push(extent);
            continue;
        };
        let mut start = extent.start;
        let mut next = gaps.partition_point(|gap| gap.end <= at);
        while start < extent.end {
            let left = extent.end.saturating_sub(start);
            let gap = gaps.get(next).filter(|gap| gap.start < at.saturating_add(left));
            let (bytes, lost) = match gap {
                _ if out.len() >= limit => {
                    rough = true;
                    (left, false)
                }
                None => (left, false),
                Some(gap) if gap.start > at => (gap.start.saturating_sub(at), false),
                Some(gap) => {
                    next = next.saturating_add(1);
                    (gap.end.saturating_sub(at).min(left), true)
                }
            };
            let end = start.saturating_add(bytes);
            let backing = if lost { Backing::Lost(at) } else { Backing::File(at) };
            out.push(Extent { start, end, backing });
            start = end;
            at = at.saturating_add(bytes);
        }
    }
    (out, rough)
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use proptest::prelude::*;

    use super::*;

    struct Cut(u64, Vec<Range<u64>>);

    impl ReadAt for Cut {
        fn len(&self) -> u64 {
            self.0
        }
        fn read_at(&self, _: u64, _: &mut [u8]) -> std::io::Result<usize> {
            Ok(0)
        }
        fn gaps(&self) -> &[Range<u64>] {
            &self.1
        }
    }

    fn load(paddr: u64, offset: u64, file_size: u64, mem_size: u64) -> LoadSegment {
        LoadSegment { paddr, vaddr: 0, offset, file_size, mem_size }
    }

    #[test]
    fn the_kernel_text_is_one_with_the_ram_around_it() {
        let text = load(0x20_0000, 0x1000, 0x1000, 0x1000);
        let ram = load(0x10_0000, 0x2000, 0x20_0000, 0x20_0000);
        let map = Segments::new(&[text, ram], &Cut(u64::MAX, vec![]), 100);
        assert_eq!(map.at(0x20_0800).unwrap().from(0x20_0800), (Backing::File(0x1800), 0x800));
        assert_eq!(map.at(0x20_1000).unwrap().from(0x20_1000).0, Backing::File(0x10_3000));
        assert_eq!(map.at(0x0f_ffff), None);
        assert_eq!(map.tally(4096), Tally { present: 0x200, excluded: 0, lost: 0 });
    }

    #[test]
    fn a_segment_that_has_the_bytes_goes_before_one_that_has_not() {
        let tail = load(0x1000, 0x100, 0, 0x1000);
        let cut = load(0x1000, 0x9000, 0x1000, 0x1000);
        let whole = load(0x1000, 0x3000, 0x1000, 0x1000);
        let source = Cut(0x8000, vec![]);
        assert_eq!(
            Segments::new(&[tail, cut, whole], &source, 9).at(0x1000).unwrap().backing,
            Backing::File(0x3000)
        );
        assert_eq!(
            Segments::new(&[tail, cut], &source, 9).at(0x1000).unwrap().backing,
            Backing::Lost(0x9000)
        );
    }

    #[test]
    fn a_frame_in_parts_has_the_worst_of_their_states() {
        let source = Cut(0x1800, vec![]);
        let map =
            Segments::new(&[load(0x1000, 0x1000, 0x1400, 0x3000), load(0x4000, 0, 0x10, 0x10)], &source, 9);
        assert_eq!(map.state(0x1000, 0x2000), PageState::Lost);
        assert_eq!(map.state(0x2000, 0x3000), PageState::Lost);
        assert_eq!(map.state(0x3000, 0x4000), PageState::Excluded);
        assert_eq!(map.state(0x4000, 0x5000), PageState::Present);
        assert_eq!(map.state(0x5000, 0x6000), PageState::Hole);
        assert_eq!(map.tally(4096), Tally { present: 1, excluded: 1, lost: 2 });
    }

    #[test]
    fn gaps_of_a_cut_stream_are_lost() {
        let source = Cut(0x10000, vec![0x3000..0x4000, 0x5000..0x5001]);
        let map = Segments::new(&[load(0, 0x1000, 0x6000, 0x6000)], &source, 9);
        assert_eq!(map.tally(4096), Tally { present: 4, excluded: 0, lost: 2 });
        assert_eq!(map.at(0x2000).unwrap().backing, Backing::Lost(0x3000));
        assert_eq!(map.at(0x4001).unwrap().backing, Backing::File(0x5001));
        assert!(!map.rough);
    }

    #[test]
    fn segments_at_the_end_of_the_address_space_do_not_wrap() {
        let map = Segments::new(&[load(u64::MAX - 10, 0, u64::MAX, u64::MAX)], &Cut(100, vec![]), 9);
        assert_eq!(map.end(), u64::MAX);
        map.tally(4096);
    }

    proptest! {
        #[test]
        fn every_byte_has_the_backing_that_comes_first(
            list in prop::collection::vec((0u64..200, 0u64..300, 0u64..60, 0u64..60), 0..12), len in 0u64..300,
        ) {
            let loads: Vec<LoadSegment> =
                list.iter().map(|(p, o, f, m)| load(*p, *o, *f, (*m).max(*f))).collect();
            let map = Segments::new(&loads, &Cut(len, vec![]), 100);
            for paddr in 0..300u64 {
                let mut want: Option<(u8, Backing)> = None;
                for l in &loads {
                    if paddr < l.paddr || paddr >= l.paddr + l.mem_size { continue }
                    let into = paddr - l.paddr;
                    let this = if into >= l.file_size { (2, Backing::Excluded) }
                        else if l.offset + into < len { (0, Backing::File(l.offset + into)) }
                        else { (1, Backing::Lost(l.offset + into)) };
                    if want.is_none_or(|w| this.0 < w.0) { want = Some(this) }
                }
                prop_assert_eq!(map.at(paddr).map(|e| e.from(paddr).0), want.map(|w| w.1), "paddr {}", paddr);
            }
        }
    }
}
