//! What every reader of one subsystem needs, in one hand.

use super::describe::Description;
use super::percpu::PerCpu;
use super::value::{self, Slot};
use super::variable::Variables;
use super::walk::{Walk, WalkEnd};
use super::{Gap, list};
use crate::addr::KVirtAddr;
use crate::limits::Limits;
use crate::sym::Symbols;
use crate::sym::btf::{Struct, TypeError, Types};
use crate::xlat::KernelMemory;

/// Bytes of a name.
const NAME: usize = 256;

/// A kernel whose structures are read.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a, 'm> {
    /// Its memory.
    pub memory: &'a KernelMemory<'m>,
    /// Its types.
    pub types: &'a Types,
    /// Its symbols.
    pub symbols: &'a Symbols,
    /// Where its per-CPU variables are.
    pub per_cpu: &'a PerCpu,
    /// Ceilings.
    pub limits: &'a Limits,
    /// Bytes of a page.
    pub page_size: u64,
}

impl<'a, 'm> Reader<'a, 'm> {
    /// A reader of the kernel that described itself so.
    #[must_use]
    pub fn new(
        memory: &'a KernelMemory<'m>,
        description: &'a Description,
        per_cpu: &'a PerCpu,
        limits: &'a Limits,
        page_size: u64,
    ) -> Self {
        let Description { types, symbols, .. } = description;
        Self { memory, types, symbols, per_cpu, limits, page_size }
    }

    /// What a code address is called: `name`, `name+0x10`, with its module behind; the number where nothing tells.
    #[must_use]
    pub fn function(self, address: KVirtAddr) -> String {
        let Some(at) = self.symbols.at(address) else { return format!("{:#x}", address.0) };
        let offset = if at.offset == 0 { String::new() } else { format!("+{:#x}", at.offset) };
        let module = at.symbol.module.as_ref().map(|m| format!(" [{m}]")).unwrap_or_default();
        format!("{}{offset}{module}", at.symbol.name)
    }

    /// The text at a pointer; `None` for a null pointer or text that can't be read.
    #[must_use]
    pub fn text(self, at: KVirtAddr) -> Option<String> {
        if at.is_null() {
            return None;
        }
        value::read_text(self.memory, at, NAME).ok()
    }

    /// The objects of a list whose head is the variable `name`; each object has its node at `inside`.
    ///
    /// # Errors
    /// Where the variable is not known.
    pub fn objects(
        self,
        name: &'static str,
        of: &'static str,
        inside: &str,
    ) -> Result<Walk<KVirtAddr>, String> {
        let head = self.symbols.address(name).ok_or_else(|| format!("no symbol {name} is known"))?;
        let inside = self.offset(of, inside)?;
        Ok(self.list(head, inside, self.limits.walk_items))
    }

    /// The objects of the list at `head`; each has its node `inside` bytes from its start.
    #[must_use]
    pub fn list(self, head: KVirtAddr, inside: u64, limit: usize) -> Walk<KVirtAddr> {
        list::walk(self.memory, head, limit).map(|node| KVirtAddr(node.0.wrapping_sub(inside)))
    }

    /// Where a member is in a structure.
    ///
    /// # Errors
    /// Where the types have no such member.
    pub fn offset(self, of: &str, member: &str) -> Result<u64, String> {
        let settled = || Ok::<_, TypeError>(self.types.structure(of)?.member(member)?.offset());
        settled().map_err(|why| why.to_string())
    }

    /// A mask of CPUs that a structure has as a member: in it, or behind a pointer (`CONFIG_CPUMASK_OFFSTACK`).
    ///
    /// # Errors
    /// Where it can't be read.
    pub fn cpumask(self, object: KVirtAddr, of: Struct<'_>, paths: &[&str]) -> Result<Vec<usize>, String> {
        let member = of.member_of(paths).map_err(|why| why.to_string())?;
        let ty = member.ty().resolve().map_err(|why| why.to_string())?;
        let place = object.checked_add(member.offset()).ok_or("it is at the end of the address space")?;
        let at = if matches!(ty.kind(), crate::sym::btf::Kind::Pointer) {
            self.memory.read_ptr(place).map_err(|why| why.to_string())?
        } else {
            place
        };
        if at.is_null() {
            return Ok(Vec::new());
        }
        self.mask(at)
    }

    /// The bits of a mask of CPUs, as far as CPUs can exist.
    ///
    /// # Errors
    /// Where it can't be read.
    pub fn mask(self, at: KVirtAddr) -> Result<Vec<usize>, String> {
        let room = self.per_cpu.possible().last().map_or(0, |last| last.saturating_add(1));
        let mut found = Vec::new();
        for word in 0..room.min(self.limits.cpus).div_ceil(64) {
            let place = u64::try_from(word.saturating_mul(8)).ok().and_then(|o| at.checked_add(o));
            let place = place.ok_or("it is at the end of the address space")?;
            let bits = self.memory.read_u64(place).map_err(|why| why.to_string())?;
            let base = word.saturating_mul(64);
            let set = (0..64_usize).filter(|bit| bits >> bit & 1 == 1).map(|bit| base.saturating_add(bit));
            found.extend(set.filter(|cpu| *cpu < room));
        }
        Ok(found)
    }

    /// A number in an object by its member; `None` where the types do not know it or it can't be read.
    #[must_use]
    pub fn field(self, object: KVirtAddr, of: Struct<'_>, paths: &[&str]) -> Option<u64> {
        let slot = Slot::new(of.member_of(paths).ok()?).ok()?;
        value::read_number(self.memory, object, &slot).ok()
    }

    pub(crate) fn variables(self) -> Variables<'a, 'm> {
        Variables::new(self.memory, self.symbols)
    }

    /// Where a member is; the newest name first.
    pub(crate) fn slot(self, of: &str, paths: &[&str]) -> Result<Slot, String> {
        let found = self.types.structure(of).and_then(|s| s.member_of(paths)).and_then(Slot::new);
        found.map_err(|why| why.to_string())
    }

    pub(crate) fn number(self, at: KVirtAddr, slot: &Slot) -> Result<u64, String> {
        value::read_number(self.memory, at, slot).map_err(|why| why.to_string())
    }

    pub(crate) fn member(self, at: KVirtAddr, of: &str, paths: &[&str]) -> Result<u64, String> {
        self.number(at, &self.slot(of, paths)?)
    }

    /// The place of an enumerator that is an index; the newest name first.
    pub(crate) fn index(self, of: &str, names: &[&str]) -> Option<u64> {
        let list = self.types.enumeration(of).ok()?;
        names.iter().find_map(|name| u64::try_from(list.value(name).ok()?).ok())
    }

    /// The number behind `at` in an array of `unsigned long`.
    pub(crate) fn long(self, at: KVirtAddr, index: u64) -> Result<i64, String> {
        let at =
            index.checked_mul(8).and_then(|skip| at.checked_add(skip)).ok_or("the place is past 2^64")?;
        self.memory.read_u64(at).map(u64::cast_signed).map_err(|why| why.to_string())
    }

    pub(crate) fn bytes(self, pages: u64) -> u64 {
        pages.saturating_mul(self.page_size)
    }

    pub(crate) fn pages(self, bytes: u64) -> u64 {
        bytes.checked_div(self.page_size).unwrap_or_default()
    }
}

/// How a `struct percpu_counter` is read, with what the CPUs hold of it. Each process has four of them.
pub(crate) struct PerCpuCounter {
    count: Slot,
    counters: Slot,
}

impl PerCpuCounter {
    pub(crate) fn new(reader: &Reader<'_, '_>) -> Result<Self, String> {
        let slot = |member| reader.slot("percpu_counter", &[member]);
        Ok(Self { count: slot("count")?, counters: slot("counters")? })
    }

    pub(crate) fn read(&self, reader: &Reader<'_, '_>, at: KVirtAddr) -> Result<i64, String> {
        let mut sum = reader.number(at, &self.count)?.cast_signed();
        let parts = KVirtAddr(reader.number(at, &self.counters)?);
        if parts.is_null() {
            return Ok(sum);
        }
        for cpu in reader.per_cpu.possible() {
            let at = reader.per_cpu.address(parts, *cpu).map_err(|why| why.to_string())?;
            let part = reader.memory.read_u32(at).map_err(|why| why.to_string())?;
            sum = sum.saturating_add(i64::from(part.cast_signed()));
        }
        Ok(sum)
    }
}

/// Notes that a walk did not come to its end.
pub(super) fn note_end(gaps: &mut Vec<Gap>, what: &str, end: &WalkEnd) {
    if !end.is_complete() {
        gaps.push(Gap { what: what.into(), why: end.to_string() });
    }
}

/// Notes that something could not be had.
pub(super) fn note(gaps: &mut Vec<Gap>, what: &str, why: impl std::fmt::Display) {
    gaps.push(Gap { what: what.into(), why: why.to_string() });
}
