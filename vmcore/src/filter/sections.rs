//! Where the `struct page` of a frame is: `mem_section`, which the kernel describes in VMCOREINFO.

use crate::addr::KVirtAddr;
use crate::format::vmcoreinfo::Vmcoreinfo;
use crate::xlat::KernelMemory;

/// `SECTION_MARKED_PRESENT | SECTION_HAS_MEM_MAP`.
const PRESENT: u64 = 3;
/// Bits of `section_mem_map` that are flags: the array of pages is aligned to far more.
const FLAGS: u64 = 0xfff;

/// The way from a frame to its `struct page`.
#[derive(Clone, Debug)]
pub(super) struct Sections {
    roots: KVirtAddr,
    roots_count: u64,
    per_root: u64,
    entry_size: u64,
    map_offset: u64,
    pfn_shift: u32,
    page_struct: u64,
}

impl Sections {
    /// Learns the way, and checks it at `witness`, a frame of RAM.
    pub(super) fn find(memory: &KernelMemory<'_>, info: &Vmcoreinfo, witness: u64) -> Result<Self, String> {
        let no = |what: &str| format!("VMCOREINFO does not tell {what}");
        let symbol = info.symbol("mem_section").ok_or_else(|| no("where mem_section is"))?;
        let roots_count = info.length("mem_section").ok_or_else(|| no("how long mem_section is"))?;
        let entry_size = info.size("mem_section").filter(|size| *size >= 8);
        let entry_size = entry_size.ok_or_else(|| no("how large a mem_section is"))?;
        let map_offset =
            info.offset("mem_section.section_mem_map").ok_or_else(|| no("mem_section.section_mem_map"))?;
        let bits = info.number("SECTION_SIZE_BITS").and_then(|bits| u32::try_from(bits).ok());
        let page_size = memory.physical().page_size();
        let pfn_shift = bits
            .and_then(|bits| bits.checked_sub(page_size.trailing_zeros()))
            .filter(|shift| (1..=32).contains(shift))
            .ok_or_else(|| no("SECTION_SIZE_BITS"))?;
        let page_struct = info
            .size("page")
            .filter(|size| (32..=512).contains(size))
            .ok_or_else(|| no("how large a struct page is"))?;
        let per_root = page_size.checked_div(entry_size).filter(|per| *per > 0).unwrap_or(1);
        let this =
            |roots| Self { roots, roots_count, per_root, entry_size, map_offset, pfn_shift, page_struct };
        // VMCOREINFO has the pointer's value since 4.15 (kernel commit 83e3c48729d9), its address in some trees.
        let mut tries = vec![symbol];
        tries.extend(memory.read_ptr(symbol).ok());
        let good = |found: &Self| {
            let Some(page) = found.page(memory, witness) else { return false };
            let mut bytes = [0; 8];
            memory.read(page, &mut bytes).is_ok()
        };
        tries
            .into_iter()
            .map(this)
            .find(good)
            .ok_or_else(|| format!("mem_section at {symbol} leads to no struct page for pfn {witness:#x}"))
    }

    /// How many bytes a `struct page` has.
    pub(super) fn page_struct(&self) -> u64 {
        self.page_struct
    }

    /// The first frame behind the section of `pfn`.
    pub(super) fn end_of(&self, pfn: u64) -> u64 {
        let next = pfn.wrapping_shr(self.pfn_shift).saturating_add(1);
        next.checked_shl(self.pfn_shift).unwrap_or(u64::MAX)
    }

    /// Where the `struct page` of a frame is.
    pub(super) fn page(&self, memory: &KernelMemory<'_>, pfn: u64) -> Option<KVirtAddr> {
        let section = pfn.wrapping_shr(self.pfn_shift);
        let root = section.checked_div(self.per_root)?;
        if root >= self.roots_count {
            return None;
        }
        let entries = memory.read_ptr(self.roots.checked_add(root.checked_mul(8)?)?).ok()?;
        if entries.is_null() {
            return None;
        }
        let inside = section.checked_rem(self.per_root)?.checked_mul(self.entry_size)?;
        let map = memory.read_u64(entries.checked_add(inside)?.checked_add(self.map_offset)?).ok()?;
        if map & PRESENT != PRESENT {
            return None;
        }
        // The pointer has the section's first frame taken away from it, so that any frame counts from it.
        let base = map & !FLAGS;
        let at = KVirtAddr(base.wrapping_add(pfn.wrapping_mul(self.page_struct)));
        (at.0 >> 63 == 1).then_some(at)
    }
}
