//! The four ways in which kernels write the addresses of their symbols, and which of them a table has.
//!
//! None is told by a version: each is tried, and right is the one that puts `_stext` where it is known to be and whose addresses
//! ascend, because the kernel's build sorts the table.

use std::cmp::Reverse;
use std::ops::Range;

use crate::addr::KVirtAddr;
use crate::xlat::le;

/// How addresses are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// `kallsyms_addresses`, 64 bits each (kernels without `KALLSYMS_BASE_RELATIVE`; gone in 6.11).
    Absolute,
    /// `kallsyms_offsets`: not negative means the value itself (per-CPU), negative means `base - 1 - value` (`KALLSYMS_ABSOLUTE_PERCPU`,
    /// `x86_64` before 6.15).
    PerCpuAbsolute {
        /// `kallsyms_relative_base`.
        base: KVirtAddr,
    },
    /// `kallsyms_offsets`: `base` plus an unsigned value.
    BaseRelative {
        /// `kallsyms_relative_base`.
        base: KVirtAddr,
    },
    /// `kallsyms_offsets`: the entry's own place plus a signed value (7.0 and later).
    PlaceRelative {
        /// Where the table is.
        table: KVirtAddr,
    },
}

impl Encoding {
    /// How many bytes an entry has.
    pub(super) fn width(self) -> usize {
        if self == Self::Absolute { 8 } else { 4 }
    }

    /// The address of one symbol; `None` past the end of the table.
    pub(super) fn address(self, table: &[u8], symbol: usize) -> Option<u64> {
        let at = symbol.checked_mul(self.width())?;
        let Self::Absolute = self else {
            let raw = le::u32_at(table, at)?;
            let signed = i64::from(raw.cast_signed());
            return Some(match self {
                Self::PerCpuAbsolute { base } if signed < 0 => {
                    base.0.wrapping_sub(1).wrapping_sub(signed.cast_unsigned())
                }
                Self::BaseRelative { base } => base.0.wrapping_add(u64::from(raw)),
                Self::PlaceRelative { table } => {
                    let place = table.0.wrapping_add(u64::try_from(at).unwrap_or_default());
                    place.wrapping_add(signed.cast_unsigned())
                }
                Self::PerCpuAbsolute { .. } | Self::Absolute => u64::from(raw),
            });
        };
        le::u64_at(table, at)
    }
}

/// How well an encoding fits a table. The greater, the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Fit {
    /// `_stext` is where it should be. Counts most.
    pub(super) stext: bool,
    /// How many symbols are above the one before: nearly all, as only aliases are not. Zeros, noise and wrong encodings have few.
    pub(super) rising: usize,
    /// How many are in the kernel's half. Tells offsets that are all positive from per-CPU ones.
    pub(super) kernel: usize,
    /// How many are below the one before, or no address at all: none in a sound table.
    pub(super) falling: Reverse<usize>,
}

/// How well an encoding fits. `stext` are the numbers of the symbols of that name, and where it should be; `holes` are the bytes
/// of the table that are not real.
pub(super) fn fit(
    encoding: Encoding,
    table: &[u8],
    count: usize,
    stext: Option<(&[usize], KVirtAddr)>,
    holes: &[Range<usize>],
) -> Fit {
    let at_stext = stext
        .is_some_and(|(symbols, known)| symbols.iter().any(|s| encoding.address(table, *s) == Some(known.0)));
    let mut fit = Fit { stext: at_stext, rising: 0, kernel: 0, falling: Reverse(0) };
    let width = encoding.width();
    let mut last = 0_u64;
    for symbol in 0..count {
        let start = symbol.saturating_mul(width);
        if holes.iter().any(|h| h.start < start.saturating_add(width) && start < h.end) {
            continue;
        }
        let Some(address) = encoding.address(table, symbol) else { break };
        let canonical = address >> 47 == 0 || address >> 47 == 0x1_ffff;
        if address < last || !canonical {
            fit.falling.0 = fit.falling.0.saturating_add(1);
        } else if address > last {
            fit.rising = fit.rising.saturating_add(1);
        }
        fit.kernel = fit.kernel.saturating_add(usize::from(address >> 63 == 1));
        last = address;
    }
    fit
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: KVirtAddr = KVirtAddr(0xffff_ffff_8100_0000);

    /// Two per-CPU symbols, then `_stext` and two functions.
    fn per_cpu_table() -> Vec<u8> {
        [0_i32, 0x1000, -1, -0x11, -0x201].iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    #[test]
    fn per_cpu_values_stay_and_negative_ones_count_from_the_base() {
        let encoding = Encoding::PerCpuAbsolute { base: BASE };
        let table = per_cpu_table();
        let addresses: Vec<_> = (0..6).map(|s| encoding.address(&table, s)).collect();
        let expected = [Some(0), Some(0x1000), Some(BASE.0), Some(BASE.0 + 0x10), Some(BASE.0 + 0x200), None];
        assert_eq!(addresses, expected);
    }

    #[test]
    fn the_right_encoding_fits_best() {
        let table = per_cpu_table();
        let stext: (&[usize], KVirtAddr) = (&[2], BASE);
        let right = fit(Encoding::PerCpuAbsolute { base: BASE }, &table, 5, Some(stext), &[]);
        assert_eq!(right, Fit { stext: true, rising: 4, kernel: 3, falling: Reverse(0) });
        for wrong in [
            Encoding::BaseRelative { base: BASE },
            Encoding::PlaceRelative { table: BASE },
            Encoding::Absolute,
        ] {
            assert!(fit(wrong, &table, 5, Some(stext), &[]) < right, "{wrong:?}");
        }
    }

    #[test]
    fn place_relative_tables_need_no_base() {
        let table_at = KVirtAddr(0xffff_ffff_8235_c930);
        let targets =
            [0xffff_ffff_8100_0000_u64, 0xffff_ffff_8100_0000, 0xffff_ffff_8100_0040, 0xffff_ffff_8300_0000];
        let mut table = Vec::new();
        for (i, target) in (0_u64..).zip(targets) {
            let value = i64::try_from(i128::from(target) - i128::from(table_at.0 + 4 * i)).unwrap();
            table.extend_from_slice(&i32::try_from(value).unwrap().to_le_bytes());
        }
        let right = Encoding::PlaceRelative { table: table_at };
        let found: Vec<_> = (0..4).filter_map(|s| right.address(&table, s)).collect();
        assert_eq!(found, targets);
        let wrong = fit(Encoding::BaseRelative { base: table_at }, &table, 4, None, &[]);
        assert!(fit(right, &table, 4, None, &[]) > wrong);
    }

    #[test]
    fn absolute_addresses_are_what_they_say() {
        let table = BASE.0.to_le_bytes();
        assert_eq!(Encoding::Absolute.address(&table, 0), Some(BASE.0));
        assert_eq!(Encoding::Absolute.address(&table, 1), None);
        assert_eq!(Encoding::Absolute.address(&table, usize::MAX), None);
    }
}
