//! A little memory that is addressed as the kernel does, with pages that can be taken away.

use std::collections::{BTreeMap, BTreeSet};

use vmcore::addr::{KVirtAddr, Pfn, PhysAddr};
use vmcore::error::PageError;
use vmcore::mem::{PageState, PhysicalMemory};
use vmcore::xlat::{KernelMemory, Linear, Translation};

/// Where physical address 0 is mapped, as an image and directly.
pub(crate) const TEXT: u64 = 0xffff_ffff_8000_0000;
pub(crate) const DIRECT: u64 = 0xffff_8880_0000_0000;

#[derive(Default, Clone)]
pub(crate) struct Ram {
    pages: BTreeMap<u64, Vec<u8>>,
    gone: BTreeSet<u64>,
}

fn physical(kaddr: u64) -> u64 {
    if kaddr >= TEXT { kaddr - TEXT } else { kaddr - DIRECT }
}

impl Ram {
    pub(crate) fn put(&mut self, kaddr: u64, bytes: &[u8]) {
        for (at, byte) in (physical(kaddr)..).zip(bytes) {
            self.pages.entry(at >> 12).or_insert_with(|| vec![0; 4096])[(at & 4095) as usize] = *byte;
        }
    }

    pub(crate) fn put_u64(&mut self, kaddr: u64, value: u64) {
        self.put(kaddr, &value.to_le_bytes());
    }

    /// The page of this address is left out of the dump.
    pub(crate) fn lose(&mut self, kaddr: u64) {
        self.gone.insert(physical(kaddr) >> 12);
    }

    pub(crate) fn memory(&self) -> KernelMemory<'_> {
        let text = Some(Translation::x86_64_text(0));
        let direct = Some(Linear { start: KVirtAddr(DIRECT), paddr: PhysAddr(0), len: 1 << 40 });
        KernelMemory::new(self, Translation { tables: None, text, direct })
    }
}

impl PhysicalMemory for Ram {
    fn page_size(&self) -> u64 {
        4096
    }

    fn end_pfn(&self) -> Pfn {
        Pfn(1 << 28)
    }

    fn state(&self, pfn: Pfn) -> PageState {
        match (self.gone.contains(&pfn.0), self.pages.contains_key(&pfn.0)) {
            (true, _) => PageState::Excluded,
            (_, true) => PageState::Present,
            _ => PageState::Hole,
        }
    }

    fn read(&self, paddr: PhysAddr, buf: &mut [u8]) -> Result<(), PageError> {
        let (mut at, mut rest) = (paddr.0, buf);
        while !rest.is_empty() {
            let pfn = Pfn(at >> 12);
            if self.gone.contains(&pfn.0) {
                return Err(PageError::Excluded { pfn, level: 31 });
            }
            let page = self.pages.get(&pfn.0).ok_or(PageError::Hole { pfn })?;
            let from = (at & 4095) as usize;
            let here = rest.len().min(4096 - from);
            let (now, later) = rest.split_at_mut(here);
            now.copy_from_slice(&page[from..from + here]);
            rest = later;
            at += here as u64;
        }
        Ok(())
    }
}
