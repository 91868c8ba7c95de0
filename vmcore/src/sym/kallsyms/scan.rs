//! Finds the symbol table by its shape, where VMCOREINFO does not name it.
//!
//! Every character that occurs in a name keeps a token of its own (`scripts/kallsyms.c`), so the tokens from `0` to `9` stand one
//! after the other in the token table, and the index behind it says so once more. From there backwards lie the markers, the names
//! and their count; the addresses are before the count (until 6.3) or behind the index (since 6.4, kernel commit 404bad70fcf7).

use std::sync::atomic::{AtomicUsize, Ordering};

use super::KallsymsError;
use super::addresses::Encoding;
use super::names::{self, LengthForm};
use super::tokens::Tokens;
use crate::addr::KVirtAddr;
use crate::limits::Limits;
use crate::sym::image::{self, Image};
use crate::xlat::{KernelMemory, le};

/// The tokens of the digits, one after the other.
const DIGITS: &[u8] = b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00";
/// How far before the token table the names can begin: 200,000 symbols take 4 MB with all that lies between.
const BEFORE: [usize; 2] = [4 << 20, 12 << 20];
/// Fewer names than these no kernel has; the markers of fewer are too short to be told from noise.
const FEWEST: usize = 4;
/// How many token tables, markers and counts are tried in vain before the search gives up: a kernel has one of each, and look-alikes
/// are few unless somebody made them.
const TRIES: usize = 64;

/// Where the parts of a symbol table are.
#[derive(Clone, Debug)]
pub(super) struct Tables {
    pub(super) num_syms: KVirtAddr,
    pub(super) names: KVirtAddr,
    pub(super) token_table: KVirtAddr,
    pub(super) token_index: KVirtAddr,
    /// Where the addresses could be, and how they would be written.
    pub(super) candidates: Vec<(KVirtAddr, Encoding)>,
}

/// Searches the kernel's image.
pub(super) fn find(
    memory: &KernelMemory<'_>,
    stext: Option<KVirtAddr>,
    limits: &Limits,
) -> Result<Tables, KallsymsError> {
    let image = Image::of(memory, stext);
    let tried = AtomicUsize::new(0);
    let found = image.search(memory, DIGITS, |hit| {
        if tried.fetch_add(1, Ordering::Relaxed) >= TRIES {
            return None;
        }
        let (token_table, token_index) = tokens_around(memory, hit)?;
        before(memory, token_table, token_index, limits)
    });
    found.ok_or(KallsymsError::NotFound { start: image.start(), bytes: image.bytes() })
}

/// The token table and its index, where the token of the digit 0 is at `hit`.
fn tokens_around(memory: &KernelMemory<'_>, hit: KVirtAddr) -> Option<(KVirtAddr, KVirtAddr)> {
    // From the 0 on there are 208 more tokens, a few bytes each.
    let behind = image::read_until_hole(memory, hit, 16 << 10);
    let mut ends = behind.iter().enumerate().filter(|(_, b)| **b == 0).map(|(i, _)| i);
    let end = ends.nth(usize::from(u8::MAX - b'0'))?.checked_add(1)?;
    (0..16_usize).find_map(|pad| {
        let index_at = end.checked_add(pad)?;
        let index = behind.get(index_at..index_at.checked_add(Tokens::INDEX_BYTES)?)?;
        let zero = le::u16_at(index, usize::from(b'0').checked_mul(2)?)?;
        if le::u16_at(index, 0)? != 0 || zero == 0 {
            return None;
        }
        let table_at = hit.checked_sub(u64::from(zero))?;
        let table = memory.read_sparse(table_at, Tokens::table_bytes(index));
        Tokens::new(table.bytes, index).ok()?;
        Some((table_at, hit.checked_add(u64::try_from(index_at).ok()?)?))
    })
}

/// Goes back from the token table to the markers and the names.
fn before(
    memory: &KernelMemory<'_>,
    token_table: KVirtAddr,
    token_index: KVirtAddr,
    limits: &Limits,
) -> Option<Tables> {
    BEFORE.iter().find_map(|reach| {
        // Aligned as the tables are, so that places in the bytes are aligned as addresses are.
        let start = KVirtAddr(token_table.0.checked_sub(u64::try_from(*reach).ok()?)? & !7);
        let len = usize::try_from(token_table.0.checked_sub(start.0)?).ok()?;
        let bytes = memory.read_sparse(start, len).bytes;
        let last = bytes.len().saturating_sub(8) & !3;
        let alike = (0..=last).rev().step_by(4).filter_map(|markers| {
            let width = names::marker_width(&bytes, markers)?;
            let most = names::rising(&bytes, markers, width);
            (most >= FEWEST).then_some((markers, width, most))
        });
        let mut walks = TRIES;
        alike.take(TRIES).find_map(|(markers, width, most)| {
            // What follows the markers can look like one or two more of them.
            let fewest = most.saturating_sub(4).max(FEWEST);
            let found = (fewest..=most).rev().find_map(|blocks| {
                let last = width.get(&bytes, markers, blocks.checked_sub(1)?)?;
                names_before(&bytes, markers, blocks, usize::try_from(last).ok()?, limits, &mut walks)
            })?;
            let num_syms = start.checked_add(u64::try_from(found.count_at).ok()?)?;
            let names = start.checked_add(u64::try_from(found.names_at).ok()?)?;
            let candidates = addresses_around(memory, num_syms, token_index, found.count);
            Some(Tables { num_syms, names, token_table, token_index, candidates })
        })
    })
}

/// Where the count and the names are in the bytes before the token table, and the count.
struct Before {
    count_at: usize,
    names_at: usize,
    count: usize,
}

/// The names that end at the markers, with the count before them. `last` is the marker of the last block.
fn names_before(
    bytes: &[u8],
    markers: usize,
    blocks: usize,
    last: usize,
    limits: &Limits,
    walks: &mut usize,
) -> Option<Before> {
    let latest = markers.checked_sub(last)?.checked_sub(2)? & !3;
    let earliest = markers.checked_sub(last)?.saturating_sub(66_064).max(8) & !3;
    (earliest..=latest).rev().step_by(4).find_map(|names_at| {
        // Four bytes and as many of padding until 6.x; four and none in 7.2, whose tables need no alignment to 8.
        let (padded, bare) = (names_at.checked_sub(8)?, names_at.checked_sub(4)?);
        let wide = le::u64_at(bytes, padded).map(|count| (padded, count));
        let narrow = le::u32_at(bytes, bare).map(|count| (bare, u64::from(count)));
        let fits = |count: u64| {
            usize::try_from(count).ok().filter(|c| names::blocks(*c) == blocks && *c <= limits.symbols)
        };
        let (count_at, count) =
            [wide, narrow].into_iter().flatten().find_map(|(at, count)| Some((at, fits(count)?)))?;
        *walks = walks.checked_sub(1)?;
        let part = bytes.get(names_at..)?;
        let agrees = LengthForm::ALL.into_iter().any(|form| {
            let places = names::walk(part, count, form, &[]);
            places.is_some_and(|p| names::marked(part, &p))
        });
        agrees.then_some(Before { count_at, names_at, count })
    })
}

/// The places where the addresses can be, with each way in which they can be written there.
fn addresses_around(
    memory: &KernelMemory<'_>,
    num_syms: KVirtAddr,
    token_index: KVirtAddr,
    count: usize,
) -> Vec<(KVirtAddr, Encoding)> {
    let mut found = Vec::new();
    let Ok(count) = u64::try_from(count) else { return found };
    let offsets_bytes = count.saturating_mul(4).saturating_add(7) & !7;
    let mut with_base = |table: Option<KVirtAddr>, base_at: Option<KVirtAddr>| {
        let Some(table) = table else { return };
        let base = base_at.and_then(|at| memory.read_u64(at).ok()).map(KVirtAddr);
        // A base is an address of the kernel's half.
        if let Some(base) = base.filter(|b| b.0 >> 63 == 1) {
            found.push((table, Encoding::PerCpuAbsolute { base }));
            found.push((table, Encoding::BaseRelative { base }));
        }
        found.push((table, Encoding::PlaceRelative { table }));
    };
    let index_end = token_index.checked_add(512);
    let behind = index_end.map(|at| KVirtAddr(at.0.saturating_add(7) & !7));
    with_base(behind, behind.and_then(|at| at.checked_add(offsets_bytes)));
    // Without a base, tables are aligned to 4.
    with_base(index_end.filter(|at| Some(*at) != behind), None);
    let base_before = num_syms.checked_sub(8);
    with_base(base_before.and_then(|at| at.checked_sub(offsets_bytes)), base_before);
    found.extend(num_syms.checked_sub(count.saturating_mul(8)).map(|table| (table, Encoding::Absolute)));
    found
}
