//! The kernel's image in memory: its text and static data, searched for what nothing names.

use std::ops::Range;

use rayon::prelude::*;

use crate::addr::KVirtAddr;
use crate::xlat::{KernelMemory, Missing, Sparse};

/// Where `x86_64` kernels map their image, and how much room they have for it (`__START_KERNEL_map`, `KERNEL_IMAGE_SIZE`).
const REGION: Range<u64> = 0xffff_ffff_8000_0000..0xffff_ffff_c000_0000;
/// No kernel's image is larger than this from `_stext` on.
const LARGEST: u64 = 256 << 20;
/// Piece of the search that one thread takes.
const CHUNK: u64 = 1 << 20;
/// Read-only data begins this far from `_stext` or further in every distribution's kernel: there the search begins.
const TEXT: u64 = 8 << 20;
/// Piece of a table that one thread reads.
const PIECE: usize = 128 << 10;
const PAGE: u64 = 4096;
const LARGE_PAGE: u64 = 2 << 20;

/// The parts of the image that are mapped.
#[derive(Debug)]
pub(super) struct Image {
    start: KVirtAddr,
    ranges: Vec<Range<u64>>,
}

impl Image {
    /// The image from `_stext` on, or the whole region that kernels have for it.
    pub(super) fn of(memory: &KernelMemory<'_>, stext: Option<KVirtAddr>) -> Self {
        let region = match stext {
            Some(KVirtAddr(stext)) => stext..stext.saturating_add(LARGEST),
            None => REGION,
        };
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let mut at = region.start;
        while at < region.end {
            let next = if let Ok(mapping) = memory.translate(KVirtAddr(at)) {
                let end = at.saturating_add(mapping.run.max(1)).min(region.end);
                match ranges.last_mut() {
                    Some(last) if last.end == at => last.end = end,
                    _ => ranges.push(at..end),
                }
                end
            } else {
                // Small pages occur only next to mapped ones; elsewhere a whole large page is not mapped.
                let step = if ranges.last().is_some_and(|r| r.end > at.saturating_sub(LARGE_PAGE)) {
                    PAGE
                } else {
                    LARGE_PAGE
                };
                (at | step.saturating_sub(1)).saturating_add(1)
            };
            at = next.max(at.saturating_add(1));
        }
        Self { start: KVirtAddr(region.start), ranges }
    }

    /// Where the search begins.
    pub(super) fn start(&self) -> KVirtAddr {
        self.start
    }

    /// How many bytes are mapped.
    pub(super) fn bytes(&self) -> u64 {
        self.ranges.iter().map(|r| r.end.saturating_sub(r.start)).fold(0, u64::saturating_add)
    }

    /// Looks for `pattern` and gives each place to `verify`, until that is content. Several threads search; what lies behind the
    /// text is searched first.
    pub(super) fn search<T: Send>(
        &self,
        memory: &KernelMemory<'_>,
        pattern: &[u8],
        verify: impl Fn(KVirtAddr) -> Option<T> + Sync,
    ) -> Option<T> {
        let begins = self.ranges.first().map_or(0, |r| r.start).saturating_add(TEXT);
        let mut chunks: Vec<Range<u64>> = Vec::new();
        for range in &self.ranges {
            let mut at = range.start;
            while at < range.end {
                let end = at.saturating_add(CHUNK).min(range.end);
                chunks.push(at..end);
                at = end;
            }
        }
        let (text, rest): (Vec<_>, Vec<_>) = chunks.into_iter().partition(|c| c.start < begins);
        let overlap = u64::try_from(pattern.len()).unwrap_or_default();
        let look = |chunk: &Range<u64>| {
            let len = usize::try_from(chunk.end.saturating_sub(chunk.start).saturating_add(overlap)).ok()?;
            let sparse = memory.read_sparse(KVirtAddr(chunk.start), len);
            if sparse.missing.first().is_some_and(|m| m.range.len() >= len) {
                return None;
            }
            places(&sparse.bytes, pattern)
                .find_map(|at| verify(KVirtAddr(chunk.start.checked_add(u64::try_from(at).ok()?)?)))
        };
        [rest, text].iter().find_map(|chunks| chunks.par_iter().find_map_any(look))
    }
}

/// Where `pattern` begins in `bytes`.
fn places<'a>(bytes: &'a [u8], pattern: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let first = pattern.first().copied().unwrap_or_default();
    let starts = bytes.iter().enumerate().filter(move |(_, b)| **b == first).map(|(at, _)| at);
    starts.filter(move |at| bytes.get(*at..).is_some_and(|tail| tail.starts_with(pattern)))
}

/// A table of megabytes, read by several threads: what is there, and what is not. The caller bounds `len`.
pub(super) fn read_table(memory: &KernelMemory<'_>, at: KVirtAddr, len: usize) -> Sparse {
    let mut bytes = vec![0; len];
    let piece = |(number, buf): (usize, &mut [u8])| -> Vec<Missing> {
        let start = number.saturating_mul(PIECE);
        let kaddr = KVirtAddr(at.0.wrapping_add(u64::try_from(start).unwrap_or(u64::MAX)));
        if memory.read(kaddr, buf).is_ok() {
            return Vec::new();
        }
        let part = memory.read_sparse(kaddr, buf.len());
        buf.copy_from_slice(&part.bytes);
        let moved = |m: Missing| Missing {
            range: m.range.start.saturating_add(start)..m.range.end.saturating_add(start),
            why: m.why,
        };
        part.missing.into_iter().map(moved).collect()
    };
    let missing = bytes.par_chunks_mut(PIECE).enumerate().flat_map_iter(piece).collect();
    Sparse { bytes, missing }
}

/// The bytes from `at` on, up to the first that is not there.
pub(super) fn read_until_hole(memory: &KernelMemory<'_>, at: KVirtAddr, len: usize) -> Vec<u8> {
    let mut sparse = memory.read_sparse(at, len);
    if let Some(hole) = sparse.missing.first() {
        sparse.bytes.truncate(hole.range.start);
    }
    sparse.bytes
}
