//! A large object of the kernel, read piece by piece as it is walked.

use std::ops::Range;

use crate::addr::KVirtAddr;
use crate::xlat::{KernelMemory, Sparse};

/// Bytes in a piece: enough that a walk costs few reads, little enough that an unused ring costs none.
const PIECE: u64 = 64 << 10;

/// Pieces kept. A walk is sequential, and an entry lies in two pieces at most; a ring's wrap needs the first one again.
const KEPT: usize = 2;

/// An array or ring of the kernel, of which only the pieces in use are in memory.
pub(crate) struct Window<'k, 'm> {
    memory: &'k KernelMemory<'m>,
    start: KVirtAddr,
    len: u64,
    pieces: Vec<(u64, Sparse)>,
}

/// Bytes of a [`Window`], with what of them is not there.
#[derive(Debug, Default)]
pub(crate) struct Bytes {
    /// Only the bytes that are there, in order.
    pub(crate) have: Vec<u8>,
    /// How many are not there.
    pub(crate) missing: usize,
    /// Why the first of them is not there.
    pub(crate) why: Option<String>,
}

impl<'k, 'm> Window<'k, 'm> {
    /// The `len` bytes at `start`. Nothing is read yet.
    pub(crate) fn new(memory: &'k KernelMemory<'m>, start: KVirtAddr, len: u64) -> Self {
        Self { memory, start, len, pieces: Vec::new() }
    }

    /// How many bytes it spans.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Reads `range`, as far as it lies inside the window.
    pub(crate) fn bytes(&mut self, range: Range<u64>) -> Bytes {
        let mut out = Bytes::default();
        let end = range.end.min(self.len);
        let mut at = range.start;
        while at < end {
            let piece_no = at.checked_div(PIECE).unwrap_or_default();
            let piece_start = piece_no.saturating_mul(PIECE);
            let stop = end.min(piece_start.saturating_add(PIECE));
            self.load(piece_no, piece_start);
            let Some((_, piece)) = self.pieces.iter().find(|(no, _)| *no == piece_no) else { break };
            let from = usize::try_from(at.saturating_sub(piece_start)).unwrap_or(usize::MAX);
            let to = usize::try_from(stop.saturating_sub(piece_start)).unwrap_or(usize::MAX);
            append(&mut out, piece, from..to);
            at = stop;
        }
        out
    }

    /// Exactly `N` bytes at `at`, or why they can't be had.
    pub(crate) fn exact(&mut self, at: u64, len: u64) -> Result<Vec<u8>, String> {
        let past = || format!("it ends before offset {at:#x} and {len} bytes more");
        let end = at.checked_add(len).filter(|e| *e <= self.len).ok_or_else(past)?;
        let bytes = self.bytes(at..end);
        match bytes.why {
            None => Ok(bytes.have),
            Some(why) => Err(why),
        }
    }

    fn load(&mut self, piece_no: u64, piece_start: u64) {
        if let Some(at) = self.pieces.iter().position(|(no, _)| *no == piece_no) {
            // The one used last stays longest.
            self.pieces.rotate_left(at);
            return;
        }
        let len = self.len.saturating_sub(piece_start).min(PIECE);
        let sparse = match self.start.checked_add(piece_start) {
            Some(kaddr) => self.memory.read_sparse(kaddr, usize::try_from(len).unwrap_or_default()),
            None => Sparse::default(),
        };
        self.pieces.truncate(KEPT.saturating_sub(1));
        self.pieces.insert(0, (piece_no, sparse));
    }
}

/// Appends the bytes of `range` that are there, and counts the others.
fn append(out: &mut Bytes, piece: &Sparse, range: Range<usize>) {
    let mut at = range.start;
    for missing in piece.missing.iter().filter(|m| m.range.start < range.end && range.start < m.range.end) {
        let hole = missing.range.start.max(range.start)..missing.range.end.min(range.end);
        out.have.extend_from_slice(piece.bytes.get(at..hole.start).unwrap_or_default());
        out.missing = out.missing.saturating_add(hole.len());
        if out.why.is_none() {
            out.why = Some(missing.why.to_string());
        }
        at = hole.end;
    }
    out.have.extend_from_slice(piece.bytes.get(at..range.end).unwrap_or_default());
}
