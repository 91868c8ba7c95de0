//! A module's file: its sections get the addresses that they have in the dump, and its debuginfo is moved there.
//!
//! Where a section is shows by symbols: the module keeps its own symbol table in memory, the file has the same symbols by section.

use std::collections::HashMap;

use object::elf;

use super::error::{DebuginfoError, DebuginfoErrorKind};
use super::file::Debuginfo;
use crate::sym::modules::ModuleSymbols;
use crate::xlat::le;

/// Bytes of `Elf64_Rela`.
const RELA: usize = 24;
/// Symbols that are looked at for a section's place: more of them say the same.
const VOTES: usize = 4096;

/// Moves a module's debuginfo to where the module was loaded.
///
/// Returns how many symbols of the dump agree with the file.
///
/// # Errors
/// When the file's symbols are not the module's: it is of another build; or when it is damaged.
pub fn place_module(file: &Debuginfo, module: &ModuleSymbols) -> Result<usize, DebuginfoError> {
    let symbols = file.raw_symbols()?;
    let mut loaded: HashMap<String, Option<u64>> = HashMap::with_capacity(module.len());
    for symbol in module.iter() {
        // A name that is there twice tells nothing.
        loaded.entry(symbol.name).and_modify(|at| *at = None).or_insert(Some(symbol.address.0));
    }
    let mut votes: HashMap<u16, HashMap<u64, usize>> = HashMap::new();
    for raw in symbols.iter().take(VOTES.saturating_mul(64)) {
        let Some(Some(at)) = std::str::from_utf8(raw.name).ok().and_then(|name| loaded.get(name)) else {
            continue;
        };
        let base = at.wrapping_sub(raw.value);
        let count = votes.entry(raw.section).or_default().entry(base).or_default();
        *count = count.saturating_add(1);
    }
    let mut bases = vec![None; file.sections().len()];
    let (mut agreed, mut against) = (0_usize, 0_usize);
    for (section, tally) in &votes {
        let all: usize = tally.values().sum();
        // Two symbols of a file that is the module's can differ (one of a section that init freed); most never do.
        let best = tally.iter().max_by_key(|(base, count)| (**count, std::cmp::Reverse(**base)));
        let Some((base, count)) = best.filter(|(_, count)| count.saturating_mul(2) > all) else { continue };
        if let Some(slot) = bases.get_mut(usize::from(*section)) {
            *slot = Some(*base);
            agreed = agreed.saturating_add(*count);
            against = against.saturating_add(all.saturating_sub(*count));
        }
    }
    if agreed == 0 || against > agreed {
        let why = format!(
            "{agreed} of its symbols are where the module {} in the dump has them, {against} are not",
            module.name()
        );
        return Err(file.error(DebuginfoErrorKind::Unproven { why }));
    }
    if file.is_relocatable() {
        relocate(file, &bases).map_err(|kind| file.error(kind))?;
    }
    Ok(agreed)
}

/// Applies the relocations of the sections with DWARF.
fn relocate(file: &Debuginfo, bases: &[Option<u64>]) -> Result<(), DebuginfoErrorKind> {
    let relocations = file.sections().iter().filter(|s| s.kind == elf::SHT_RELA);
    for relocation in relocations {
        let number = |n: u32| usize::try_from(n).ok();
        let target = number(relocation.info).and_then(|n| file.sections().get(n));
        let Some(target) = target.filter(|t| t.name.starts_with(".debug_") || t.name.starts_with(".zdebug_"))
        else {
            continue;
        };
        let values = number(relocation.link)
            .and_then(|n| file.sections().get(n))
            .filter(|s| s.kind == elf::SHT_SYMTAB)
            .ok_or_else(|| DebuginfoErrorKind::damaged(format!("{} has no symbols", relocation.name)))?;
        let values = Values { table: file.data(values)?, bases };
        let mut bytes = file.data(target)?.to_vec();
        let (records, _) = file.data(relocation)?.as_chunks::<RELA>();
        for record in records {
            apply(record, &values, &mut bytes);
        }
        Debuginfo::replace(target, bytes);
    }
    Ok(())
}

struct Values<'d> {
    table: &'d [u8],
    bases: &'d [Option<u64>],
}

impl Values<'_> {
    /// Where a symbol is in the dump; 0 as for any section that is nowhere in it (debug sections, those that init freed).
    fn of(&self, symbol: u32) -> Option<u64> {
        let at = usize::try_from(symbol).ok()?.checked_mul(24)?;
        let record = self.table.get(at..)?;
        let section = le::u16_at(record, 6)?;
        let value = le::u64_at(record, 8)?;
        let base = self.bases.get(usize::from(section)).copied().flatten().unwrap_or_default();
        Some(base.wrapping_add(value))
    }
}

fn apply(record: &[u8; RELA], values: &Values<'_>, bytes: &mut [u8]) -> Option<()> {
    let at = usize::try_from(le::u64_at(record, 0)?).ok()?;
    let info = le::u64_at(record, 8)?;
    let addend = le::u64_at(record, 16)?;
    let kind = u32::try_from(info & 0xffff_ffff).ok()?;
    let value = values.of(u32::try_from(info >> 32).ok()?)?.wrapping_add(addend);
    // R_X86_64_64 and R_AARCH64_ABS64; R_X86_64_32, R_X86_64_32S and R_AARCH64_ABS32.
    match kind {
        1 | 257 => bytes.get_mut(at..at.checked_add(8)?)?.copy_from_slice(&value.to_le_bytes()),
        10 | 11 | 258 => {
            let low = u32::try_from(value & 0xffff_ffff).ok()?;
            bytes.get_mut(at..at.checked_add(4)?)?.copy_from_slice(&low.to_le_bytes());
        }
        _ => {}
    }
    Some(())
}
