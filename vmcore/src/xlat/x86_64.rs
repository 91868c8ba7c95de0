//! `x86_64` page tables: 4 and 5 levels, pages of 4 KiB, 2 MiB and 1 GiB, memory encryption.
//!
//! Bits are those of the Intel SDM, volume 3, chapter 4; what Linux makes of non-present entries is in `arch/x86/include/asm/pgtable*.h`.

use super::le;
use super::tables::{Region, TableCache};
use crate::addr::{KVirtAddr, PhysAddr};
use crate::error::MemError;
use crate::mem::PhysicalMemory;

/// `__START_KERNEL_map`: the kernel's text and static data are mapped from here on, `phys_base` further in physical memory.
pub const START_KERNEL_MAP: KVirtAddr = KVirtAddr(0xffff_ffff_8000_0000);

/// `KERNEL_IMAGE_SIZE` with KASLR: the text mapping has never been larger. Modules follow it.
pub const KERNEL_IMAGE_BYTES: u64 = 1 << 30;

const PRESENT: u64 = 1;
/// In an entry above the PTE: it maps a page itself. In a PTE the same bit selects the PAT and says nothing of addresses.
const HUGE: u64 = 1 << 7;
/// In an entry that is not present: `_PAGE_PROTNONE`. The page exists; only the processor must not use the entry.
const PROTNONE: u64 = 1 << 8;
/// Bits 51 to 12. What stands above (software bits, protection keys, NX in 63) does not belong to the address.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// In a huge entry, bit 12 is the PAT bit and not part of the address.
const HUGE_PAT: u64 = 1 << 12;

/// How deep the tables are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Levels {
    /// PGD, PUD, PMD, PTE: 48-bit addresses.
    Four,
    /// PGD, P4D, PUD, PMD, PTE: 57-bit addresses (CR4.LA57).
    Five,
}

impl Levels {
    /// 4 or 5.
    #[must_use]
    pub fn count(self) -> u8 {
        match self {
            Self::Four => 4,
            Self::Five => 5,
        }
    }

    pub(super) fn tables(self) -> &'static [Level] {
        match self {
            Self::Four => &FOUR,
            Self::Five => &FIVE,
        }
    }

    /// The lowest address of the kernel's half.
    #[must_use]
    pub fn kernel_half(self) -> KVirtAddr {
        match self {
            Self::Four => KVirtAddr(0xffff_8000_0000_0000),
            Self::Five => KVirtAddr(0xff00_0000_0000_0000),
        }
    }

    /// The address with its highest used bit repeated above it.
    pub(super) fn canonical(self, at: u64) -> u64 {
        let unused = match self {
            Self::Four => 16,
            Self::Five => 7,
        };
        at.wrapping_shl(unused).cast_signed().wrapping_shr(unused).cast_unsigned()
    }

    /// True where the bits above the highest used one repeat it: any other address faults before a table is looked at.
    #[must_use]
    pub fn is_canonical(self, kaddr: KVirtAddr) -> bool {
        let top = match self {
            Self::Four => kaddr.0 >> 47,
            Self::Five => kaddr.0 >> 56,
        };
        let ones = match self {
            Self::Four => u64::MAX >> 47,
            Self::Five => u64::MAX >> 56,
        };
        top == 0 || top == ones
    }
}

/// One level of the tables.
#[derive(Debug)]
pub(super) struct Level {
    name: &'static str,
    /// What is said when the entry has bits set that the processor faults on.
    reserved: &'static str,
    shift: u32,
    may_be_huge: bool,
}

impl Level {
    /// How many addresses an entry stands for.
    pub(super) fn span(&self) -> u64 {
        1_u64.checked_shl(self.shift).unwrap_or(u64::MAX)
    }
}

const PTE: Level = Level { name: "PTE", reserved: "PTE", shift: 12, may_be_huge: false };
const PMD: Level =
    Level { name: "PMD", reserved: "PMD with reserved bits set", shift: 21, may_be_huge: true };
const PUD: Level =
    Level { name: "PUD", reserved: "PUD with reserved bits set", shift: 30, may_be_huge: true };
const P4D: Level =
    Level { name: "P4D", reserved: "P4D with reserved bits set", shift: 39, may_be_huge: false };
const PGD4: Level =
    Level { name: "PGD", reserved: "PGD with reserved bits set", shift: 39, may_be_huge: false };
const PGD5: Level =
    Level { name: "PGD", reserved: "PGD with reserved bits set", shift: 48, may_be_huge: false };
static FOUR: [Level; 4] = [PGD4, PUD, PMD, PTE];
static FIVE: [Level; 5] = [PGD5, P4D, PUD, PMD, PTE];
/// What is left where the upper levels are known.
static LAST: [Level; 1] = [PTE];

/// Where a set of page tables begins, and how to read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageTables {
    /// The PGD's first byte.
    pub root: PhysAddr,
    /// How deep they are.
    pub levels: Levels,
    /// Bits of an entry that mean «encrypted» and not an address (`sme_mask`); 0 without memory encryption.
    pub encryption_mask: u64,
}

/// Where an address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The byte asked for.
    pub paddr: PhysAddr,
    /// How many bytes from there on the same entry maps; at least 1.
    pub run: u64,
}

/// What an entry of a table leads to.
pub(super) enum Entry {
    Page(Leaf),
    Table(PhysAddr),
}

impl PageTables {
    /// Follows the tables.
    pub(crate) fn walk(
        &self,
        mem: &dyn PhysicalMemory,
        cache: &TableCache,
        kaddr: KVirtAddr,
    ) -> Result<Leaf, MemError> {
        if !self.levels.is_canonical(kaddr) {
            return Err(MemError::NotMapped { kaddr, level: "not a canonical address" });
        }
        let (levels, mut table) = match cache.region(kaddr) {
            Some(Region::Mapped(base, span)) => return Ok(leaf(kaddr, base, span)),
            Some(Region::Table(table)) => (&LAST[..], table),
            None => (self.levels.tables(), self.top()),
        };
        for level in levels {
            let bytes = cache.get(mem, table).map_err(|source| MemError::Table {
                kaddr,
                level: level.name,
                source,
            })?;
            let index = kaddr.0.checked_shr(level.shift).unwrap_or_default() & 0x1ff;
            let entry = usize::try_from(index)
                .ok()
                .and_then(|i| le::u64_at(bytes.as_slice(), i.saturating_mul(8)))
                .unwrap_or_default();
            match self.entry(mem, level, kaddr, entry)? {
                Entry::Page(leaf) => {
                    if level.shift != PTE.shift {
                        cache.keep_region(kaddr, Region::Mapped(leaf.paddr.0, level.span()));
                    }
                    return Ok(leaf);
                }
                Entry::Table(below) => {
                    table = below;
                    if level.shift == PMD.shift {
                        cache.keep_region(kaddr, Region::Table(table));
                    }
                }
            }
        }
        Err(MemError::NotMapped { kaddr, level: PTE.name })
    }

    /// Where the first table is.
    pub(super) fn top(&self) -> PhysAddr {
        PhysAddr(self.root.0 & ADDRESS & !self.encryption_mask)
    }

    /// What an entry says of an address: where that leads, or the next table.
    pub(super) fn entry(
        &self,
        mem: &dyn PhysicalMemory,
        level: &Level,
        kaddr: KVirtAddr,
        entry: u64,
    ) -> Result<Entry, MemError> {
        let span = level.span();
        if entry & PRESENT == 0 {
            return self.not_present(mem, kaddr, level, entry, span).map(Entry::Page);
        }
        let entry = entry & !self.encryption_mask;
        let is_page = level.shift == PTE.shift;
        if !is_page && entry & HUGE == 0 {
            return Ok(Entry::Table(PhysAddr(entry & ADDRESS)));
        }
        if !is_page && (!level.may_be_huge || has_reserved_bits(entry, span)) {
            return Err(MemError::NotMapped { kaddr, level: level.reserved });
        }
        Ok(Entry::Page(leaf(kaddr, entry & ADDRESS, span)))
    }

    /// A non-present entry maps nothing, but for `PROTNONE` (NUMA balancing, and kernel pages under `set_memory_np`).
    fn not_present(
        &self,
        mem: &dyn PhysicalMemory,
        kaddr: KVirtAddr,
        level: &Level,
        entry: u64,
        span: u64,
    ) -> Result<Leaf, MemError> {
        let leaf_level = level.shift == PTE.shift || (level.may_be_huge && entry & HUGE != 0);
        if entry & PROTNONE == 0 || !leaf_level {
            return Err(MemError::NotMapped { kaddr, level: level.name });
        }
        // Kernels with the L1TF mitigation (4.19, and stable kernels since August 2018) store the frame number inverted, older ones do not.
        // The one that lies in RAM is right: the other is near the top of the physical address space.
        let as_stored = leaf(kaddr, entry & ADDRESS & !self.encryption_mask, span);
        let inverted = leaf(kaddr, !entry & ADDRESS & !self.encryption_mask, span);
        let end = mem.end_pfn();
        let in_ram = |leaf: &Leaf| leaf.paddr.pfn(mem.page_size()).is_some_and(|pfn| pfn < end);
        Ok(if in_ram(&inverted) || !in_ram(&as_stored) { inverted } else { as_stored })
    }

    /// The lowest mapped address of the kernel's half and where it leads: the start of the direct map, or close behind it.
    /// `None` where no complete path of tables is readable.
    pub(crate) fn first_kernel_leaf(
        &self,
        mem: &dyn PhysicalMemory,
        cache: &TableCache,
    ) -> Option<(KVirtAddr, Leaf)> {
        let mut kaddr = self.levels.kernel_half();
        // Each step skips what one entry of the failing level spans, so at most 512 entries of each level are looked at.
        for _ in 0..(5 * 512) {
            let level = match self.walk(mem, cache, kaddr) {
                Ok(leaf) => return Some((kaddr, leaf)),
                Err(MemError::NotMapped { level, .. } | MemError::Table { level, .. }) => level,
                Err(_) => return None,
            };
            let spec = self.levels.tables().iter().find(|l| l.name == level || l.reserved == level)?;
            let span = 1_u64.checked_shl(spec.shift)?;
            kaddr = KVirtAddr((kaddr.0 | span.checked_sub(1)?).checked_add(1)?);
        }
        None
    }
}

/// A huge entry names an address aligned to its own size. The processor faults on any other.
fn has_reserved_bits(entry: u64, span: u64) -> bool {
    let below = span.saturating_sub(1) & ADDRESS & !HUGE_PAT;
    entry & below != 0
}

/// The byte inside the page or huge page at `base`, whose low bits may hold the PAT bit.
fn leaf(kaddr: KVirtAddr, base: u64, span: u64) -> Leaf {
    let inside = span.saturating_sub(1);
    let offset = kaddr.0 & inside;
    Leaf { paddr: PhysAddr((base & !inside) | offset), run: span.saturating_sub(offset) }
}
