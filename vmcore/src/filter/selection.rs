//! A set of frames: a bit for each, and nothing where a whole stretch is alike.

use std::collections::BTreeMap;
use std::ops::Range;

/// Frames of a stretch: 128 MiB of 4 KiB pages, 4 KiB of bits.
const STRETCH: u64 = 1 << 15;
const BYTES: usize = 4096;

/// The bits of one stretch, for who looks at each of its frames.
#[derive(Clone, Debug)]
pub(super) struct Bits([u8; BYTES]);

impl Bits {
    /// True where the frame, which is of this stretch, is in the set.
    pub(super) fn contains(&self, pfn: u64) -> bool {
        let (_, byte, bit) = split(pfn);
        self.0.get(byte).is_some_and(|byte| byte & bit != 0)
    }

    /// Takes a frame of this stretch out.
    pub(super) fn remove(&mut self, pfn: u64) {
        let (_, byte, bit) = split(pfn);
        if let Some(byte) = self.0.get_mut(byte) {
            *byte &= !bit;
        }
    }
}

#[derive(Clone, Debug)]
enum Stretch {
    Full,
    Bits(Box<[u8; BYTES]>),
}

/// A set of frames. Stretches without any, and stretches that are full, take no room.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    stretches: BTreeMap<u64, Stretch>,
}

fn split(pfn: u64) -> (u64, usize, u8) {
    let within = pfn & STRETCH.wrapping_sub(1);
    let byte = usize::try_from(within >> 3).unwrap_or(0);
    (pfn >> 15, byte, 1_u8.wrapping_shl(u32::try_from(pfn & 7).unwrap_or(0)))
}

impl Selection {
    /// Adds a frame.
    pub fn insert(&mut self, pfn: u64) {
        let (key, byte, bit) = split(pfn);
        let stretch = self.stretches.entry(key).or_insert_with(|| Stretch::Bits(Box::new([0; BYTES])));
        if let Stretch::Bits(bits) = stretch {
            if let Some(byte) = bits.get_mut(byte) {
                *byte |= bit;
            }
            let last = byte == BYTES.saturating_sub(1) && bit == 0x80;
            if last && bits.iter().all(|byte| *byte == 0xff) {
                *stretch = Stretch::Full;
            }
        }
    }

    /// Adds all frames of a range.
    pub fn insert_all(&mut self, range: Range<u64>) {
        let mut pfn = range.start;
        while pfn < range.end {
            let (key, byte, _) = split(pfn);
            let after = key.saturating_add(1).checked_shl(15).unwrap_or(u64::MAX).min(range.end);
            if after.saturating_sub(pfn) == STRETCH {
                self.stretches.insert(key, Stretch::Full);
                pfn = after;
                continue;
            }
            // Single frames up to a whole byte, whole bytes, and what is left of the last one. The last frame of a stretch is
            // always put on its own, because that is when it may become full.
            let whole = usize::try_from(after.saturating_sub(pfn).saturating_sub(1) >> 3).unwrap_or(0);
            if pfn.is_multiple_of(8)
                && whole > 0
                && let Stretch::Bits(bits) =
                    self.stretches.entry(key).or_insert_with(|| Stretch::Bits(Box::new([0; BYTES])))
                && let Some(bytes) = bits.get_mut(byte..byte.saturating_add(whole))
            {
                bytes.fill(0xff);
                pfn = pfn.saturating_add(u64::try_from(whole).unwrap_or(0) << 3);
            } else {
                self.insert(pfn);
                pfn = pfn.saturating_add(1);
            }
        }
    }

    /// Takes a frame out.
    pub fn remove(&mut self, pfn: u64) {
        let (key, byte, bit) = split(pfn);
        let Some(stretch) = self.stretches.get_mut(&key) else { return };
        if matches!(stretch, Stretch::Full) {
            *stretch = Stretch::Bits(Box::new([0xff; BYTES]));
        }
        if let Stretch::Bits(bits) = stretch
            && let Some(byte) = bits.get_mut(byte)
        {
            *byte &= !bit;
        }
    }

    /// The bits of the stretch that begins with this frame.
    pub(super) fn bits(&self, start: u64) -> Box<Bits> {
        Box::new(Bits(match self.stretches.get(&split(start).0) {
            None => [0; BYTES],
            Some(Stretch::Full) => [0xff; BYTES],
            Some(Stretch::Bits(bits)) => **bits,
        }))
    }

    /// Puts these bits for the stretch that begins with this frame.
    pub(super) fn put(&mut self, start: u64, bits: &Bits) {
        let stretch = if bits.0 == [0xff; BYTES] { Stretch::Full } else { Stretch::Bits(Box::new(bits.0)) };
        self.stretches.insert(split(start).0, stretch);
    }

    /// True where the frame is in the set.
    #[must_use]
    pub fn contains(&self, pfn: u64) -> bool {
        let (key, byte, bit) = split(pfn);
        match self.stretches.get(&key) {
            None => false,
            Some(Stretch::Full) => true,
            Some(Stretch::Bits(bits)) => bits.get(byte).is_some_and(|byte| byte & bit != 0),
        }
    }

    /// How many frames of `range` are in the set.
    #[must_use]
    pub fn count(&self, range: Range<u64>) -> u64 {
        self.runs(range).fold(0, |sum, run| sum.saturating_add(run.end.saturating_sub(run.start)))
    }

    /// All frames of the set.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.stretches.values().fold(0_u64, |sum, stretch| {
            sum.saturating_add(match stretch {
                Stretch::Full => STRETCH,
                Stretch::Bits(bits) => bits.iter().map(|byte| u64::from(byte.count_ones())).sum(),
            })
        })
    }

    /// True where no frame is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first frame from `pfn` on whose being in the set is `wanted`; `None` where `end` comes first.
    fn next(&self, mut pfn: u64, end: u64, wanted: bool) -> Option<u64> {
        while pfn < end {
            let (key, mut byte, _) = split(pfn);
            let after = key.saturating_add(1).checked_shl(15).unwrap_or(u64::MAX);
            match self.stretches.get(&key) {
                None if wanted => {
                    pfn = self.stretches.range(key..).next()?.0.checked_shl(15)?;
                    continue;
                }
                Some(Stretch::Full) if wanted => return Some(pfn),
                None => return Some(pfn),
                Some(Stretch::Full) => {}
                Some(Stretch::Bits(bits)) => {
                    let skip = u32::try_from(pfn & 7).unwrap_or(0);
                    let mut mask = 0xff_u8.wrapping_shl(skip);
                    while let Some(here) = bits.get(byte) {
                        let here = if wanted { *here } else { !*here } & mask;
                        if here != 0 {
                            let at = (key << 15)
                                | (u64::try_from(byte).unwrap_or(0) << 3)
                                | u64::from(here.trailing_zeros());
                            return (at < end).then_some(at);
                        }
                        mask = 0xff;
                        byte = byte.saturating_add(1);
                    }
                }
            }
            pfn = after;
        }
        None
    }

    /// The runs of frames of the set within `range`, ascending.
    pub fn runs(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let mut from = range.start;
        std::iter::from_fn(move || {
            let start = self.next(from, range.end, true)?;
            let end = self.next(start, range.end, false).unwrap_or(range.end);
            from = end;
            Some(start..end)
        })
    }

    /// The bits of the frames from `pfn` on, which is a multiple of 8, lowest first, as the bitmaps of a dump have them.
    pub fn bitmap(&self, pfn: u64, out: &mut [u8]) {
        let (mut key, mut place, _) = split(pfn);
        let mut rest = out;
        while !rest.is_empty() {
            let count = BYTES.saturating_sub(place).min(rest.len());
            let (now, later) = rest.split_at_mut(count);
            match self.stretches.get(&key) {
                None => now.fill(0),
                Some(Stretch::Full) => now.fill(0xff),
                Some(Stretch::Bits(bits)) => {
                    for (to, from) in now.iter_mut().zip(bits.iter().skip(place)) {
                        *to = *from;
                    }
                }
            }
            (key, place, rest) = (key.saturating_add(1), 0, later);
        }
    }

    /// The numbers of the stretches that have frames, as ranges of frames.
    pub(crate) fn stretches(&self) -> impl Iterator<Item = Range<u64>> {
        self.stretches.keys().map(|key| {
            let start = key.wrapping_shl(15);
            start..start.saturating_add(STRETCH)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_plain_set(
            put in prop::collection::vec((0_u64..200_000, 1_u64..80_000), 0..6),
            out in prop::collection::vec(0_u64..280_000, 0..20),
            range in (0_u64..280_000, 0_u64..280_000),
        ) {
            let (mut selection, mut plain) = (Selection::default(), BTreeSet::new());
            for (n, (start, len)) in put.into_iter().enumerate() {
                if n % 2 == 0 {
                    selection.insert_all(start..start + len);
                }
                for pfn in start..start + len {
                    if n % 2 != 0 {
                        selection.insert(pfn);
                    }
                    plain.insert(pfn);
                }
            }
            for pfn in out {
                selection.remove(pfn);
                plain.remove(&pfn);
            }
            prop_assert_eq!(selection.len(), plain.len() as u64);
            let range = range.0.min(range.1)..range.0.max(range.1);
            let got: Vec<u64> = selection.runs(range.clone()).flatten().collect();
            let want: Vec<u64> = plain.range(range).copied().collect();
            prop_assert_eq!(got, want);
            let mut bits = [0; 64];
            selection.bitmap(32_640, &mut bits);
            for pfn in 32_640..32_640 + 512_u64 {
                let at = (pfn - 32_640) as usize;
                prop_assert_eq!(bits[at / 8] & (1 << (at % 8)) != 0, plain.contains(&pfn));
                prop_assert_eq!(selection.contains(pfn), plain.contains(&pfn));
            }
        }
    }
}
