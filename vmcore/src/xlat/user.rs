//! A process's memory, through its own page tables.

use super::leaves::Leaves;
use super::memory::KernelMemory;
use super::tables::TableCache;
use super::x86_64::{Leaf, PageTables};
use crate::addr::{KVirtAddr, PhysAddr, UVirtAddr};
use crate::error::MemError;

/// The memory of one process. It keeps the few tables that it needs to itself, so that many processes do not push the
/// kernel's tables out of their store.
pub struct UserMemory<'k, 'm> {
    kernel: &'k KernelMemory<'m>,
    tables: PageTables,
    cache: TableCache,
}

impl std::fmt::Debug for UserMemory<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserMemory").field("tables", &self.tables).finish_non_exhaustive()
    }
}

impl<'k, 'm> UserMemory<'k, 'm> {
    /// The process whose PGD (`mm_struct.pgd`) is at `pgd`.
    ///
    /// # Errors
    /// Where `pgd` leads nowhere, or the depth of the machine's tables is not known.
    pub fn new(kernel: &'k KernelMemory<'m>, pgd: KVirtAddr) -> Result<Self, MemError> {
        let unknown = MemError::NotMapped { kaddr: pgd, level: "the page tables are not known" };
        let like = kernel.translation().tables.ok_or(unknown)?;
        let root = kernel.translate(pgd)?.paddr;
        Ok(Self { kernel, tables: PageTables { root, ..like }, cache: TableCache::default() })
    }

    /// Where an address leads, and how many bytes from there on lie in the same order.
    ///
    /// # Errors
    /// As [`KernelMemory::translate`]; a page that was swapped out is [`MemError::NotMapped`] too.
    pub fn translate(&self, at: UVirtAddr) -> Result<(PhysAddr, u64), MemError> {
        let leaf = self.tables.walk(self.kernel.physical(), &self.cache, KVirtAddr(at.0))?;
        Ok((leaf.paddr, leaf.run))
    }

    /// Gives each of the process's mappings to `visit`, as [`KernelMemory::leaves`] does the kernel's.
    pub(crate) fn leaves(&self, stop: &dyn Fn() -> bool, visit: &mut dyn FnMut(u64, Leaf)) -> u64 {
        let lower_half = 0..!self.tables.levels.kernel_half().0;
        Leaves::new(&self.tables, self.kernel.physical(), lower_half, stop).each(visit)
    }

    /// Fills `buf` from `at` on, or fails with the first reason and says how many bytes are filled.
    ///
    /// # Errors
    /// As [`KernelMemory::read`], behind the bytes that are there.
    pub fn read(&self, at: UVirtAddr, buf: &mut [u8]) -> Result<(), (usize, MemError)> {
        let (mut from, mut done) = (at, 0_usize);
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let (paddr, run) = self.translate(from).map_err(|why| (done, why))?;
            let here = usize::try_from(run).unwrap_or(usize::MAX).min(rest.len()).max(1);
            let Some(now) = rest.get_mut(..here) else { break };
            let page = |source| (done, MemError::Page { kaddr: KVirtAddr(from.0), source });
            self.kernel.physical().read(paddr, now).map_err(page)?;
            done = done.saturating_add(here);
            from = UVirtAddr(from.0.wrapping_add(u64::try_from(here).unwrap_or(u64::MAX)));
        }
        Ok(())
    }
}
