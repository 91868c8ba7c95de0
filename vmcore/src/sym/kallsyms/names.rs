//! Where each name lies in `kallsyms_names`, and which of the two forms its lengths have.
//!
//! Until 6.0 a length is one byte. Since 6.1 (kernel commit 73bbb94466fd) a byte with bit 7 set is followed by a second one with
//! the length's upper bits. Distributions move that about, so the table itself tells: right is the form in which every 256th
//! name begins where `kallsyms_markers`, which follows the names, says.

use std::ops::Range;

use crate::xlat::le;

/// How many names one marker stands for.
pub(super) const BLOCK: usize = 256;

/// How the length before a name is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LengthForm {
    /// One byte, always.
    OneByte,
    /// One byte below 128, else two: low seven bits first.
    OneOrTwoBytes,
}

impl LengthForm {
    /// Both, the newer kernels' first.
    pub(super) const ALL: [Self; 2] = [Self::OneOrTwoBytes, Self::OneByte];

    /// Where the name at `at` (its length's first byte) has its compressed bytes. An empty name is none: the kernel has none.
    pub(super) fn name(self, names: &[u8], at: usize) -> Option<Range<usize>> {
        let first = *names.get(at)?;
        let next = at.checked_add(1)?;
        let (start, len) = if self == Self::OneOrTwoBytes && first & 0x80 != 0 {
            let upper = usize::from(*names.get(next)?) << 7;
            (at.checked_add(2)?, usize::from(first & 0x7f) | upper)
        } else {
            (next, usize::from(first))
        };
        let end = start.checked_add(len)?;
        (len > 0 && end <= names.len()).then_some(start..end)
    }
}

/// The names that were found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) form: LengthForm,
    /// For each symbol where its name's length is, or [`LOST`].
    pub(super) at: Vec<u32>,
    /// Where the last name ends; 0 where that is not known.
    pub(super) end: usize,
    /// True where `kallsyms_markers` confirms it.
    pub(super) marked: bool,
}

/// The place of a name that is not in the dump.
pub(super) const LOST: u32 = u32::MAX;

/// Finds `count` names at the start of `bytes`, which also hold what follows them. `missing` are the bytes that are not real.
pub(super) fn find(bytes: &[u8], count: usize, missing: &[Range<usize>]) -> Option<Places> {
    let straight = LengthForm::ALL.map(|form| walk(bytes, count, form, missing));
    let whole = || straight.iter().flatten();
    if let Some(sure) = whole().find(|p| marked(bytes, p)) {
        return Some(Places { marked: true, ..sure.clone() });
    }
    let salvaged = salvage(bytes, count, missing);
    if salvaged.is_some() {
        return salvaged;
    }
    whole().next().cloned()
}

/// Takes one name after the other; `None` where one of them can't be.
pub(super) fn walk(bytes: &[u8], count: usize, form: LengthForm, missing: &[Range<usize>]) -> Option<Places> {
    let mut places = Vec::with_capacity(count.min(bytes.len()));
    let mut at = 0_usize;
    for _ in 0..count {
        let name = form.name(bytes, at)?;
        places.push(u32::try_from(at).ok()?);
        at = name.end;
    }
    let touched = missing.iter().any(|m| m.start < at);
    (!touched).then_some(Places { form, at: places, end: at, marked: false })
}

/// The width of a marker: 4 bytes since 4.20 (kernel commit 80ffbaa5b1bd), 8 before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MarkerWidth {
    Four,
    Eight,
}

impl MarkerWidth {
    pub(super) const ALL: [Self; 2] = [Self::Four, Self::Eight];

    fn bytes(self) -> usize {
        match self {
            Self::Four => 4,
            Self::Eight => 8,
        }
    }

    /// The marker of a block, where the markers begin at `start`.
    pub(super) fn get(self, bytes: &[u8], start: usize, block: usize) -> Option<u64> {
        let at = block.checked_mul(self.bytes())?.checked_add(start)?;
        match self {
            Self::Four => le::u32_at(bytes, at).map(u64::from),
            Self::Eight => le::u64_at(bytes, at),
        }
    }
}

/// True where markers follow the names and agree with every 256th place.
pub(super) fn marked(bytes: &[u8], places: &Places) -> bool {
    // The padding depends on where the names begin, which here is not known: up to 15 bytes.
    (0..16).filter_map(|pad| places.end.checked_add(pad)).any(|start| {
        MarkerWidth::ALL.iter().any(|width| {
            places
                .at
                .iter()
                .step_by(BLOCK)
                .enumerate()
                .all(|(block, at)| width.get(bytes, start, block) == Some(u64::from(*at)))
        })
    })
}

/// How many markers `count` names have.
pub(super) fn blocks(count: usize) -> usize {
    count.div_ceil(BLOCK)
}

/// Names whose bytes are in part missing or wrong: each block of 256 is found by its marker, and only those behind the damage
/// within their block are lost.
fn salvage(bytes: &[u8], count: usize, missing: &[Range<usize>]) -> Option<Places> {
    let (start, width) = find_markers(bytes, count)?;
    let tries = LengthForm::ALL.map(|form| by_markers(bytes, count, missing, form, start, width));
    let kept = |p: &Places| p.at.iter().filter(|at| **at != LOST).count();
    let best = tries.into_iter().max_by_key(kept)?;
    (kept(&best) > 0).then_some(best)
}

fn by_markers(
    bytes: &[u8],
    count: usize,
    missing: &[Range<usize>],
    form: LengthForm,
    start: usize,
    width: MarkerWidth,
) -> Places {
    let mut places = vec![LOST; count.min(bytes.len())];
    for (block, slots) in places.chunks_mut(BLOCK).enumerate() {
        let Some(from) = width.get(bytes, start, block).and_then(|m| usize::try_from(m).ok()) else {
            continue;
        };
        let until = width.get(bytes, start, block.saturating_add(1)).and_then(|m| usize::try_from(m).ok());
        let until = until.filter(|u| *u > from && *u < start).unwrap_or(start);
        let mut at = from;
        for slot in slots {
            let Some(name) = form.name(bytes, at).filter(|n| n.end <= until) else { break };
            if missing.iter().any(|m| m.start < name.end && at < m.end) {
                break;
            }
            *slot = u32::try_from(at).unwrap_or(LOST);
            at = name.end;
        }
    }
    Places { form, at: places, end: 0, marked: true }
}

/// The markers of `count` names somewhere behind them: zero, then steadily rising by what 256 names can take.
fn find_markers(bytes: &[u8], count: usize) -> Option<(usize, MarkerWidth)> {
    let wanted = blocks(count);
    let first = count.checked_mul(2).filter(|_| wanted >= 2)?;
    (first & !3..bytes.len()).step_by(4).find_map(|start| {
        let width = marker_width(bytes, start)?;
        let found = rising(bytes, start, width);
        (found >= wanted).then_some((start, width))
    })
}

/// The width of the markers that could begin at `start`.
pub(super) fn marker_width(bytes: &[u8], start: usize) -> Option<MarkerWidth> {
    if le::u32_at(bytes, start)? != 0 {
        return None;
    }
    MarkerWidth::ALL
        .into_iter()
        .find(|width| width.get(bytes, start, 1).is_some_and(|second| STEP.contains(&second)))
}

/// What 256 names can take: two bytes at least each, and 2 + 255 at most.
const STEP: std::ops::RangeInclusive<u64> = 512..=66_048;

/// How many markers could stand at `start`.
pub(super) fn rising(bytes: &[u8], start: usize, width: MarkerWidth) -> usize {
    let mut last = 0_u64;
    let mut found = 1_usize;
    while let Some(next) = width.get(bytes, start, found)
        && next.checked_sub(last).is_some_and(|step| STEP.contains(&step))
    {
        last = next;
        found = found.saturating_add(1);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `lens` names, then markers of four bytes, then more.
    fn table(lens: &[usize], form: LengthForm) -> Vec<u8> {
        let mut names: Vec<u8> = Vec::new();
        let mut markers = Vec::new();
        for (i, len) in lens.iter().enumerate() {
            if i % BLOCK == 0 {
                markers.extend_from_slice(&u32::try_from(names.len()).unwrap().to_le_bytes());
            }
            if *len >= 128 && form == LengthForm::OneOrTwoBytes {
                names.push(u8::try_from(len & 0x7f).unwrap() | 0x80);
                names.push(u8::try_from(len >> 7).unwrap());
            } else {
                names.push(u8::try_from(*len).unwrap());
            }
            names.extend(std::iter::repeat_n(b'x', *len));
        }
        while !names.len().is_multiple_of(8) {
            names.push(0);
        }
        names.extend_from_slice(&markers);
        names.extend_from_slice(&[0xff; 64]);
        names
    }

    #[test]
    fn the_markers_tell_one_byte_lengths_from_two() {
        let lens: Vec<usize> = (0..2000).map(|i| if i == 700 { 200 } else { 3 + i % 20 }).collect();
        for form in LengthForm::ALL {
            let places = find(&table(&lens, form), lens.len(), &[]).unwrap();
            assert_eq!((places.form, places.marked, places.at.len()), (form, true, 2000));
        }
    }

    #[test]
    fn a_name_of_many_tokens_has_a_length_of_two_bytes() {
        let lens = vec![300; 600];
        let bytes = table(&lens, LengthForm::OneOrTwoBytes);
        let places = find(&bytes, lens.len(), &[]).unwrap();
        assert!(places.marked);
        assert_eq!(places.form.name(&bytes, 302), Some(304..604));
    }

    #[test]
    fn a_hole_costs_only_the_rest_of_its_block() {
        let lens: Vec<usize> = (0..4096).map(|i| 5 + i % 11).collect();
        let mut bytes = table(&lens, LengthForm::OneByte);
        let hole = 12_288..16_384;
        bytes[hole.clone()].fill(0);
        let places = find(&bytes, lens.len(), std::slice::from_ref(&hole)).unwrap();
        let lost = places.at.iter().filter(|at| **at == LOST).count();
        assert!(lost > 300 && lost < 800, "{lost} names lost for a hole of {} bytes", hole.len());
        assert!(
            places
                .at
                .iter()
                .filter(|at| **at != LOST)
                .all(|at| !hole.contains(&usize::try_from(*at).unwrap()))
        );
    }

    #[test]
    fn a_wrong_length_costs_only_its_block() {
        let lens: Vec<usize> = (0..4096).map(|i| 5 + i % 11).collect();
        let mut bytes = table(&lens, LengthForm::OneByte);
        bytes[20_000] = 0;
        let lost = find(&bytes, lens.len(), &[]).unwrap().at.iter().filter(|at| **at == LOST).count();
        assert!(lost < BLOCK, "{lost}");
    }

    #[test]
    fn noise_has_no_names() {
        assert_eq!(find(&[], 10, &[]), None);
        assert_eq!(find(&[0; 4096], 100, &[]), None);
        assert_eq!(find(&[255; 300], usize::MAX, &[]), None);
    }
}
