//! The dumped kernel's memory by virtual address.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::le;
use super::leaves::Leaves;
use super::tables::TableCache;
use super::x86_64::{self, PageTables};
use crate::addr::{KVirtAddr, PhysAddr};
use crate::error::MemError;
use crate::mem::PhysicalMemory;

/// The piece in which a lossy read is tried again: the smallest page of any architecture.
const PIECE: u64 = 4096;

/// A stretch of virtual addresses behind which physical memory lies in the same order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linear {
    /// Its first byte.
    pub start: KVirtAddr,
    /// The physical address of that byte. It may wrap below zero (`phys_base` can be negative).
    pub paddr: PhysAddr,
    /// Its length in bytes.
    pub len: u64,
}

impl Linear {
    fn map(&self, kaddr: KVirtAddr) -> Option<Mapping> {
        let offset = kaddr.0.checked_sub(self.start.0).filter(|o| *o < self.len)?;
        let paddr = PhysAddr(self.paddr.0.wrapping_add(offset));
        Some(Mapping { paddr, run: self.len.saturating_sub(offset), way: Way::Linear })
    }
}

/// How an address was translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// By the page tables.
    PageTables,
    /// By a linear mapping, because the tables are not known or not in the dump. A hole in that mapping goes unseen.
    Linear,
}

/// Where an address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The byte asked for.
    pub paddr: PhysAddr,
    /// How many bytes from there on lie in the same order; at least 1.
    pub run: u64,
    /// How that is known.
    pub way: Way,
}

/// All that is known of the dumped kernel's address space. Other architectures get their own tables beside those of `x86_64`.
#[derive(Clone, Debug, Default)]
pub struct Translation {
    /// The kernel's page tables, where their root is known and agrees with what else is known.
    pub tables: Option<PageTables>,
    /// The mapping of the kernel's text and static data.
    pub text: Option<Linear>,
    /// The direct map of all RAM.
    pub direct: Option<Linear>,
}

impl Translation {
    /// The text mapping of an `x86_64` kernel that lies `phys_base` from its default place.
    #[must_use]
    pub fn x86_64_text(phys_base: u64) -> Linear {
        Linear {
            start: x86_64::START_KERNEL_MAP,
            paddr: PhysAddr(phys_base),
            len: x86_64::KERNEL_IMAGE_BYTES,
        }
    }
}

/// A part of a lossy read that could not be had.
#[derive(Debug)]
pub struct Missing {
    /// Which bytes of the read.
    pub range: Range<usize>,
    /// Why.
    pub why: MemError,
}

/// What a lossy read brings: the bytes, and which of them are not real.
#[derive(Debug, Default)]
pub struct Sparse {
    /// As many bytes as were asked for. Those in [`Self::missing`] are zeros that the dump does not have.
    pub bytes: Vec<u8>,
    /// What could not be had, in ascending order.
    pub missing: Vec<Missing>,
}

/// The dumped kernel's memory by virtual address. Shared by threads.
pub struct KernelMemory<'m> {
    mem: &'m dyn PhysicalMemory,
    translation: Translation,
    cache: TableCache,
    stand_ins: AtomicU64,
}

impl std::fmt::Debug for KernelMemory<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KernelMemory").field("translation", &self.translation).finish_non_exhaustive()
    }
}

impl<'m> KernelMemory<'m> {
    /// Memory seen through a translation.
    #[must_use]
    pub fn new(mem: &'m dyn PhysicalMemory, translation: Translation) -> Self {
        Self { mem, translation, cache: TableCache::default(), stand_ins: AtomicU64::new(0) }
    }

    /// The physical memory below.
    #[must_use]
    pub fn physical(&self) -> &'m dyn PhysicalMemory {
        self.mem
    }

    /// How addresses are translated.
    #[must_use]
    pub fn translation(&self) -> &Translation {
        &self.translation
    }

    /// How many translations a linear mapping had to give because a page table is not in the dump.
    #[must_use]
    pub fn stand_ins(&self) -> u64 {
        self.stand_ins.load(Ordering::Relaxed)
    }

    /// Where an address leads.
    ///
    /// # Errors
    /// [`MemError::NotMapped`] where the tables map nothing, or where neither tables nor a linear mapping are known for it;
    /// [`MemError::Table`] where a table is not in the dump and no linear mapping covers the address.
    pub fn translate(&self, kaddr: KVirtAddr) -> Result<Mapping, MemError> {
        let Some(tables) = &self.translation.tables else {
            let unknown = MemError::NotMapped { kaddr, level: "the page tables are not known" };
            return self.linear(kaddr).ok_or(unknown);
        };
        match tables.walk(self.mem, &self.cache, kaddr) {
            Ok(leaf) => Ok(Mapping { paddr: leaf.paddr, run: leaf.run, way: Way::PageTables }),
            Err(lost @ MemError::Table { .. }) => {
                let mapping = self.linear(kaddr).ok_or(lost)?;
                self.stand_ins.fetch_add(1, Ordering::Relaxed);
                Ok(mapping)
            }
            Err(e) => Err(e),
        }
    }

    fn linear(&self, kaddr: KVirtAddr) -> Option<Mapping> {
        let text = self.translation.text.as_ref().and_then(|l| l.map(kaddr));
        text.or_else(|| self.translation.direct.as_ref().and_then(|l| l.map(kaddr)))
    }

    /// The direct map's address of a physical byte, where the direct map is known.
    #[must_use]
    pub fn direct_map(&self, paddr: PhysAddr) -> Option<KVirtAddr> {
        let direct = self.translation.direct.as_ref()?;
        let offset = paddr.0.checked_sub(direct.paddr.0).filter(|o| *o < direct.len)?;
        direct.start.checked_add(offset)
    }

    /// Gives each mapping of the kernel's half but the direct map to `visit`, in the order of addresses: the first one, where that
    /// leads, and how many bytes. Says how many tables could not be followed; `None` where there are none.
    pub(crate) fn leaves(
        &self,
        stop: &dyn Fn() -> bool,
        visit: &mut dyn FnMut(u64, x86_64::Leaf),
    ) -> Option<u64> {
        let tables = self.translation.tables.as_ref()?;
        let first = tables.levels.kernel_half().0;
        let skip = self
            .translation
            .direct
            .as_ref()
            .map_or(first..first, |direct| direct.start.0..direct.start.0.saturating_add(direct.len));
        let parts = [first..skip.start, skip.end..u64::MAX];
        Some(
            parts
                .into_iter()
                .map(|part| Leaves::new(tables, self.mem, part, stop).each(visit))
                .fold(0, u64::saturating_add),
        )
    }

    /// The lowest mapped address of the kernel's half.
    pub(crate) fn first_kernel_leaf(&self) -> Option<(KVirtAddr, x86_64::Leaf)> {
        self.translation.tables.as_ref()?.first_kernel_leaf(self.mem, &self.cache)
    }

    /// Fills `buf` from `kaddr` on, across pages where needed, or fails with the first reason.
    ///
    /// # Errors
    /// Each way in which memory can be not there; `buf` is then partly filled.
    pub fn read(&self, kaddr: KVirtAddr, buf: &mut [u8]) -> Result<(), MemError> {
        let len = u64::try_from(buf.len()).unwrap_or(u64::MAX);
        // The last byte of the address space may be read; the one after it does not exist.
        if kaddr.0.checked_add(len.saturating_sub(1)).is_none() {
            return Err(MemError::OutOfRange { kaddr, len });
        }
        let (mut at, mut rest) = (kaddr, buf);
        while !rest.is_empty() {
            let mapping = self.translate(at)?;
            let here = usize::try_from(mapping.run).unwrap_or(usize::MAX).min(rest.len()).max(1);
            let (now, later) = rest.split_at_mut(here);
            self.mem.read(mapping.paddr, now).map_err(|source| MemError::Page { kaddr: at, source })?;
            rest = later;
            at = KVirtAddr(at.0.wrapping_add(u64::try_from(here).unwrap_or(u64::MAX)));
        }
        Ok(())
    }

    /// Reads what is there and says what is not. The caller bounds `len`.
    #[must_use]
    pub fn read_sparse(&self, kaddr: KVirtAddr, len: usize) -> Sparse {
        let mut sparse = Sparse::default();
        self.read_sparse_into(kaddr, len, &mut sparse);
        sparse
    }

    /// As [`Self::read_sparse`], into what was read before.
    pub(crate) fn read_sparse_into(&self, kaddr: KVirtAddr, len: usize, sparse: &mut Sparse) {
        sparse.missing.clear();
        sparse.bytes.resize(len, 0);
        if len == 0 || self.read(kaddr, &mut sparse.bytes).is_ok() {
            return;
        }
        sparse.bytes.fill(0);
        let mut done = 0_usize;
        while let Some(rest) = sparse.bytes.get_mut(done..).filter(|r| !r.is_empty()) {
            let at = KVirtAddr(kaddr.0.wrapping_add(u64::try_from(done).unwrap_or(u64::MAX)));
            let piece = PIECE.saturating_sub(at.0 & PIECE.saturating_sub(1));
            let here = usize::try_from(piece).unwrap_or(usize::MAX).min(rest.len()).max(1);
            let end = done.saturating_add(here);
            if let Some(buf) = rest.get_mut(..here)
                && let Err(why) = self.read(at, buf)
            {
                buf.fill(0);
                match sparse.missing.last_mut() {
                    Some(last) if last.range.end == done => last.range.end = end,
                    _ => sparse.missing.push(Missing { range: done..end, why }),
                }
            }
            done = end;
        }
    }

    /// One byte.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_u8(&self, kaddr: KVirtAddr) -> Result<u8, MemError> {
        let mut buf = [0; 1];
        self.read(kaddr, &mut buf)?;
        Ok(u8::from_le_bytes(buf))
    }

    /// A `u16`.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_u16(&self, kaddr: KVirtAddr) -> Result<u16, MemError> {
        let mut buf = [0; 2];
        self.read(kaddr, &mut buf)?;
        Ok(u16::from_le_bytes(buf))
    }

    /// A `u32`.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_u32(&self, kaddr: KVirtAddr) -> Result<u32, MemError> {
        let mut buf = [0; 4];
        self.read(kaddr, &mut buf)?;
        Ok(u32::from_le_bytes(buf))
    }

    /// A `u64`.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_u64(&self, kaddr: KVirtAddr) -> Result<u64, MemError> {
        let mut buf = [0; 8];
        self.read(kaddr, &mut buf)?;
        Ok(u64::from_le_bytes(buf))
    }

    /// A pointer.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_ptr(&self, kaddr: KVirtAddr) -> Result<KVirtAddr, MemError> {
        self.read_u64(kaddr).map(KVirtAddr)
    }

    /// The bytes up to a NUL, or the first `max` where none comes. A page that is not there ends the text only if the NUL is not before it.
    ///
    /// # Errors
    /// As [`Self::read`], where the text runs into memory that is not there.
    pub fn read_cstr(&self, kaddr: KVirtAddr, max: usize) -> Result<Vec<u8>, MemError> {
        let mut text = Vec::new();
        let mut at = kaddr;
        while text.len() < max {
            let to_page_end = PIECE.saturating_sub(at.0 & PIECE.saturating_sub(1));
            let len =
                usize::try_from(to_page_end).unwrap_or(max).min(max.saturating_sub(text.len())).min(256);
            let mut buf = [0; 256];
            let Some(piece) = buf.get_mut(..len) else { break };
            self.read(at, piece)?;
            if let Some(end) = piece.iter().position(|b| *b == 0) {
                text.extend_from_slice(piece.get(..end).unwrap_or_default());
                return Ok(text);
            }
            text.extend_from_slice(piece);
            let step = u64::try_from(len).unwrap_or(u64::MAX);
            at = at.checked_add(step).ok_or(MemError::OutOfRange { kaddr, len: step })?;
        }
        Ok(text)
    }
}

impl Sparse {
    /// Why some of the bytes in `range` are not there, or `None` where all are.
    #[must_use]
    pub fn why_missing(&self, range: &Range<usize>) -> Option<&MemError> {
        self.missing.iter().find(|m| m.range.start < range.end && range.start < m.range.end).map(|m| &m.why)
    }

    /// The `u64` at `at`, where all its bytes are there.
    #[must_use]
    pub fn u64_at(&self, at: usize) -> Option<u64> {
        let end = at.checked_add(8)?;
        if self.why_missing(&(at..end)).is_some() { None } else { le::u64_at(&self.bytes, at) }
    }
}
