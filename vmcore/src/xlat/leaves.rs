//! All that page tables map, in the order of addresses.

use std::ops::Range;

use super::tables::TABLE_BYTES;
use super::x86_64::{Entry, Leaf, Level, PageTables};
use crate::addr::{KVirtAddr, PhysAddr};
use crate::mem::PhysicalMemory;

/// One walk over all mappings.
pub(crate) struct Leaves<'a> {
    tables: &'a PageTables,
    mem: &'a dyn PhysicalMemory,
    range: Range<u64>,
    /// Tables that may be read: there are no more than frames, but where a broken one leads back up.
    left: u64,
    stop: &'a dyn Fn() -> bool,
    /// Tables that could not be read, or were too many.
    lost: u64,
}

impl<'a> Leaves<'a> {
    /// A walk over `range`; `stop` is asked at each table.
    pub(crate) fn new(
        tables: &'a PageTables,
        mem: &'a dyn PhysicalMemory,
        range: Range<u64>,
        stop: &'a dyn Fn() -> bool,
    ) -> Self {
        Self { tables, mem, range, left: mem.end_pfn().0, stop, lost: 0 }
    }

    /// Gives each mapping to `visit`: its first address, and where that leads. Says how many tables could not be followed.
    pub(crate) fn each(mut self, visit: &mut dyn FnMut(u64, Leaf)) -> u64 {
        self.table(self.tables.levels.tables(), self.tables.top(), 0, visit);
        self.lost
    }

    fn table(&mut self, levels: &[Level], table: PhysAddr, base: u64, visit: &mut dyn FnMut(u64, Leaf)) {
        let Some((level, below)) = levels.split_first() else { return };
        if (self.stop)() {
            return;
        }
        let mut bytes = [0; TABLE_BYTES];
        if self.left == 0 || self.mem.read(table, &mut bytes).is_err() {
            self.lost = self.lost.saturating_add(1);
            return;
        }
        self.left = self.left.saturating_sub(1);
        let mut before = 0;
        for (index, entry) in (0_u64..).zip(bytes.as_chunks::<8>().0) {
            let entry = u64::from_le_bytes(*entry);
            let span = level.span();
            let at = self.tables.levels.canonical(base.wrapping_add(index.wrapping_mul(span)));
            // The last byte, since the highest address ends at 2^64.
            let last = at.saturating_add(span.saturating_sub(1));
            if entry == 0 || last < self.range.start || at >= self.range.end {
                before = entry;
                continue;
            }
            match self.tables.entry(self.mem, level, KVirtAddr(at), entry) {
                // KASAN maps terabytes to one table: once is enough.
                Ok(Entry::Table(_)) if entry == before => {}
                Ok(Entry::Table(table)) => self.table(below, table, at, visit),
                Ok(Entry::Page(leaf)) => visit(at, leaf),
                Err(_) => {}
            }
            before = entry;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::addr::Pfn;
    use crate::error::PageError;
    use crate::mem::PageState;
    use crate::xlat::tables::TableCache;
    use crate::xlat::x86_64::Levels;

    /// Tables by their frame, each entry by its index.
    #[derive(Default)]
    struct Ram(BTreeMap<u64, BTreeMap<usize, u64>>);

    impl Ram {
        fn put(&mut self, frame: u64, index: usize, entry: u64) {
            self.0.entry(frame).or_default().insert(index, entry);
        }
    }

    impl PhysicalMemory for Ram {
        fn page_size(&self) -> u64 {
            4096
        }

        fn end_pfn(&self) -> Pfn {
            Pfn(1 << 20)
        }

        fn state(&self, pfn: Pfn) -> PageState {
            if self.0.contains_key(&pfn.0) { PageState::Present } else { PageState::Hole }
        }

        fn read(&self, paddr: PhysAddr, buf: &mut [u8]) -> Result<(), PageError> {
            let pfn = Pfn(paddr.0 >> 12);
            let table = self.0.get(&pfn.0).ok_or(PageError::Hole { pfn })?;
            let mut bytes = [0; TABLE_BYTES];
            for (index, entry) in table {
                bytes[index * 8..][..8].copy_from_slice(&entry.to_le_bytes());
            }
            buf.copy_from_slice(&bytes[(paddr.0 & 4095) as usize..][..buf.len()]);
            Ok(())
        }
    }

    const TABLE: u64 = 0x67;
    const PAGE: u64 = 0x63;
    const LARGE: u64 = 0xe3;

    /// Two pages and a gap, two of 2 MiB and one of 1 GiB below; one page at the very top.
    fn tables(levels: Levels) -> (Ram, PageTables) {
        let mut ram = Ram::default();
        let mut root = 1;
        if levels == Levels::Five {
            ram.put(9, 0, 1 << 12 | TABLE);
            ram.put(9, 511, 10 << 12 | TABLE);
            ram.put(10, 511, 5 << 12 | TABLE);
            root = 9;
        } else {
            ram.put(1, 511, 5 << 12 | TABLE);
        }
        ram.put(1, 0, 2 << 12 | TABLE);
        ram.put(2, 0, 3 << 12 | TABLE);
        ram.put(2, 1, 0x4000_0000 | LARGE);
        ram.put(3, 0, 4 << 12 | TABLE);
        ram.put(3, 1, 0x20_0000 | LARGE);
        // Not present: of a page that only the processor must not use, the frame is stored inverted.
        ram.put(3, 2, 0x40_0000 & !0xfff | 1 << 8 | 1 << 7);
        ram.put(4, 3, 0x1234 << 12 | PAGE);
        ram.put(4, 4, 0x99 << 12 | PAGE);
        ram.put(4, 6, 0x100 << 12 | PAGE);
        ram.put(5, 511, 6 << 12 | TABLE);
        ram.put(6, 511, 7 << 12 | TABLE);
        ram.put(7, 511, 0x77 << 12 | PAGE);
        (ram, PageTables { root: PhysAddr(root << 12), levels, encryption_mask: 0 })
    }

    fn all(ram: &Ram, tables: &PageTables, range: Range<u64>) -> (Vec<(u64, u64)>, u64) {
        let mut found = Vec::new();
        let lost = Leaves::new(tables, ram, range, &|| false).each(&mut |at, leaf| {
            let same = tables.walk(ram, &TableCache::default(), KVirtAddr(at)).unwrap();
            assert_eq!(leaf, same, "at {at:#x} the walk over all finds what the walk to it finds");
            found.push((at, leaf.paddr.0));
        });
        (found, lost)
    }

    #[test]
    fn all_mappings_are_found_in_order_and_where_a_walk_to_them_leads() {
        for levels in [Levels::Four, Levels::Five] {
            let (ram, tables) = tables(levels);
            let below = vec![
                (0x3000, 0x123_4000),
                (0x4000, 0x9_9000),
                (0x6000, 0x10_0000),
                (0x20_0000, 0x20_0000),
                (0x40_0000, 0x40_0000),
                (0x4000_0000, 0x4000_0000),
            ];
            let top = (0xffff_ffff_ffff_f000, 0x7_7000);
            assert_eq!(all(&ram, &tables, 0..!levels.kernel_half().0), (below.clone(), 0));
            assert_eq!(all(&ram, &tables, levels.kernel_half().0..u64::MAX), (vec![top], 0));
            assert_eq!(all(&ram, &tables, 0x4000..0x6000), (below[1..2].to_vec(), 0));
            assert_eq!(all(&ram, &tables, 0..u64::MAX), ([below, vec![top]].concat(), 0));
        }
    }

    #[test]
    fn a_table_that_is_missing_is_counted_and_one_that_leads_back_up_ends() {
        let (mut ram, tables) = tables(Levels::Four);
        ram.put(1, 1, 0x50 << 12 | TABLE);
        let (found, lost) = all(&ram, &tables, 0..u64::MAX);
        assert_eq!((found.len(), lost), (7, 1));
        let mut round = Ram::default();
        for index in 0..512 {
            // Each entry leads to the same table: to be followed once at each level.
            round.put(1, index, 1 << 12 | TABLE);
        }
        assert_eq!(all(&round, &tables, 0..u64::MAX).0.len(), 512);
    }
}
