//! The types of a vmlinux in the form of BTF, so that a kernel without BTF is read as any other.
//!
//! Each source file of a kernel describes all types that it sees: some millions of descriptions of a hundred thousand types. They are
//! read file by file on several threads (`unit`), told apart by what they are made of (`merge`), and each is written once
//! (`encode`). Types inside of functions are not looked at.

mod encode;
mod merge;
mod unit;

use std::ops::Range;

use gimli::{Dwarf, UnitHeader};
use object::elf;
use rayon::prelude::*;

use super::error::{DebuginfoError, DebuginfoErrorKind};
use super::file::{Debuginfo, Slice};
use crate::sym::btf::Btf;
use encode::PerCpu;
use merge::Table;

/// Source files of one kernel: `allyesconfig` has 30,000.
const UNITS: usize = 1 << 20;

/// All types of the file, and those of its global variables.
///
/// # Errors
/// When its DWARF can't be read, or has no type. What is damaged in part is read in part, and [`Btf::damage`] says so.
pub fn load(file: &Debuginfo) -> Result<Btf, DebuginfoError> {
    let dwarf = file.dwarf()?;
    let damaged = |why: String| file.error(DebuginfoErrorKind::Damaged { why });
    let mut units: Vec<UnitHeader<Slice<'_>>> = Vec::new();
    let mut headers = dwarf.units();
    let mut cut = None;
    let mut touched = 0;
    loop {
        match headers.next() {
            Ok(Some(header)) if units.len() < UNITS => {
                touched = file.forget_before(touched, header.offset().0);
                units.push(header);
            }
            Ok(_) => break,
            Err(error) => {
                cut = Some(format!("the list of source files ends early: {error}"));
                break;
            }
        }
    }
    file.forget_info(0..usize::MAX);
    let threads = rayon::current_num_threads().max(1);
    let chunk = units.len().div_ceil(threads.saturating_mul(4)).max(1);
    let tables: Vec<Table<'_>> = units
        .par_chunks(chunk)
        .enumerate()
        .map(|(number, units)| read(file, &dwarf, number.saturating_mul(chunk), units))
        .collect();
    let mut table = tables.into_iter().reduce(Table::join).unwrap_or_default();
    let bytes = encode::encode(&mut table, &per_cpu(file)).map_err(damaged)?;
    let mut btf = Btf::parse(bytes).map_err(|e| damaged(e.to_string()))?;
    if let Some(why) = cut.or(table.damage) {
        btf.note_damage(why);
    }
    Ok(btf)
}

/// The per-CPU variables by the file's symbols; none where it has no symbols.
fn per_cpu(file: &Debuginfo) -> PerCpu<'_> {
    let symbols = file.raw_symbols().unwrap_or_default();
    let at = |name: &str| symbols.iter().find(|s| s.name == name.as_bytes()).map(|s| s.value);
    let section = at("__per_cpu_start").zip(at("__per_cpu_end"));
    let inside = |value| section.is_some_and(|(start, end)| (start..end).contains(&value));
    let data = symbols.iter().filter(|s| s.info & 0xf == elf::STT_OBJECT.0 && inside(s.value));
    PerCpu { section, symbols: data.map(|s| (s.name, s.value)).collect() }
}

/// The types of some units that follow each other; `first` is the number of the first of them.
fn read<'d>(
    file: &'d Debuginfo,
    dwarf: &Dwarf<Slice<'d>>,
    first: usize,
    units: &[UnitHeader<Slice<'d>>],
) -> Table<'d> {
    let mut table = Table::default();
    for (place, header) in units.iter().enumerate() {
        unit::read(dwarf, *header, first.saturating_add(place), &mut table);
        if let Some(range) = place_of(header) {
            file.forget_info(range);
        }
    }
    table
}

/// Where a unit is in `.debug_info`.
fn place_of(header: &UnitHeader<Slice<'_>>) -> Option<Range<usize>> {
    let start = header.offset().0;
    Some(start..start.checked_add(header.length_including_self())?)
}
