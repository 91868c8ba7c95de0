//! Memory of an ELF vmcore: ranges of the file, as they are.

use std::ops::Range;
use std::sync::Arc;

use super::segments::{Backing, Segments};
use super::{PageState, lost_or_io};
use crate::addr::{Pfn, PhysAddr};
use crate::error::PageError;
use crate::source::{ReadAt, read_exact_at};

/// Memory of an ELF vmcore.
pub(crate) struct ElfMemory {
    pub(crate) source: Arc<dyn ReadAt>,
    pub(crate) segments: Segments,
    pub(crate) page_size: u64,
}

impl ElfMemory {
    fn pfn(&self, paddr: u64) -> Pfn {
        PhysAddr(paddr).pfn(self.page_size).unwrap_or_default()
    }

    pub(crate) fn end_pfn(&self) -> Pfn {
        match self.segments.end() {
            0 => Pfn(0),
            end => Pfn(self.pfn(end.saturating_sub(1)).0.saturating_add(1)),
        }
    }

    pub(crate) fn state(&self, pfn: Pfn) -> PageState {
        let Some(start) = pfn.start(self.page_size) else { return PageState::Hole };
        self.segments.state(start.0, start.0.saturating_add(self.page_size))
    }

    pub(crate) fn next(&self, pfn: Pfn) -> Option<Pfn> {
        let start = pfn.start(self.page_size)?.0;
        self.segments.from(start).map(|extent| self.pfn(extent.start.max(start)))
    }

    /// The first frame from `pfn` on of which the file has bytes.
    pub(crate) fn next_present(&self, pfn: Pfn) -> Option<Pfn> {
        let start = pfn.start(self.page_size)?.0;
        self.segments.next_in_file(start).map(|extent| self.pfn(extent.start.max(start)))
    }

    /// The first frame from `pfn` on of which the file has bytes that may not be zeros.
    pub(crate) fn next_written(&self, pfn: Pfn) -> Option<Pfn> {
        let mut start = pfn.start(self.page_size)?.0;
        while let Some(extent) = self.segments.next_in_file(start) {
            start = extent.start.max(start);
            let (Backing::File(at), left) = extent.from(start) else { return None };
            match self.source.next_data(at) {
                Some(data) if data.saturating_sub(at) < left => {
                    return Some(self.pfn(start.saturating_add(data.saturating_sub(at))));
                }
                _ => start = extent.end,
            }
        }
        None
    }

    /// The end of the frames from `pfn` on that lie wholly in one range, and so are in one state; `None` where `pfn` does not.
    pub(crate) fn alike(&self, pfn: Pfn) -> Option<(PageState, Pfn)> {
        let start = pfn.start(self.page_size)?;
        let extent = self.segments.at(start.0)?;
        let end = self.pfn(extent.end);
        (end > pfn).then(|| (self.state(pfn), end))
    }

    /// True where the whole frame lies in one piece of the file.
    pub(crate) fn is_whole(&self, pfn: Pfn) -> bool {
        pfn.start(self.page_size).and_then(|start| Some((start, self.segments.at(start.0)?))).is_some_and(
            |(start, extent)| {
                let (backing, left) = extent.from(start.0);
                matches!(backing, Backing::File(_)) && left >= self.page_size
            },
        )
    }

    /// Where the frame lies in the file, if it is there in one piece.
    pub(crate) fn place(&self, pfn: Pfn) -> Option<u64> {
        let start = pfn.start(self.page_size)?.0;
        match self.segments.at(start)?.from(start) {
            (Backing::File(at), left) if left >= self.page_size => Some(at),
            _ => None,
        }
    }

    /// The frames of the ranges that are lost, ascending.
    pub(crate) fn lost_frames(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.segments
            .lost()
            .map(|bytes| self.pfn(bytes.start).0..self.pfn(bytes.end.saturating_sub(1)).0.saturating_add(1))
    }

    /// Fills `buf` from the file, with as few reads as the ranges allow.
    pub(crate) fn read(&self, paddr: u64, buf: &mut [u8]) -> Result<(), PageError> {
        let (mut paddr, mut rest) = (paddr, buf);
        while !rest.is_empty() {
            let pfn = self.pfn(paddr);
            let Some(extent) = self.segments.at(paddr) else { return Err(PageError::Hole { pfn }) };
            let (backing, left) = extent.from(paddr);
            let at = match backing {
                Backing::File(at) => at,
                Backing::Excluded => return Err(PageError::Excluded { pfn, level: 0 }),
                Backing::Lost(at) => return Err(self.lost(pfn, at)),
            };
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
            let Some((now, later)) = rest.split_at_mut_checked(count) else { break };
            read_exact_at(&*self.source, at, now).map_err(|e| lost_or_io(pfn, at, e, self.source.len()))?;
            paddr = paddr.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
            rest = later;
        }
        Ok(())
    }

    /// Fills a frame: bytes that the dump does not speak of become zeros. Gives the count of those that it has.
    pub(crate) fn read_frame(&self, pfn: Pfn, buf: &mut [u8]) -> Result<u64, PageError> {
        let Some(start) = pfn.start(self.page_size) else { return Err(PageError::Hole { pfn }) };
        let end = start.0.saturating_add(self.page_size);
        let state = self.segments.state(start.0, end);
        match state {
            PageState::Present | PageState::Lost => {}
            PageState::Excluded => return Err(PageError::Excluded { pfn, level: 0 }),
            PageState::Hole => return Err(PageError::Hole { pfn }),
        }
        let (mut at, mut rest, mut got) = (start.0, buf, 0u64);
        while at < end && !rest.is_empty() {
            let extent = self.segments.from(at).filter(|extent| extent.start < end);
            let hole = extent.map_or(end, |extent| extent.start).saturating_sub(at);
            let bytes = match extent {
                Some(extent) if hole == 0 => extent.end.min(end).saturating_sub(at),
                _ => hole,
            };
            let count = usize::try_from(bytes).unwrap_or(usize::MAX).min(rest.len());
            let Some((now, later)) = rest.split_at_mut_checked(count) else { break };
            match extent.filter(|_| hole == 0) {
                None => now.fill(0),
                Some(extent) => match (state, extent.from(at).0) {
                    // Of a frame with lost bytes, those are told and not the ones left out.
                    (PageState::Lost, Backing::Lost(offset)) => return Err(self.lost(pfn, offset)),
                    (PageState::Lost, _) => {}
                    _ => {
                        self.read(at, now)?;
                        got = got.saturating_add(bytes);
                    }
                },
            }
            at = at.saturating_add(bytes);
            rest = later;
        }
        Ok(got)
    }

    fn lost(&self, pfn: Pfn, at: u64) -> PageError {
        let len = self.source.len();
        let why = if at < len {
            format!("it should be at file offset {at:#x}, and the stream was cut before that arrived")
        } else {
            format!("it should be at file offset {at:#x}, but the file ends at {len:#x}")
        };
        PageError::Lost { pfn, why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::elf::LoadSegment;

    /// A terabyte of zeros, but for the bytes at these offsets.
    struct Holes([u64; 2]);

    impl ReadAt for Holes {
        fn len(&self) -> u64 {
            1 << 40
        }
        fn read_at(&self, _: u64, _: &mut [u8]) -> std::io::Result<usize> {
            Ok(0)
        }
        fn next_data(&self, offset: u64) -> Option<u64> {
            self.0.into_iter().find(|data| *data >= offset)
        }
    }

    #[test]
    fn holes_of_the_file_are_passed_over_up_to_the_frame_that_holds_something() {
        let load =
            |paddr, offset, size| LoadSegment { paddr, vaddr: 0, offset, file_size: size, mem_size: size };
        let source = Arc::new(Holes([0x5678, (1 << 39) + 0x1fff]));
        // The second has nothing; the third has the byte as its last.
        let loads = [
            load(0x10_0000, 0x1000, 0x10_0000),
            load(1 << 30, 0x10_0000, 1 << 38),
            load(1 << 42, 1 << 39, 0x2000),
        ];
        let segments = Segments::new(&loads, &*source, 9);
        let memory = ElfMemory { source, segments, page_size: 4096 };
        assert_eq!(memory.next_present(Pfn(0)), Some(Pfn(0x100)));
        assert_eq!(memory.next_written(Pfn(0)), Some(Pfn(0x104)));
        assert_eq!(memory.next_written(Pfn(0x104)), Some(Pfn(0x104)));
        assert_eq!(memory.next_written(Pfn(0x105)), Some(Pfn((1 << 30) + 1)));
        assert_eq!(memory.next_written(Pfn((1 << 30) + 2)), None);
    }
}
