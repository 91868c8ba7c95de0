//! ORC tables in the dump's memory, read page by page as lookups need them.

use std::ops::Range;
use std::sync::OnceLock;

use zerocopy::FromBytes;

use crate::addr::KVirtAddr;
use crate::kernel::walk::WalkEnd;
use crate::raw::orc::OrcEntry;
use crate::xlat::KernelMemory;

const PAGE: u64 = 4096;
/// Bytes of one offset in the table of addresses.
const IP: u64 = 4;
/// Bytes of one entry.
const ENTRY: u64 = 6;
/// Bytes of code for which the kernel's own index has one entry (`LOOKUP_BLOCK_SIZE`, `arch/x86/include/asm/orc_lookup.h`).
pub(crate) const BLOCK: u64 = 256;
/// Entries of one table at most: the largest kernels have a million.
pub(super) const ENTRIES: u64 = 4 << 20;

/// Why a lookup has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lost {
    /// Which page of the table is missing.
    pub(super) at: KVirtAddr,
    /// Why.
    pub(super) why: String,
}

/// A stretch of memory, of which each page is read at most once.
struct Paged {
    start: u64,
    pages: Box<[OnceLock<Page>]>,
}

type Page = Result<Box<[u8]>, String>;

impl Paged {
    fn new(start: u64, bytes: u64) -> Option<Self> {
        let end = start.checked_add(bytes)?;
        let first = start & !PAGE.wrapping_sub(1);
        let count = end.checked_sub(first)?.div_ceil(PAGE);
        let pages = (0..count).map(|_| OnceLock::new()).collect();
        Some(Self { start, pages })
    }

    fn page(&self, memory: &KernelMemory<'_>, number: u64) -> Option<&Page> {
        let slot = self.pages.get(usize::try_from(number).ok()?)?;
        Some(slot.get_or_init(|| {
            let first = self.start & !PAGE.wrapping_sub(1);
            let at = KVirtAddr(first.wrapping_add(number.wrapping_mul(PAGE)));
            let mut bytes = vec![0; usize::try_from(PAGE).unwrap_or_default()];
            match memory.read(at, &mut bytes) {
                Ok(()) => Ok(bytes.into()),
                Err(why) => match WalkEnd::unreadable(at, &why) {
                    WalkEnd::Unreadable(_, why) => Err(why),
                    other => Err(other.to_string()),
                },
            }
        }))
    }

    /// The bytes from `offset` on.
    fn bytes<const N: usize>(&self, memory: &KernelMemory<'_>, offset: u64) -> Result<[u8; N], Lost> {
        let mut out = [0; N];
        let first = self.start & !PAGE.wrapping_sub(1);
        let mut at = self.start.wrapping_sub(first).wrapping_add(offset);
        for to in &mut out {
            let number = at >> 12;
            let lost = |why: &str| Lost {
                at: KVirtAddr(first.wrapping_add(number.wrapping_mul(PAGE))),
                why: why.to_owned(),
            };
            let page = self.page(memory, number).ok_or_else(|| lost("it is behind the table's end"))?;
            let page = page.as_ref().map_err(|why| lost(why))?;
            let within = usize::try_from(at & PAGE.wrapping_sub(1)).unwrap_or_default();
            *to = page.get(within).copied().unwrap_or_default();
            at = at.wrapping_add(1);
        }
        Ok(out)
    }

    /// Which bytes of the stretch lie on the same page as `offset`.
    fn same_page(&self, offset: u64) -> Range<u64> {
        let shift = self.start & PAGE.wrapping_sub(1);
        let first = shift.wrapping_add(offset) & !PAGE.wrapping_sub(1);
        first.saturating_sub(shift)..first.saturating_add(PAGE).saturating_sub(shift)
    }
}

/// The kernel's own index: for each block of its code the number of the entry that holds at its beginning.
pub(super) struct Index {
    /// Where the code begins.
    pub(super) text: u64,
    /// Where the numbers are.
    pub(super) slots: KVirtAddr,
    /// How many there are.
    pub(super) count: u64,
}

impl Index {
    /// The numbers of the entries that can hold at `pc`.
    fn around(&self, memory: &KernelMemory<'_>, pc: u64) -> Option<Range<u64>> {
        let block = pc.checked_sub(self.text)?.checked_div(BLOCK)?;
        let slot = |number: u64| {
            let at = self.slots.checked_add(number.checked_mul(4)?).filter(|_| number < self.count)?;
            memory.read_u32(at).ok().map(u64::from)
        };
        let (first, last) = (slot(block)?, slot(block.checked_add(1)?)?);
        (first <= last).then_some(first..last.saturating_add(1))
    }
}

/// One table: ascending addresses, and an entry for each.
pub(super) struct Table {
    ips: Paged,
    entries: Paged,
    count: u64,
    index: Option<Index>,
}

impl Table {
    /// The table of `count` entries with its two parts at these places; `None` where it can't be.
    pub(super) fn new(ips: KVirtAddr, entries: KVirtAddr, count: u64) -> Option<Self> {
        if count == 0 || count > ENTRIES {
            return None;
        }
        let (ip_bytes, entry_bytes) = (count.checked_mul(IP)?, count.checked_mul(ENTRY)?);
        let (ips, entries) = (Paged::new(ips.0, ip_bytes)?, Paged::new(entries.0, entry_bytes)?);
        Some(Self { ips, entries, count, index: None })
    }

    /// The same with an index, which saves most of the pages that a search looks at.
    pub(super) fn with_index(self, index: Option<Index>) -> Self {
        Self { index, ..self }
    }

    /// How many entries it has.
    pub(super) fn len(&self) -> u64 {
        self.count
    }

    /// From which address on entry `number` holds. It is written as the distance from where it is written.
    pub(super) fn ip(&self, memory: &KernelMemory<'_>, number: u64) -> Result<u64, Lost> {
        let offset = number.wrapping_mul(IP);
        let distance = i32::from_le_bytes(self.ips.bytes(memory, offset)?);
        Ok(self.ips.start.wrapping_add(offset).wrapping_add_signed(i64::from(distance)))
    }

    /// Entry `number`.
    pub(super) fn entry(&self, memory: &KernelMemory<'_>, number: u64) -> Result<OrcEntry, Lost> {
        let bytes: [u8; 6] = self.entries.bytes(memory, number.wrapping_mul(ENTRY))?;
        OrcEntry::read_from_bytes(&bytes)
            .map_err(|_| Lost { at: KVirtAddr(self.entries.start), why: "it is cut".into() })
    }

    /// The number of the last entry at or below `pc`; `None` where all are above it. A page that is missing is an error only where
    /// the answer is on it.
    pub(super) fn search(&self, memory: &KernelMemory<'_>, pc: u64) -> Result<Option<u64>, Lost> {
        let told = self
            .index
            .as_ref()
            .and_then(|index| index.around(memory, pc))
            .filter(|told| told.end <= self.count);
        // The index is believed where the entry that it leads to holds at `pc`, and the next one does not.
        if let Some(number) = told.and_then(|told| self.search_in(memory, pc, told).ok().flatten())
            && self.ip(memory, number).is_ok_and(|ip| ip <= pc)
            && (number.saturating_add(1) >= self.count
                || self.ip(memory, number.saturating_add(1)).is_ok_and(|ip| ip > pc))
        {
            return Ok(Some(number));
        }
        self.search_in(memory, pc, 0..self.count)
    }

    fn search_in(&self, memory: &KernelMemory<'_>, pc: u64, within: Range<u64>) -> Result<Option<u64>, Lost> {
        let (mut low, mut high) = (within.start, within.end);
        while low < high {
            let middle = low.midpoint(high);
            match self.ip(memory, middle) {
                Ok(ip) if ip <= pc => low = middle.saturating_add(1),
                Ok(_) => high = middle,
                Err(lost) => (low, high) = self.around(memory, pc, middle, low..high).ok_or(lost)?,
            }
        }
        Ok(low.checked_sub(1))
    }

    /// Where to go on searching when the page of entry `middle` is missing: below all pages that are missing in a row, or above
    /// them. `None` where neither can hold the answer.
    fn around(
        &self,
        memory: &KernelMemory<'_>,
        pc: u64,
        middle: u64,
        within: Range<u64>,
    ) -> Option<(u64, u64)> {
        let mut above = self.ips.same_page(middle.wrapping_mul(IP)).end.div_ceil(IP);
        while above < within.end {
            match self.ip(memory, above) {
                Ok(ip) if ip <= pc => return Some((above.saturating_add(1), within.end)),
                Ok(_) => break,
                Err(_) => above = self.ips.same_page(above.wrapping_mul(IP)).end.div_ceil(IP),
            }
        }
        let mut below = self.ips.same_page(middle.wrapping_mul(IP)).start / IP;
        while below > within.start {
            let last = below.checked_sub(1)?;
            match self.ip(memory, last) {
                Ok(ip) if ip > pc => return Some((within.start, last)),
                Ok(_) => return None,
                Err(_) => below = self.ips.same_page(last.wrapping_mul(IP)).start / IP,
            }
        }
        None
    }
}
