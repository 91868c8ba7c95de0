//! What is erased: bytes of frames, in the order of the frames.

use std::collections::BTreeMap;

use crate::addr::PhysAddr;
use crate::filter::Selection;

/// What erased bytes hold: makedumpfile's letter. It is no pointer, no length of anything, no end of a text, and nobody takes it for
/// memory that was zero: a reader sees that something was here, how long it was, and that it was taken away.
pub const FILL: u8 = b'X';
/// Pieces of frames at most: each costs some 16 bytes of memory. Whole frames cost a bit.
const PIECES: usize = 16 << 20;

/// Bytes of frames that are erased as a dump is written.
#[derive(Clone, Debug, Default)]
pub struct Blanks {
    page_size: u64,
    whole: Selection,
    /// By frame: from where to where, ascending, none touching another.
    parts: BTreeMap<u64, Vec<(u32, u32)>>,
    pieces: usize,
}

/// There are too many pieces to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Blanks {
    /// Nothing yet, of frames of so many bytes.
    #[must_use]
    pub fn new(page_size: u64) -> Self {
        Self { page_size, ..Self::default() }
    }

    /// True where nothing is erased.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.whole.is_empty()
    }

    /// Frames of which something is erased.
    #[must_use]
    pub fn pages(&self) -> u64 {
        let apart = self.parts.keys().filter(|pfn| !self.whole.contains(**pfn)).count();
        self.whole.len().saturating_add(u64::try_from(apart).unwrap_or(u64::MAX))
    }

    /// Bytes that are erased.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let apart = self.parts.iter().filter(|(pfn, _)| !self.whole.contains(**pfn));
        let lengths = apart.flat_map(|(_, parts)| parts.iter().map(|(from, to)| to.saturating_sub(*from)));
        let apart = lengths.fold(0_u64, |sum, len| sum.saturating_add(u64::from(len)));
        self.whole.len().saturating_mul(self.page_size).saturating_add(apart)
    }

    /// Adds bytes of one frame: what lies past its end is not taken.
    pub(super) fn add(&mut self, at: PhysAddr, len: u64) -> Result<(), Full> {
        let (Some(pfn), Some(from)) = (at.pfn(self.page_size), at.page_offset(self.page_size)) else {
            return Ok(());
        };
        let to = from.saturating_add(len).min(self.page_size);
        if from == 0 && to == self.page_size {
            self.whole.insert(pfn.0);
            return Ok(());
        }
        let (Ok(mut from), Ok(mut to)) = (u32::try_from(from), u32::try_from(to)) else { return Ok(()) };
        if from >= to || self.whole.contains(pfn.0) {
            return Ok(());
        }
        if self.pieces >= PIECES {
            return Err(Full);
        }
        let parts = self.parts.entry(pfn.0).or_default();
        let before = parts.len();
        parts.retain(|(start, end)| {
            let touches = *start <= to && from <= *end;
            if touches {
                (from, to) = (from.min(*start), to.max(*end));
            }
            !touches
        });
        let place = parts.partition_point(|(start, _)| *start < from);
        parts.insert(place, (from, to));
        self.pieces = self.pieces.saturating_add(parts.len()).saturating_sub(before);
        Ok(())
    }

    /// Erases in `page`, which are the bytes of the frame `pfn`, what is to be erased. True where something was.
    pub fn apply(&self, pfn: u64, page: &mut [u8]) -> bool {
        if self.whole.contains(pfn) {
            page.fill(FILL);
            return true;
        }
        let Some(parts) = self.parts.get(&pfn) else { return false };
        for (from, to) in parts {
            let (Ok(from), Ok(to)) = (usize::try_from(*from), usize::try_from(*to)) else { continue };
            if let Some(bytes) = page.get_mut(from..to) {
                bytes.fill(FILL);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn erases_what_was_added_and_nothing_else(
            ranges in prop::collection::vec((0_u64..3 * 64, 1_u64..80), 0..12)
        ) {
            let mut blanks = Blanks::new(64);
            let mut want = [[b'.'; 64]; 4];
            for (at, len) in ranges {
                blanks.add(PhysAddr(at), len).unwrap();
                for byte in at..(at + len).min((at / 64 + 1) * 64) {
                    want[(byte / 64) as usize][(byte % 64) as usize] = FILL;
                }
            }
            let (mut bytes, mut pages) = (0, 0);
            for (pfn, want) in want.iter().enumerate() {
                let mut page = [b'.'; 64];
                let some = blanks.apply(pfn as u64, &mut page);
                prop_assert_eq!(&page, want);
                let erased = page.iter().map(|byte| u64::from(*byte == FILL)).sum::<u64>();
                prop_assert_eq!(some, erased > 0);
                bytes += erased;
                pages += u64::from(some);
            }
            prop_assert_eq!((blanks.bytes(), blanks.pages()), (bytes, pages));
        }
    }
}
