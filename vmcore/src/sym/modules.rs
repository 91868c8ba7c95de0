//! The symbols of loaded modules: each module keeps its own table (`struct mod_kallsyms`), an array of ELF symbols.
//!
//! Which members `struct module` has decides where its memory is: `mem[]` (6.4 and later, and RHEL 9.5 and later), `core_layout`
//! and `init_layout` (4.5 and later). Facts: `include/linux/module.h` and `kernel/module/kallsyms.c`.

use std::ops::Range;
use std::sync::Arc;

use super::Symbol;
use super::btf::{Btf, Member, TypeError};
use crate::addr::KVirtAddr;
use crate::error::MemError;
use crate::limits::Limits;
use crate::xlat::{KernelMemory, le};

/// Bytes of `Elf64_Sym`.
const ELF_SYM: usize = 24;
/// Bytes of names of one module at most: the largest driver has about 1 MB of them.
const NAMES: usize = 4 << 20;
/// Symbols of one module at most: the largest driver has 60,000.
const SYMBOLS: usize = 1 << 18;
/// A name is cut here (`KSYM_NAME_LEN`).
const NAME: usize = 512;
/// A module's memory is never larger than the room that `x86_64` has for all of them.
const LARGEST: u64 = 2 << 30;

/// Where in `struct module` things are, settled once by which members it has.
#[derive(Clone, Debug)]
pub struct ModuleLayout {
    bytes: u64,
    name: Range<u64>,
    /// Where the base and the size of each part of its memory are.
    parts: Vec<(u64, Field)>,
    /// Where the per-CPU memory's place and size are.
    per_cpu: Option<(u64, Field)>,
    kallsyms: Option<u64>,
    table: Option<TableLayout>,
}

/// A number of 4 or 8 bytes.
#[derive(Clone, Copy, Debug)]
struct Field {
    offset: u64,
    bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct TableLayout {
    bytes: u64,
    symtab: u64,
    num_symtab: Field,
    strtab: u64,
    typetab: Option<u64>,
}

impl ModuleLayout {
    /// Where this kernel has them.
    ///
    /// # Errors
    /// When its `struct module` has no name or no memory that we know of.
    pub fn new(types: &Btf) -> Result<Self, TypeError> {
        let module = types.structure("module")?;
        let name = module.member("name")?;
        let field = |path: &str| -> Result<Field, TypeError> {
            let member = module.member(path)?;
            Ok(Field { offset: member.offset(), bytes: member.size()? })
        };
        let part = |base: &str, size: &str| Ok::<_, TypeError>((module.member(base)?.offset(), field(size)?));
        let mut parts = Vec::new();
        if let Ok(mem) = module.member("mem") {
            for number in 0..mem.count().unwrap_or_default().min(64) {
                parts.push(part(&format!("mem[{number}].base"), &format!("mem[{number}].size"))?);
            }
        } else {
            parts.push(
                part("core_layout.base", "core_layout.size").or_else(|_| part("module_core", "core_size"))?,
            );
            parts.extend(
                part("init_layout.base", "init_layout.size").or_else(|_| part("module_init", "init_size")),
            );
            // Split off the core by architectures that want data elsewhere (5.18 to 6.3).
            parts.extend(part("data_layout.base", "data_layout.size"));
        }
        let name_end = name.offset().saturating_add(name.size()?);
        Ok(Self {
            bytes: module.size(),
            name: name.offset()..name_end,
            parts,
            per_cpu: part("percpu", "percpu_size").ok(),
            kallsyms: module.member("kallsyms").ok().map(Member::offset),
            table: TableLayout::new(types).ok(),
        })
    }
}

impl TableLayout {
    fn new(types: &Btf) -> Result<Self, TypeError> {
        let table = types.structure("mod_kallsyms")?;
        let count = table.member("num_symtab")?;
        Ok(Self {
            bytes: table.size(),
            symtab: table.member("symtab")?.offset(),
            num_symtab: Field { offset: count.offset(), bytes: count.size()? },
            strtab: table.member("strtab")?.offset(),
            typetab: table.member("typetab").ok().map(Member::offset),
        })
    }
}

/// Why a module can't be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModuleError {
    /// Its `struct module` is not in the dump.
    #[error("the module at {kaddr} can't be read: {source}")]
    Unreadable {
        /// Where it is.
        kaddr: KVirtAddr,
        /// Why.
        source: MemError,
    },
    /// What is there is no module: no name, or memory that can't be.
    #[error("what is at {kaddr} is no module: {why}")]
    NotAModule {
        /// Where it is.
        kaddr: KVirtAddr,
        /// What is wrong with it.
        why: String,
    },
}

/// One module's symbols, and the memory that is its own.
#[derive(Debug)]
pub struct ModuleSymbols {
    name: Arc<str>,
    kaddr: KVirtAddr,
    ranges: Vec<Range<u64>>,
    per_cpu: Option<Range<u64>>,
    /// Address, offset of the name, letter; ascending by address.
    table: Vec<(u64, u32, u8)>,
    names: Vec<u8>,
    gap: Option<String>,
}

impl ModuleSymbols {
    /// Reads the module whose `struct module` is at `kaddr`. A module whose symbols can't be read still has its name and memory,
    /// and [`ModuleSymbols::gap`] says what is missing.
    ///
    /// # Errors
    /// When `kaddr` is no module, or can't be read.
    pub fn read(
        memory: &KernelMemory<'_>,
        layout: &ModuleLayout,
        kaddr: KVirtAddr,
        limits: &Limits,
    ) -> Result<Self, ModuleError> {
        let place = |offset: u64| {
            kaddr.checked_add(offset).ok_or_else(|| bad(kaddr, "it is at the end of the address space"))
        };
        if kaddr.checked_add(layout.bytes).is_none() {
            return Err(bad(kaddr, "it is at the end of the address space"));
        }
        let unreadable = |source| ModuleError::Unreadable { kaddr, source };
        let name_bytes =
            usize::try_from(layout.name.end.saturating_sub(layout.name.start)).unwrap_or_default().min(NAME);
        let name = memory.read_cstr(place(layout.name.start)?, name_bytes).map_err(unreadable)?;
        let name = String::from_utf8(name)
            .ok()
            .filter(|n| is_module_name(n))
            .ok_or_else(|| bad(kaddr, "it has no name"))?;
        let span = |(base, size): &(u64, Field)| -> Result<Range<u64>, ModuleError> {
            let base = memory.read_u64(place(*base)?).map_err(unreadable)?;
            let size = number(memory, place(size.offset)?, size.bytes).map_err(unreadable)?;
            let end = base.checked_add(size).filter(|_| size <= LARGEST);
            Ok(base..end.ok_or_else(|| bad(kaddr, "its memory can't be that large"))?)
        };
        let mut ranges = Vec::new();
        for part in &layout.parts {
            ranges.push(span(part)?);
        }
        ranges.retain(|r| r.start != 0 && !r.is_empty());
        let per_cpu = layout.per_cpu.as_ref().and_then(|p| span(p).ok()).filter(|r| !r.is_empty());
        let mut module = Self {
            name: name.into(),
            kaddr,
            ranges,
            per_cpu,
            table: Vec::new(),
            names: Vec::new(),
            gap: None,
        };
        if let Err(gap) = module.read_table(memory, layout, limits) {
            module.gap = Some(gap);
        }
        Ok(module)
    }

    fn read_table(
        &mut self,
        memory: &KernelMemory<'_>,
        layout: &ModuleLayout,
        limits: &Limits,
    ) -> Result<(), String> {
        let (Some(kallsyms), Some(table)) = (layout.kallsyms, &layout.table) else {
            return Err("this kernel's struct module has no kallsyms".into());
        };
        let text = |e: MemError| e.to_string();
        let at = self
            .kaddr
            .checked_add(kallsyms)
            .map(|at| memory.read_ptr(at))
            .transpose()
            .map_err(text)?
            .unwrap_or_default();
        if at.is_null() || at.checked_add(table.bytes).is_none() {
            return Err("the module has no symbol table".into());
        }
        let place = |offset: u64| KVirtAddr(at.0.saturating_add(offset));
        let symtab = memory.read_ptr(place(table.symtab)).map_err(text)?;
        let strtab = memory.read_ptr(place(table.strtab)).map_err(text)?;
        let typetab = table.typetab.map(|o| memory.read_ptr(place(o))).transpose().map_err(text)?;
        let count = number(memory, place(table.num_symtab.offset), table.num_symtab.bytes).map_err(text)?;
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count > limits.symbols.min(SYMBOLS) {
            return Err(format!("the module can't have {count} symbols"));
        }
        let symbols = memory.read_sparse(symtab, count.saturating_mul(ELF_SYM));
        let letters = typetab.map(|at| memory.read_sparse(at, count).bytes);
        if let Some(missing) = symbols.missing.first() {
            self.gap = Some(format!("parts of the module's symbol table are missing: {}", missing.why));
        }
        let (records, _) = symbols.bytes.as_chunks::<ELF_SYM>();
        let mut furthest = 0_u32;
        for (number, record) in records.iter().enumerate() {
            let (Some(name), Some(section), Some(value)) =
                (le::u32_at(record, 0), le::u16_at(record, 6), le::u64_at(record, 8))
            else {
                continue;
            };
            // Section 0 is «undefined»: the symbol of somebody else. Name 0 is none.
            if section == 0 || name == 0 || usize::try_from(name).is_ok_and(|n| n >= NAMES) {
                continue;
            }
            // Before 5.2 (kernel commit 1c7651f43777) the letter was kept in the symbol itself, as `st_info`.
            let letter = letters.as_ref().and_then(|l| l.get(number)).or_else(|| record.get(4)).copied();
            let letter = letter.filter(u8::is_ascii_alphabetic).unwrap_or(b'?');
            furthest = furthest.max(name);
            self.table.push((value, name, letter));
        }
        self.table.sort_by_key(|(value, ..)| *value);
        self.table.shrink_to_fit();
        let wanted = usize::try_from(furthest).unwrap_or_default().saturating_add(NAME);
        let names = memory.read_sparse(strtab, wanted);
        // The last name's end is not known; what is missing only behind it is not missed.
        let gone =
            names.missing.iter().find(|m| m.range.start <= usize::try_from(furthest).unwrap_or_default());
        if let Some(missing) = gone {
            self.gap = Some(format!("names of the module's symbols are missing: {}", missing.why));
        }
        self.names = names.bytes;
        Ok(())
    }

    /// The module's name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Where its `struct module` is.
    #[must_use]
    pub fn kaddr(&self) -> KVirtAddr {
        self.kaddr
    }

    /// Its memory: text, data, read-only data.
    #[must_use]
    pub fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    /// How many symbols it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// True where it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// What of its symbols could not be read, and why.
    #[must_use]
    pub fn gap(&self) -> Option<&str> {
        self.gap.as_deref()
    }

    /// The symbol of that name.
    #[must_use]
    pub fn symbol(&self, name: &str) -> Option<Symbol> {
        let place = self.table.iter().position(|(_, at, _)| self.name_at(*at) == name.as_bytes())?;
        self.get(place)
    }

    /// The symbol that an address in its memory belongs to: the nearest below, first of its aliases.
    #[must_use]
    pub fn at(&self, address: KVirtAddr) -> Option<Symbol> {
        let range = self.ranges.iter().find(|r| r.contains(&address.0))?;
        let after = self.table.partition_point(|(value, ..)| *value <= address.0);
        let (nearest, ..) = self.table.get(..after)?.iter().rev().find(|s| self.counts(s)).copied()?;
        let first = self.table.partition_point(|(value, ..)| *value < nearest);
        let place = (first..after).find(|i| self.table.get(*i).is_some_and(|s| self.counts(s)))?;
        self.get(place).filter(|s| range.contains(&s.address.0))
    }

    /// All its symbols.
    pub fn iter(&self) -> impl Iterator<Item = Symbol> + '_ {
        (0..self.table.len()).filter_map(|place| self.get(place))
    }

    /// False for the marks that assemblers and compilers leave (as the kernel's `is_mapping_symbol`), and where the name is missing.
    fn counts(&self, symbol: &(u64, u32, u8)) -> bool {
        let name = self.name_at(symbol.1);
        !(name.is_empty() || name.starts_with(b"$") || name.starts_with(b".L") || name.starts_with(b"L0"))
    }

    fn name_at(&self, at: u32) -> &[u8] {
        let tail = usize::try_from(at).ok().and_then(|at| self.names.get(at..)).unwrap_or_default();
        let tail = tail.get(..NAME.min(tail.len())).unwrap_or_default();
        let end = tail.iter().position(|b| *b == 0).unwrap_or(tail.len());
        tail.get(..end).unwrap_or_default()
    }

    fn get(&self, place: usize) -> Option<Symbol> {
        let (value, name, letter) = *self.table.get(place)?;
        let next = self.table.get(place..)?.iter().find(|s| s.0 > value && self.counts(s)).map(|s| s.0);
        let range = self.ranges.iter().find(|r| r.contains(&value));
        let end = match (next, range) {
            (Some(next), Some(range)) => Some(next.min(range.end)),
            (None, Some(range)) => Some(range.end),
            (next, None) => next,
        };
        Some(Symbol {
            name: String::from_utf8_lossy(self.name_at(name)).into_owned(),
            address: KVirtAddr(value),
            size: end.and_then(|end| end.checked_sub(value)),
            letter: char::from(letter),
            module: Some(Arc::clone(&self.name)),
            per_cpu: self.per_cpu.as_ref().is_some_and(|r| r.contains(&value)),
        })
    }
}

fn bad(kaddr: KVirtAddr, why: &str) -> ModuleError {
    ModuleError::NotAModule { kaddr, why: why.to_owned() }
}

fn is_module_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic())
}

fn number(memory: &KernelMemory<'_>, at: KVirtAddr, bytes: u64) -> Result<u64, MemError> {
    if bytes == 8 { memory.read_u64(at) } else { memory.read_u32(at).map(u64::from) }
}
