//! Flattened streams (`makedumpfile -F`, QEMU's kdump formats) as the file that they would be rearranged to.
//!
//! One pass over the record headers builds an index sorted by offset; no record's bytes are read for it. Records
//! come in any order and may overlap: the last one written wins. (makedumpfile writes the dump's header twice,
//! the second time with its final status.) Holes between records are zeros in a stream with its end marker. In a
//! stream that was cut they are bytes that never arrived, and reading them is an error.

use std::collections::BinaryHeap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use zerocopy::FromBytes;

use super::{NotArrived, ReadAt, read_as_far};
use crate::limits::Limits;
use crate::raw::flattened::{HEADER_BYTES, MakedumpfileDataHeader, MakedumpfileHeader, SIGNATURE};

/// Why a flattened stream can't be indexed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FlattenedError {
    /// The operating system could not read the stream.
    #[error("can't be read: {0}")]
    Io(#[from] io::Error),
    /// No signature.
    #[error("has no signature of a flattened stream")]
    NotFlattened,
    /// Not one whole record.
    #[error("holds no record")]
    NoRecord,
    /// More records than [`Limits::flattened_records`].
    #[error("holds more than {0} records")]
    TooManyRecords(u64),
}

/// Bytes of the rearranged file from `start` to `end`, which lie at `at` in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    start: u64,
    end: u64,
    at: u64,
}

/// A flattened stream, read as the file that it would be rearranged to.
pub struct Flattened {
    stream: Arc<dyn ReadAt>,
    /// Sorted by `start`, none overlaps.
    extents: Vec<Extent>,
    gaps: Vec<Range<u64>>,
    len: u64,
    records: u64,
    cut: Option<String>,
}

impl std::fmt::Debug for Flattened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flattened")
            .field("records", &self.records)
            .field("len", &self.len)
            .field("cut", &self.cut)
            .finish_non_exhaustive()
    }
}

impl Flattened {
    /// True for bytes that begin as a flattened stream does.
    #[must_use]
    pub fn detect(head: &[u8]) -> bool {
        head.starts_with(&SIGNATURE)
    }

    /// Reads the record headers, from the first to the end marker or to where the stream was cut.
    ///
    /// # Errors
    /// [`FlattenedError`]; a stream that was cut is no error, see [`Flattened::cut`].
    pub fn index(stream: Arc<dyn ReadAt>, limits: &Limits) -> Result<Self, FlattenedError> {
        let mut window = Window::new(&*stream);
        let head = window.bytes(0, size_of::<MakedumpfileHeader>())?;
        let header = MakedumpfileHeader::read_from_bytes(head).map_err(|_| FlattenedError::NotFlattened)?;
        if header.signature != SIGNATURE {
            return Err(FlattenedError::NotFlattened);
        }
        let stream_len = stream.len();
        let mut found = Vec::new();
        let mut records = 0u64;
        let mut len = 0u64;
        let mut at = HEADER_BYTES;
        let cut = loop {
            let Ok(header) = MakedumpfileDataHeader::read_from_bytes(
                window.bytes(at, size_of::<MakedumpfileDataHeader>())?,
            ) else {
                break Some(format!("ends without its end marker, at stream offset {stream_len:#x}"));
            };
            let (offset, size) = (header.offset.get(), header.buf_size.get());
            if offset == -1 && size == -1 {
                break None;
            }
            let data = at.saturating_add(16);
            let (Ok(start), Ok(size)) = (u64::try_from(offset), u64::try_from(size)) else {
                break Some(format!("has a record header at stream offset {at:#x} that makes no sense"));
            };
            let Some(end) = start.checked_add(size).filter(|end| i64::try_from(*end).is_ok()) else {
                break Some(format!("has a record header at stream offset {at:#x} that makes no sense"));
            };
            records = records.saturating_add(1);
            if records > limits.flattened_records {
                return Err(FlattenedError::TooManyRecords(limits.flattened_records));
            }
            len = len.max(end);
            let there = size.min(stream_len.saturating_sub(data));
            if there > 0 {
                found.push(Extent { start, end: start.saturating_add(there), at: data });
            }
            if there < size {
                break Some(format!("ends inside a record, at stream offset {stream_len:#x}"));
            }
            at = data.saturating_add(size);
        };
        if found.is_empty() {
            return Err(FlattenedError::NoRecord);
        }
        let extents = last_wins(found);
        let gaps = if cut.is_some() { holes(&extents, len) } else { Vec::new() };
        Ok(Self { stream, extents, gaps, len, records, cut })
    }

    /// Where and how the stream was cut; `None` where it ends with its end marker.
    #[must_use]
    pub fn cut(&self) -> Option<&str> {
        self.cut.as_deref()
    }

    /// Records of the stream.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Bytes of the stream itself.
    #[must_use]
    pub fn stream_len(&self) -> u64 {
        self.stream.len()
    }
}

impl ReadAt for Flattened {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX).min(buf.len());
        let mut next = self.extents.partition_point(|extent| extent.end <= offset);
        let mut done = 0usize;
        while let Some(rest) = buf.get_mut(done..wanted).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(u64::try_from(done).unwrap_or(u64::MAX));
            let room = u64::try_from(rest.len()).unwrap_or(u64::MAX);
            let extent = self.extents.get(next);
            let count = match extent {
                Some(extent) if extent.start <= at => {
                    let count = to_usize(room.min(extent.end.saturating_sub(at)));
                    let from = extent.at.saturating_add(at.saturating_sub(extent.start));
                    let Some(rest) = rest.get_mut(..count) else { break };
                    next = next.saturating_add(1);
                    let got = read_as_far(&*self.stream, from, rest)?;
                    if got < count {
                        // The stream was cut after it was indexed.
                        return if done == 0 && got == 0 {
                            Err(NotArrived { offset: at }.into())
                        } else {
                            Ok(done.saturating_add(got))
                        };
                    }
                    count
                }
                _ if self.cut.is_some() => {
                    return if done == 0 { Err(NotArrived { offset: at }.into()) } else { Ok(done) };
                }
                next => {
                    let hole = next.map_or(room, |next| next.start.saturating_sub(at));
                    let count = to_usize(room.min(hole));
                    if let Some(rest) = rest.get_mut(..count) {
                        rest.fill(0);
                    }
                    count
                }
            };
            done = done.saturating_add(count);
        }
        Ok(done)
    }

    fn gaps(&self) -> &[Range<u64>] {
        &self.gaps
    }

    fn next_data(&self, offset: u64) -> Option<u64> {
        // The holes of a stream that was cut are no zeros: they have to be met where they are read.
        if self.cut.is_some() {
            return (offset < self.len).then_some(offset);
        }
        let next = self.extents.partition_point(|extent| extent.end <= offset);
        self.extents.get(next).map(|extent| extent.start.max(offset))
    }
}

fn to_usize(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// Makes of overlapping extents ones that don't: each byte from the extent that lies last in the stream.
fn last_wins(mut found: Vec<Extent>) -> Vec<Extent> {
    found.sort_unstable_by_key(|extent| extent.start);
    if found.iter().zip(found.iter().skip(1)).all(|(a, b)| a.end <= b.start) {
        return found;
    }
    let mut out: Vec<Extent> = Vec::with_capacity(found.len());
    // The extents that hold `at`, and some that ended before; the one last in the stream is on top.
    let mut open: BinaryHeap<(u64, u64, u64)> = BinaryHeap::new();
    let mut starts = found.iter().peekable();
    let mut at = 0;
    loop {
        while let Some(extent) = starts.next_if(|extent| extent.start <= at) {
            open.push((extent.at, extent.start, extent.end));
        }
        while open.peek().is_some_and(|(_, _, end)| *end <= at) {
            open.pop();
        }
        let next = starts.peek().map(|extent| extent.start);
        let Some((from, start, end)) = open.peek() else {
            let Some(next) = next else { return out };
            at = next;
            continue;
        };
        let end = next.map_or(*end, |next| next.min(*end));
        let from = from.saturating_add(at.saturating_sub(*start));
        match out.last_mut() {
            // The same record goes on behind a start that it hid.
            Some(last) if last.end == at && last.at.saturating_add(at.saturating_sub(last.start)) == from => {
                last.end = end;
            }
            _ => out.push(Extent { start: at, end, at: from }),
        }
        at = end;
    }
}

/// What lies between the extents, below `len`.
fn holes(extents: &[Extent], len: u64) -> Vec<Range<u64>> {
    let mut holes = Vec::new();
    let mut at = 0;
    for extent in extents {
        if extent.start > at {
            holes.push(at..extent.start);
        }
        at = extent.end;
    }
    if len > at {
        holes.push(at..len);
    }
    holes
}

/// Reads small pieces at ascending offsets with few system calls: what is read ahead grows while the pieces lie
/// close together, and shrinks where long records lie between them, so that these are not read.
struct Window<'a> {
    source: &'a dyn ReadAt,
    start: u64,
    bytes: Vec<u8>,
    ahead: usize,
}

impl<'a> Window<'a> {
    const MIN: usize = 64;
    const MAX: usize = 256 << 10;

    fn new(source: &'a dyn ReadAt) -> Self {
        Self { source, start: 0, bytes: Vec::new(), ahead: 4096 }
    }

    /// The `count` bytes at `at`, or fewer where the source ends.
    fn bytes(&mut self, at: u64, count: usize) -> io::Result<&[u8]> {
        let inside = |start: u64, len: usize| {
            let from = usize::try_from(at.checked_sub(start)?).ok()?;
            let to = from.checked_add(count)?;
            (to <= len).then_some(from..to)
        };
        let mut range = inside(self.start, self.bytes.len());
        if range.is_none() {
            let end = self.start.saturating_add(u64::try_from(self.bytes.len()).unwrap_or(u64::MAX));
            let near = at.saturating_sub(end) < u64::try_from(self.ahead).unwrap_or(u64::MAX);
            self.ahead = if near { self.ahead.saturating_mul(2) } else { self.ahead.wrapping_div(2) };
            self.ahead = self.ahead.clamp(Self::MIN, Self::MAX).max(count);
            self.start = at;
            self.bytes.resize(self.ahead, 0);
            let got = read_as_far(self.source, at, &mut self.bytes)?;
            self.bytes.truncate(got);
            range = Some(0..count.min(got));
        }
        Ok(range.and_then(|range| self.bytes.get(range)).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::source::read_exact_at;

    fn stream(records: &[(i64, &[u8])], end: bool) -> Vec<u8> {
        let mut out = vec![0; 4096];
        out[..12].copy_from_slice(b"makedumpfile");
        out[23] = 1;
        out[31] = 1;
        for (offset, data) in records {
            out.extend(offset.to_be_bytes());
            out.extend((data.len() as u64).to_be_bytes());
            out.extend(*data);
        }
        if end {
            out.extend([0xff; 16]);
        }
        out
    }

    fn open(bytes: Vec<u8>) -> Result<Flattened, FlattenedError> {
        Flattened::index(Arc::new(bytes), &Limits::default())
    }

    #[test]
    fn records_in_any_order_make_one_file() {
        let flat = open(stream(&[(4, b"4567"), (0, b"0123"), (8, b"89")], true)).unwrap();
        let mut buf = [0; 10];
        read_exact_at(&flat, 0, &mut buf).unwrap();
        assert_eq!(&buf, b"0123456789");
        assert_eq!((flat.len(), flat.records(), flat.cut()), (10, 3, None));
    }

    #[test]
    fn last_record_wins_where_two_overlap() {
        let flat = open(stream(&[(0, b"aaaaaaaa"), (2, b"bb"), (6, b"ccc"), (2, b"d")], true)).unwrap();
        let mut buf = [0; 9];
        read_exact_at(&flat, 0, &mut buf).unwrap();
        assert_eq!(&buf, b"aadbaaccc");
    }

    #[test]
    fn holes_are_zeros_only_with_the_end_marker() {
        let records: &[(i64, &[u8])] = &[(0, b"ab"), (6, b"gh")];
        let mut buf = [9; 8];
        read_exact_at(&open(stream(records, true)).unwrap(), 0, &mut buf).unwrap();
        assert_eq!(&buf, b"ab\0\0\0\0gh");

        let whole = open(stream(records, true)).unwrap();
        let next: Vec<_> = [0, 1, 2, 5, 6, 7, 8].map(|at| whole.next_data(at)).into();
        assert_eq!(next, [Some(0), Some(1), Some(6), Some(6), Some(6), Some(7), None]);

        let cut = open(stream(records, false)).unwrap();
        assert_eq!(cut.next_data(3), Some(3), "what never arrived is no hole");
        assert_eq!((cut.gaps().len(), &cut.gaps()[0]), (1, &(2..6)));
        assert_eq!(cut.cut().unwrap(), "ends without its end marker, at stream offset 0x1024");
        let err = read_exact_at(&cut, 0, &mut buf).unwrap_err();
        assert_eq!(NotArrived::find(&err), Some(&NotArrived { offset: 2 }));
        assert_eq!(cut.read_at(0, &mut buf).unwrap(), 2);
        assert_eq!(
            cut.read_at(3, &mut buf).unwrap_err().to_string(),
            "the bytes of file offset 0x3 never arrived, the stream was cut before them"
        );
        read_exact_at(&cut, 6, &mut buf[..2]).unwrap();
    }

    #[test]
    fn a_stream_cut_anywhere_is_readable_up_to_there() {
        let whole = stream(&[(0, b"0123456789"), (20, b"kl"), (10, b"abcdefghij")], true);
        let truth = b"0123456789abcdefghijkl";
        for len in 0..whole.len() {
            let Ok(flat) = open(whole[..len].to_vec()) else {
                assert!(len <= 4096 + 16, "cut at {len}");
                continue;
            };
            assert!(flat.cut().is_some(), "cut at {len}");
            for (at, byte) in truth.iter().enumerate() {
                let mut buf = [0];
                match flat.read_at(at as u64, &mut buf) {
                    Ok(1) => assert_eq!(buf[0], *byte),
                    Ok(_) => assert!(at as u64 >= flat.len()),
                    Err(e) => assert!(NotArrived::find(&e).is_some()),
                }
            }
        }
    }

    #[test]
    fn a_record_header_that_makes_no_sense_ends_the_stream() {
        for (offset, size) in [(-2i64, 1i64), (0, -7), (i64::MAX, 1), (i64::MAX, i64::MAX), (-1, 0)] {
            let mut bytes = stream(&[(0, b"abc")], false);
            bytes.extend(offset.to_be_bytes());
            bytes.extend(size.to_be_bytes());
            bytes.extend([0; 64]);
            let flat = open(bytes).unwrap();
            assert_eq!(
                flat.cut().unwrap(),
                "has a record header at stream offset 0x1013 that makes no sense",
                "{offset} {size}"
            );
            assert_eq!(flat.len(), 3);
        }
    }

    #[test]
    fn too_many_records_are_refused() {
        let limits = Limits { flattened_records: 2, ..Limits::default() };
        let bytes = stream(&[(0, b"a"), (1, b"b"), (2, b"c")], true);
        let err = Flattened::index(Arc::new(bytes), &limits).unwrap_err();
        assert_eq!(err.to_string(), "holds more than 2 records");
    }

    #[test]
    fn long_records_are_not_read_for_the_index() {
        use std::sync::atomic::{AtomicU64, Ordering};
        struct Counting(Vec<u8>, Arc<AtomicU64>);
        impl ReadAt for Counting {
            fn len(&self) -> u64 {
                ReadAt::len(&self.0)
            }
            fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
                self.1.fetch_add(buf.len() as u64, Ordering::Relaxed);
                self.0.read_at(offset, buf)
            }
        }
        let data = vec![7; 64 << 10];
        let records: Vec<(i64, &[u8])> = (0..200).map(|i| (i * 0x10000, &data[..])).collect();
        let read = Arc::new(AtomicU64::new(0));
        let source = Counting(stream(&records, true), read.clone());
        Flattened::index(Arc::new(source), &Limits::default()).unwrap();
        assert!(read.load(Ordering::Relaxed) < 64 << 10, "{read:?} bytes read of 13 MB");
    }

    proptest! {
        #[test]
        fn agrees_with_writing_the_records_one_by_one(
            records in prop::collection::vec((0i64..64, prop::collection::vec(any::<u8>(), 0..16)), 1..40),
            at in 0u64..80, count in 0usize..80,
        ) {
            let mut truth: Vec<u8> = Vec::new();
            for (offset, data) in &records {
                let end = *offset as usize + data.len();
                if truth.len() < end { truth.resize(end, 0); }
                truth[*offset as usize..end].copy_from_slice(data);
            }
            let refs: Vec<(i64, &[u8])> = records.iter().map(|(o, d)| (*o, &d[..])).collect();
            if let Ok(flat) = open(stream(&refs, true)) {
                prop_assert_eq!(flat.len(), truth.len() as u64);
                let mut buf = vec![0; count];
                let got = read_as_far(&flat, at, &mut buf).unwrap();
                let want = truth.get(at as usize..).unwrap_or_default();
                prop_assert_eq!(&buf[..got], &want[..count.min(want.len())]);
            } else {
                prop_assert!(records.iter().all(|(_, d)| d.is_empty()));
            }
        }

        #[test]
        fn any_bytes_are_indexed_or_refused(tail in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = stream(&[(0, b"abc")], false);
            bytes.extend(tail);
            let flat = open(bytes).unwrap();
            let mut buf = [0; 64];
            let _ = flat.read_at(0, &mut buf);
        }
    }
}
