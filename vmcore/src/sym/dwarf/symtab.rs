//! The symbol table of a vmlinux, moved to where the kernel ran: for a dump whose own table can't be read.

use object::elf;

use super::error::{DebuginfoError, DebuginfoErrorKind};
use super::file::{Debuginfo, Section};
use crate::addr::KVirtAddr;
use crate::sym::Symbol;
use crate::xlat::le;

/// Bytes of `Elf64_Sym`.
const SYM: usize = 24;
/// Where `x86_64` kernels are linked: symbols below are per-CPU offsets or absolute numbers, which KASLR does not move.
pub(super) const LINKED: u64 = 0xffff_ffff_8000_0000;

/// One symbol as the file has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raw<'d> {
    pub(super) name: &'d [u8],
    pub(super) info: u8,
    pub(super) section: u16,
    pub(super) value: u64,
    pub(super) size: u64,
}

impl Debuginfo {
    /// All symbols of the file's symbol table that have a name and a place.
    pub(super) fn raw_symbols(&self) -> Result<Vec<Raw<'_>>, DebuginfoError> {
        let fail = |kind| self.error(kind);
        let none = || fail(DebuginfoErrorKind::NoDwarf { why: "it has no symbol table".into() });
        let table = self.sections().iter().find(|s| s.kind == elf::SHT_SYMTAB).ok_or_else(none)?;
        let names = usize::try_from(table.link).ok().and_then(|n| self.sections().get(n)).ok_or_else(none)?;
        let (table, names) = (self.data(table).map_err(fail)?, self.data(names).map_err(fail)?);
        let (records, _) = table.as_chunks::<SYM>();
        let most = self.limits().symbols;
        if records.len() > most {
            return Err(fail(DebuginfoErrorKind::damaged(format!("{} symbols are too many", records.len()))));
        }
        let read = |record: &[u8; SYM]| {
            let name = names.get(usize::try_from(le::u32_at(record, 0)?).ok()?..)?;
            let end = name.iter().position(|b| *b == 0)?;
            Some(Raw {
                name: name.get(..end)?,
                info: le::u8_at(record, 4)?,
                section: le::u16_at(record, 6)?,
                value: le::u64_at(record, 8)?,
                size: le::u64_at(record, 16)?,
            })
        };
        Ok(records.iter().filter_map(read).filter(|raw| !raw.name.is_empty() && raw.section != 0).collect())
    }
}

/// The symbols of a vmlinux at the addresses that they have in the dump.
#[derive(Debug, Default)]
pub struct LinkedSymbols {
    names: Vec<u8>,
    /// Address, size, place of the name, letter; ascending by address.
    table: Vec<(u64, u64, u32, u8)>,
    /// Numbers in `table`, by name.
    by_name: Vec<u32>,
    per_cpu: Option<(u64, u64)>,
}

impl LinkedSymbols {
    /// Reads the table, and moves it by what KASLR moved the kernel.
    ///
    /// # Errors
    /// When the file has no table, or one that can't be read.
    pub fn load(file: &Debuginfo, slide: u64) -> Result<Self, DebuginfoError> {
        let moved = |value: u64| if value >= LINKED { value.wrapping_add(slide) } else { value };
        let mut this = Self::default();
        for raw in file.raw_symbols()? {
            if matches!(raw.info & 0xf, 3 | 4) {
                // Sections and source files.
                continue;
            }
            let Ok(at) = u32::try_from(this.names.len()) else { break };
            this.names.extend_from_slice(raw.name);
            this.names.push(0);
            let section = file.sections().get(usize::from(raw.section));
            this.table.push((moved(raw.value), raw.size, at, letter(raw.info, section)));
        }
        // Globals before locals at one address, as the kernel's own table has its best name first.
        this.table.sort_by_key(|(address, _, _, letter)| (*address, letter.is_ascii_lowercase()));
        let mut by_name: Vec<u32> = (0_u32..).zip(&this.table).map(|(number, _)| number).collect();
        by_name.sort_by(|a, b| this.name(*a).cmp(this.name(*b)).then(a.cmp(b)));
        this.by_name = by_name;
        let address = |name: &str| this.all(name).first().map(|s| s.address.0);
        this.per_cpu =
            address("__per_cpu_start").zip(address("__per_cpu_end")).filter(|(start, end)| start < end);
        Ok(this)
    }

    /// How many symbols there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// True where there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// All symbols of that name, in order of their addresses.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<Symbol> {
        let name = name.as_bytes();
        let from = self.by_name.partition_point(|n| self.name(*n) < name);
        let same = self.by_name.get(from..).unwrap_or_default().iter().take_while(|n| self.name(**n) == name);
        same.filter_map(|number| self.get(usize::try_from(*number).ok()?)).collect()
    }

    /// The symbol that an address belongs to: the nearest at or below it. Per-CPU symbols are never meant.
    #[must_use]
    pub fn at(&self, address: KVirtAddr) -> Option<Symbol> {
        let after = self.table.partition_point(|(a, ..)| *a <= address.0);
        let (nearest, ..) = *self.table.get(after.checked_sub(1)?)?;
        let first = self.table.partition_point(|(a, ..)| *a < nearest);
        let symbol = self.get(first).filter(|s| !s.per_cpu && nearest >= LINKED)?;
        let into = address.0.saturating_sub(nearest);
        symbol.size.is_none_or(|size| into < size).then_some(symbol)
    }

    /// All symbols, in order of their addresses.
    pub fn iter(&self) -> impl Iterator<Item = Symbol> + '_ {
        (0..self.table.len()).filter_map(|number| self.get(number))
    }

    fn name(&self, number: u32) -> &[u8] {
        let at = usize::try_from(number).ok().and_then(|n| self.table.get(n)).map(|(_, _, at, _)| *at);
        let tail = at.and_then(|at| self.names.get(usize::try_from(at).ok()?..)).unwrap_or_default();
        tail.split(|b| *b == 0).next().unwrap_or_default()
    }

    fn get(&self, number: usize) -> Option<Symbol> {
        let (address, _, _, letter) = *self.table.get(number)?;
        let after = self.table.partition_point(|(a, ..)| *a <= address);
        let next = self.table.get(after).map(|(a, ..)| *a);
        let per_cpu = self.per_cpu.is_some_and(|(start, end)| start <= address && address < end);
        Some(Symbol {
            name: String::from_utf8_lossy(self.name(u32::try_from(number).ok()?)).into_owned(),
            address: KVirtAddr(address),
            size: next.and_then(|next| next.checked_sub(address)),
            letter: char::from(letter),
            module: None,
            per_cpu,
        })
    }
}

/// As `nm` prints it.
fn letter(info: u8, section: Option<&Section>) -> u8 {
    let Some(section) = section else { return b'?' };
    let global = info >> 4 == 1;
    let flag = |flag: elf::SectionFlags| section.flags & flag.0 != 0;
    let plain = match () {
        () if info >> 4 == 2 => return b'W',
        () if flag(elf::SHF_EXECINSTR) => b'T',
        () if section.kind == elf::SHT_NOBITS => b'B',
        () if flag(elf::SHF_WRITE) => b'D',
        () if section.is_allocated() => b'R',
        () => return b'?',
    };
    if global { plain } else { plain.to_ascii_lowercase() }
}
