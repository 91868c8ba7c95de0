//! Which source file's unit has an address.

use std::collections::HashSet;
use std::ops::Range;

use gimli::{DebugInfoOffset, Dwarf, UnitHeader};

use super::file::{Debuginfo, Slice};

/// Units of one file, and ranges of addresses of all of them.
const UNITS: usize = 1 << 20;
const RANGES: usize = 1 << 24;

/// The units of a file by address.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Where each unit is in `.debug_info`.
    units: Vec<Range<usize>>,
    /// Start, end, number of the unit; ascending.
    ranges: Vec<(u64, u64, usize)>,
    /// For each range: the furthest end of it and all before it, so that a search backwards knows where to stop.
    furthest: Vec<u64>,
}

impl Index {
    /// Reads `.debug_aranges`, and the root entry of units that are not in it.
    pub(super) fn new(file: &Debuginfo, dwarf: &Dwarf<Slice<'_>>) -> Self {
        let mut this = Self::default();
        let mut listed = HashSet::new();
        let mut sets = dwarf.debug_aranges.headers();
        let mut by_offset = Vec::new();
        while let Ok(Some(set)) = sets.next() {
            let DebugInfoOffset(offset) = set.debug_info_offset();
            let mut entries = set.entries();
            while let Ok(Some(entry)) = entries.next() {
                let range = entry.range();
                if by_offset.len() < RANGES {
                    by_offset.push((range.begin, range.end, offset));
                    listed.insert(offset);
                }
            }
        }
        let mut headers = dwarf.units();
        let mut touched = 0;
        while let Ok(Some(header)) = headers.next() {
            touched = file.forget_before(touched, header.offset().0);
            let start = header.offset().0;
            let Some(end) = start.checked_add(header.length_including_self()) else { break };
            if this.units.len() >= UNITS {
                break;
            }
            let number = this.units.len();
            this.units.push(start..end);
            if !listed.contains(&start) {
                this.add_root(dwarf, header, number);
            }
        }
        file.forget_info(0..usize::MAX);
        for (start, end, offset) in by_offset {
            if let Ok(number) = this.units.binary_search_by_key(&offset, |unit| unit.start) {
                this.add(start, end, number);
            }
        }
        this.ranges.sort_unstable();
        let furthest = this.ranges.iter().scan(0_u64, |most, (_, end, _)| {
            *most = (*most).max(*end);
            Some(*most)
        });
        this.furthest = furthest.collect();
        this
    }

    fn add(&mut self, start: u64, end: u64, number: usize) {
        // What the linker threw away is at 0.
        if start != 0 && start < end && self.ranges.len() < RANGES {
            self.ranges.push((start, end, number));
        }
    }

    fn add_root(&mut self, dwarf: &Dwarf<Slice<'_>>, header: UnitHeader<Slice<'_>>, number: usize) {
        let Ok(unit) = dwarf.unit(header) else { return };
        let Ok(mut ranges) = dwarf.unit_ranges(&unit) else { return };
        while let Ok(Some(range)) = ranges.next() {
            self.add(range.begin, range.end, number);
        }
    }

    /// The units that have the address, by their place in `.debug_info`; mostly one.
    pub(super) fn find(&self, address: u64) -> impl Iterator<Item = (usize, Range<usize>)> + '_ {
        let after = self.ranges.partition_point(|(start, ..)| *start <= address);
        let before = self.ranges.get(..after).unwrap_or_default().iter().zip(&self.furthest).rev();
        before
            .take_while(move |(_, furthest)| **furthest > address)
            .filter(move |((_, end, _), _)| *end > address)
            .filter_map(|((_, _, number), _)| Some((*number, self.units.get(*number)?.clone())))
    }
}
