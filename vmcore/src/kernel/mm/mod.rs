//! How the kernel's memory is used: the counters behind `/proc/meminfo`, the zones, and what each process has.
//!
//! Members, enumerators and their places come from the dump's types. A counter that can't be read is a [`Gap`](super::Gap), never a zero.

pub mod counters;
pub mod huge;
pub mod process;
pub mod swap;
pub mod vmalloc;
pub mod zone;

use super::describe::Description;
use super::percpu::PerCpu;
use super::value::{Slot, read_number};
use super::variable::Variables;
use crate::addr::KVirtAddr;
use crate::limits::Limits;
use crate::sym::btf::Types;
use crate::xlat::KernelMemory;

/// What the readers of memory management need.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a, 'm> {
    /// The dumped kernel's memory.
    pub memory: &'a KernelMemory<'m>,
    /// Its symbols and types.
    pub description: &'a Description,
    /// Its CPUs.
    pub per_cpu: &'a PerCpu,
    /// Ceilings.
    pub limits: &'a Limits,
    /// Bytes of a page.
    pub page_size: u64,
}

impl<'a, 'm> Source<'a, 'm> {
    pub(crate) fn types(&self) -> &'a Types {
        &self.description.types
    }

    pub(crate) fn variables(&self) -> Variables<'a, 'm> {
        Variables::new(self.memory, &self.description.symbols)
    }

    /// Where a member is; the newest name first.
    pub(crate) fn slot(&self, of: &str, paths: &[&str]) -> Result<Slot, String> {
        let found = self.types().structure(of).and_then(|s| s.member_of(paths)).and_then(Slot::new);
        found.map_err(|why| why.to_string())
    }

    /// Where a member begins, of whatever type it is; `None` where the types don't tell.
    pub(crate) fn slot_offset(&self, of: &str, path: &str) -> Option<u64> {
        Some(self.types().structure(of).ok()?.member(path).ok()?.offset())
    }

    pub(crate) fn number(&self, at: KVirtAddr, slot: &Slot) -> Result<u64, String> {
        read_number(self.memory, at, slot).map_err(|why| why.to_string())
    }

    pub(crate) fn member(&self, at: KVirtAddr, of: &str, paths: &[&str]) -> Result<u64, String> {
        self.number(at, &self.slot(of, paths)?)
    }

    /// The place of an enumerator that is an index; the newest name first.
    pub(crate) fn index(&self, of: &str, names: &[&str]) -> Option<u64> {
        let list = self.types().enumeration(of).ok()?;
        names.iter().find_map(|name| u64::try_from(list.value(name).ok()?).ok())
    }

    /// The number behind `at` in an array of `unsigned long`.
    pub(crate) fn long(&self, at: KVirtAddr, index: u64) -> Result<i64, String> {
        let at =
            index.checked_mul(8).and_then(|skip| at.checked_add(skip)).ok_or("the place is past 2^64")?;
        self.memory.read_u64(at).map(u64::cast_signed).map_err(|why| why.to_string())
    }

    /// A `struct percpu_counter` with what the CPUs hold of it.
    pub(crate) fn percpu_counter(&self, at: KVirtAddr) -> Result<i64, String> {
        let mut sum = self.member(at, "percpu_counter", &["count"])?.cast_signed();
        let parts = KVirtAddr(self.member(at, "percpu_counter", &["counters"])?);
        if parts.is_null() {
            return Ok(sum);
        }
        for cpu in self.per_cpu.possible() {
            let at = self.per_cpu.address(parts, *cpu).map_err(|why| why.to_string())?;
            let part = self.memory.read_u32(at).map_err(|why| why.to_string())?;
            sum = sum.saturating_add(i64::from(part.cast_signed()));
        }
        Ok(sum)
    }

    pub(crate) fn bytes(&self, pages: u64) -> u64 {
        pages.saturating_mul(self.page_size)
    }

    pub(crate) fn pages(&self, bytes: u64) -> u64 {
        bytes.checked_div(self.page_size).unwrap_or_default()
    }
}
