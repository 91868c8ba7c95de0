//! Bitmaps of frames with an index of ranks: which frames a dump has, and the how-manieth a frame is.
//!
//! One linear read when the dump is opened counts the bits of each 4 KiB; after that a piece is read again when one
//! of its frames is asked for, and kept. Pieces without a bit, and with every bit, are never kept: a machine of
//! terabytes costs 32 bytes for each 128 MiB that nobody asks about.

use std::io;
use std::sync::{Arc, OnceLock};

use crate::source::{ReadAt, read_as_far, read_exact_at};

const PIECE: usize = 4096;
const PIECE_BITS: u64 = 8 * 4096;
/// Bytes that are read at once for the index.
const STEP: u64 = 64 * 4096;

/// What the two bitmaps of a kdump-compressed dump say of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// Not RAM.
    Hole,
    /// RAM, and not stored.
    Excluded,
    /// Stored, with this many stored frames before it.
    Stored(u64),
    /// The bit that would tell is not in the file.
    Unknown,
}

/// The two bitmaps of a kdump-compressed dump.
pub(crate) struct Frames {
    ram: Bitmap,
    stored: Bitmap,
    bits: u64,
    /// Frames that are [`Frame::Excluded`].
    pub(crate) excluded: u64,
    /// Frames that are [`Frame::Unknown`].
    pub(crate) unknown: u64,
}

impl Frames {
    /// Reads both bitmaps once; the same place means that one serves as both. Of `bits` frames the file has room for
    /// `room`.
    pub(crate) fn index(
        source: &Arc<dyn ReadAt>,
        (ram_at, stored_at): (u64, u64),
        bits: u64,
        room: u64,
    ) -> io::Result<Self> {
        let indexed = bits.min(room);
        let mut ram = Indexer::default();
        let mut stored = Indexer::default();
        let (mut excluded, mut unknown) = (0u64, bits.saturating_sub(indexed));
        let bytes = indexed.div_ceil(8);
        let mut done = 0;
        while done < bytes {
            // Holes of the file: a header of some bytes can claim 16 GiB of bitmaps that are nothing else.
            let holes = [ram_at, stored_at]
                .map(|at| hole(&**source, at.saturating_add(done), bytes.saturating_sub(done)));
            let steps = holes.into_iter().min().unwrap_or(0).checked_div(STEP).unwrap_or(0);
            if steps > 0 {
                ram.pass(steps);
                stored.pass(steps);
                done = done.saturating_add(steps.saturating_mul(STEP));
                continue;
            }
            let step = STEP.min(bytes.saturating_sub(done));
            let bits_here = indexed.saturating_sub(done.saturating_mul(8)).min(step.saturating_mul(8));
            ram.read(source, ram_at.saturating_add(done), step, bits_here)?;
            stored.read(source, stored_at.saturating_add(done), step, bits_here)?;
            let both = ram.buf.len().min(stored.buf.len());
            let here = ram.buf.iter().zip(&stored.buf).map(|(r, s)| u64::from((r & !s).count_ones())).sum();
            excluded = excluded.saturating_add(here);
            // Where one bitmap ends first, the other settles a frame only as «stored» or as «not RAM».
            let settled = |buf: &[u8], invert: u8| -> u64 {
                buf.iter().skip(both).map(|byte| u64::from((byte ^ invert).count_ones())).sum()
            };
            let behind = bits_here.saturating_sub(bits_of(both).min(bits_here));
            // The bits behind the last frame were cleared: they are not frames that are no RAM.
            let padding = bits_of(ram.buf.len()).saturating_sub(bits_here);
            let lone_ram = settled(&ram.buf, 0xff).saturating_sub(padding);
            let lone_stored = settled(&stored.buf, 0);
            unknown = unknown.saturating_add(behind.saturating_sub(lone_ram).saturating_sub(lone_stored));
            done = done.saturating_add(step);
            if ram.closed && stored.closed {
                unknown = unknown.saturating_add(indexed.saturating_sub(done.saturating_mul(8)));
                break;
            }
        }
        let (ram, stored) = (ram.finish(source, ram_at), stored.finish(source, stored_at));
        Ok(Self { ram, stored, bits, excluded, unknown })
    }

    /// What is known of a frame.
    pub(crate) fn frame(&self, number: u64) -> Frame {
        if number >= self.bits {
            return Frame::Hole;
        }
        match (self.stored.get(number), self.ram.get(number)) {
            (Some(true), _) => self.stored.rank(number).map_or(Frame::Unknown, Frame::Stored),
            (Some(false), Some(true)) => Frame::Excluded,
            (_, Some(false)) => Frame::Hole,
            (_, None) | (None, Some(true)) => Frame::Unknown,
        }
    }

    /// Stored frames before this one; `None` where the bits that would tell are not in the file.
    pub(crate) fn rank(&self, number: u64) -> Option<u64> {
        self.stored.rank(number)
    }

    /// All stored frames that are known of.
    pub(crate) fn stored(&self) -> u64 {
        self.stored.ranks.last().copied().unwrap_or(0)
    }

    /// Frames whose «stored» bit could be read, from the first on.
    pub(crate) fn known(&self) -> u64 {
        self.stored.known
    }

    /// The first frame from `number` on that is not a hole.
    pub(crate) fn next(&self, number: u64) -> Option<u64> {
        let mut number = number;
        while number < self.bits {
            // Whole pieces of holes are passed over by their counts.
            let empty = |map: &Bitmap| map.piece_is_empty(number);
            if empty(&self.ram) && empty(&self.stored) {
                number = number.checked_add(PIECE_BITS)? & !(PIECE_BITS - 1);
            } else if self.frame(number) == Frame::Hole {
                number = number.checked_add(1)?;
            } else {
                return Some(number);
            }
        }
        None
    }

    /// The first frame from `number` on that is stored. A header can claim 2^36 frames over a bitmap of one block: the
    /// walk ends with the bits that could be read.
    pub(crate) fn next_stored(&self, number: u64) -> Option<u64> {
        let end = self.bits.min(self.stored.known);
        let mut number = number;
        while number < end {
            if self.stored.piece_is_empty(number) {
                number = number.checked_add(PIECE_BITS)? & !(PIECE_BITS - 1);
            } else if self.stored.get(number) == Some(true) {
                return Some(number);
            } else {
                number = number.checked_add(1)?;
            }
        }
        None
    }
}

/// How many bytes from `at` on, of `most`, are in the source and known to be zeros.
fn hole(source: &dyn ReadAt, at: u64, most: u64) -> u64 {
    let end = source.next_data(at).unwrap_or_else(|| source.len());
    end.saturating_sub(at).min(most)
}

fn bits_of(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(8)
}

/// A bitmap in a file: one bit per frame, the lowest bit of a byte first.
struct Bitmap {
    source: Arc<dyn ReadAt>,
    at: u64,
    /// Bits that could be read, from the first on.
    known: u64,
    /// Set bits before each piece, and at the end.
    ranks: Vec<u64>,
    pieces: Box<[OnceLock<Option<PieceBits>>]>,
}

/// The bytes of one piece.
type PieceBits = Box<[u8]>;

/// A piece's content, or what stands for it.
enum Piece<'a> {
    Clear,
    Full,
    Bits(&'a [u8]),
}

impl Bitmap {
    fn piece(&self, number: u64) -> Option<Piece<'_>> {
        let index = usize::try_from(number.checked_div(PIECE_BITS)?).ok()?;
        let before = self.ranks.get(index)?;
        let after = self.ranks.get(index.checked_add(1)?)?;
        match after.saturating_sub(*before) {
            0 => Some(Piece::Clear),
            PIECE_BITS => Some(Piece::Full),
            _ => self.load(index).map(Piece::Bits),
        }
    }

    fn load(&self, index: usize) -> Option<&[u8]> {
        let piece = self.pieces.get(index)?.get_or_init(|| {
            let first = u64::try_from(index).ok()?.checked_mul(PIECE_BITS)?;
            let bits = self.known.checked_sub(first)?.min(PIECE_BITS);
            let mut bytes = vec![0; usize::try_from(bits.div_ceil(8)).ok()?];
            // It could be read a moment ago: a file that changed since has lost these frames.
            read_exact_at(&*self.source, self.at.checked_add(first / 8)?, &mut bytes).ok()?;
            Some(bytes.into())
        });
        piece.as_deref()
    }

    fn get(&self, number: u64) -> Option<bool> {
        if number >= self.known {
            return None;
        }
        match self.piece(number)? {
            Piece::Clear => Some(false),
            Piece::Full => Some(true),
            Piece::Bits(bytes) => {
                let bit = number % PIECE_BITS;
                let byte = bytes.get(usize::try_from(bit / 8).ok()?)?;
                Some(byte & (1u8.checked_shl(u32::try_from(bit & 7).ok()?)?) != 0)
            }
        }
    }

    /// True where no bit of the piece that holds `number` is set, and all of them are known.
    fn piece_is_empty(&self, number: u64) -> bool {
        let end = number.checked_add(PIECE_BITS).map_or(u64::MAX, |end| end & !(PIECE_BITS - 1));
        end <= self.known && matches!(self.piece(number), Some(Piece::Clear))
    }

    fn rank(&self, number: u64) -> Option<u64> {
        if number >= self.known {
            return (number == self.known).then(|| self.ranks.last().copied()).flatten();
        }
        let before = *self.ranks.get(usize::try_from(number / PIECE_BITS).ok()?)?;
        let bit = number % PIECE_BITS;
        Some(match self.piece(number)? {
            Piece::Clear => before,
            Piece::Full => before.saturating_add(bit),
            Piece::Bits(bytes) => {
                let whole = usize::try_from(bit / 8).ok()?;
                let below = 1u8.checked_shl(u32::try_from(bit & 7).ok()?)?.wrapping_sub(1);
                let last = bytes.get(whole)? & below;
                before.saturating_add(ones(bytes.get(..whole)?)).saturating_add(last.count_ones().into())
            }
        })
    }
}

fn ones(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let words: u64 = words.iter().map(|word| u64::from(u64::from_le_bytes(*word).count_ones())).sum();
    let rest: u64 = rest.iter().map(|byte| u64::from(byte.count_ones())).sum();
    words.saturating_add(rest)
}

/// Counts a bitmap piece by piece while it is read for the first time.
#[derive(Default)]
struct Indexer {
    buf: Vec<u8>,
    known: u64,
    ranks: Vec<u64>,
    sum: u64,
    /// The file ended inside: what comes after is unknown.
    closed: bool,
}

impl Indexer {
    /// Reads the next `step` bytes, of which `bits` bits count; `buf` then holds those that are there.
    fn read(&mut self, source: &Arc<dyn ReadAt>, at: u64, step: u64, bits: u64) -> io::Result<()> {
        self.buf.clear();
        if self.closed {
            return Ok(());
        }
        self.buf.resize(usize::try_from(step).unwrap_or(0), 0);
        let got = read_as_far(&**source, at, &mut self.buf)?;
        self.closed = got < self.buf.len();
        self.buf.truncate(got);
        if !self.closed && bits & 7 != 0 {
            // Bits behind the last frame are no frames.
            let below = 1u8.wrapping_shl(u32::try_from(bits & 7).unwrap_or(0)).wrapping_sub(1);
            if let Some(last) = self.buf.last_mut() {
                *last &= below;
            }
        }
        for piece in self.buf.chunks(PIECE) {
            self.ranks.push(self.sum);
            self.sum = self.sum.saturating_add(ones(piece));
        }
        self.known = self.known.saturating_add(bits_of(got).min(bits));
        Ok(())
    }

    /// Passes over steps of clear bits without reading them.
    fn pass(&mut self, steps: u64) {
        let bytes = usize::try_from(steps.saturating_mul(STEP)).unwrap_or(usize::MAX);
        let pieces = bytes.checked_div(PIECE).unwrap_or(0);
        self.ranks.resize(self.ranks.len().saturating_add(pieces), self.sum);
        self.known = self.known.saturating_add(bits_of(bytes));
    }

    fn finish(mut self, source: &Arc<dyn ReadAt>, at: u64) -> Bitmap {
        let pieces = self.ranks.iter().map(|_| OnceLock::new()).collect();
        self.ranks.push(self.sum);
        Bitmap { source: Arc::clone(source), at, known: self.known, ranks: self.ranks, pieces }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Frame::{Excluded, Hole, Stored};
    use super::*;

    fn frames(bytes: Vec<u8>, ram: u64, stored: u64, bits: u64) -> Frames {
        let source: Arc<dyn ReadAt> = Arc::new(bytes);
        Frames::index(&source, (ram, stored), bits, u64::MAX).unwrap()
    }

    #[test]
    fn frames_are_stored_excluded_or_holes() {
        let map = frames(vec![0b0000_1111, 0b0000_1010], 0, 1, 6);
        let all: Vec<Frame> = (0..8).map(|n| map.frame(n)).collect();
        assert_eq!(all, [Excluded, Stored(0), Excluded, Stored(1), Hole, Hole, Hole, Hole]);
        assert_eq!((map.excluded, map.unknown, map.stored()), (2, 0, 2));
    }

    #[test]
    fn holes_of_the_file_are_clear_bits_that_nobody_reads() {
        /// Zeros for ever, but for one byte of each bitmap; what is read of the rest fails.
        struct Holes(u64, u64);
        impl ReadAt for Holes {
            fn len(&self) -> u64 {
                1 << 40
            }
            fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
                let near = |data: u64| offset.abs_diff(data) <= STEP;
                if !near(self.0) && !near(self.1) {
                    return Err(io::ErrorKind::Other.into());
                }
                buf.fill(0);
                for data in [self.0, self.1] {
                    if let Some(byte) =
                        data.checked_sub(offset).and_then(|at| buf.get_mut(usize::try_from(at).ok()?))
                    {
                        *byte = 0b11;
                    }
                }
                Ok(buf.len())
            }
            fn next_data(&self, offset: u64) -> Option<u64> {
                [self.0, self.1].into_iter().filter(|data| *data >= offset).min()
            }
        }
        let (second, byte) = (1 << 33, 5 * STEP + 100);
        let source: Arc<dyn ReadAt> = Arc::new(Holes(byte, second + byte + 8));
        let map = Frames::index(&source, (0, second), 1 << 36, u64::MAX).unwrap();
        assert_eq!((map.excluded, map.unknown, map.stored(), map.known()), (2, 0, 2, 1 << 36));
        assert_eq!(map.next(0), Some(byte * 8));
        assert_eq!(map.frame(byte * 8 + 1), Excluded);
        assert_eq!(map.next_stored(0), Some(byte * 8 + 64));
        assert_eq!(map.frame(byte * 8 + 65), Stored(1));
        assert_eq!(map.frame((1 << 36) - 1), Hole);
    }

    #[test]
    fn a_bitmap_that_was_cut_leaves_its_frames_unknown() {
        // RAM: frames 0 to 15. Stored: cut after 8 frames.
        let map = frames(vec![0xff, 0x0f, 0x01], 0, 2, 16);
        assert_eq!(map.frame(0), Frame::Stored(0));
        assert_eq!(map.frame(1), Frame::Excluded);
        assert_eq!(map.frame(8), Frame::Unknown);
        assert_eq!(map.frame(12), Frame::Hole);
        assert_eq!((map.excluded, map.unknown, map.known()), (7, 4, 8));
        // Both cut.
        let map = frames(vec![0xff], 0, 100, 20);
        assert_eq!(map.unknown, 20);
        assert_eq!(map.frame(19), Frame::Unknown);
    }

    #[test]
    fn ranks_hold_across_pieces() {
        let mut bytes = vec![0; 3 * 4096];
        bytes[..4096].fill(0xff);
        bytes[2 * 4096 + 5] = 0b100;
        let map = frames(bytes, 0, 0, 3 * PIECE_BITS);
        assert_eq!(map.frame(100), Frame::Stored(100));
        assert_eq!(map.frame(PIECE_BITS), Frame::Hole);
        let lone = 2 * PIECE_BITS + 42;
        assert_eq!(map.frame(lone), Frame::Stored(PIECE_BITS));
        assert_eq!(map.next(PIECE_BITS), Some(lone));
        assert_eq!(map.next(lone + 1), None);
        assert_eq!(map.rank(3 * PIECE_BITS), Some(PIECE_BITS + 1));
    }

    proptest! {
        #[test]
        fn agrees_with_counting_bit_by_bit(
            ram in prop::collection::vec(any::<u8>(), 1..40),
            stored in prop::collection::vec(any::<u8>(), 0..40),
            bits in 1u64..400,
        ) {
            // One after the other with a hole between: each ends where the source has a gap in the real thing.
            let ram_len = ram.len() as u64;
            let bit = |map: &[u8], n: u64| map.get(n as usize / 8).map(|byte| byte >> (n % 8) & 1 == 1);
            let bits = bits.min(ram_len * 8);
            let bytes = [ram.clone(), stored.clone()].concat();
            let map = frames(bytes, 0, ram_len, bits);
            let (mut rank, mut excluded, mut unknown) = (0, 0, 0);
            for n in 0..bits {
                let expected = match (bit(&stored, n), bit(&ram, n)) {
                    (Some(true), _) => { rank += 1; Frame::Stored(rank - 1) }
                    (Some(false), Some(true)) => { excluded += 1; Frame::Excluded }
                    (_, Some(false)) => Frame::Hole,
                    _ => { unknown += 1; Frame::Unknown }
                };
                prop_assert_eq!(map.frame(n), expected, "frame {}", n);
            }
            prop_assert_eq!((map.stored(), map.excluded, map.unknown), (rank, excluded, unknown));
        }
    }
}
