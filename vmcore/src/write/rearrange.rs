//! Puts the records of a flattened stream where they belong, as they arrive: the stream may come through a pipe.

use std::io::{self, Read};

use zerocopy::FromBytes;

use super::sink::Sink;
use crate::raw::flattened::{HEADER_BYTES, MakedumpfileDataHeader, SIGNATURE};

/// Bytes of a record that are held at once.
const PIECE: usize = 1 << 20;

/// What a stream gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rearranged {
    /// Length of the dump, in bytes.
    pub bytes: u64,
    /// Records of the stream.
    pub records: u64,
    /// How and where the stream was cut: what is behind that never arrived. `None` where it ends with its end mark.
    pub cut: Option<String>,
}

/// Why a stream can't be rearranged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RearrangeError {
    /// It can't be read.
    #[error("can't be read at stream offset {at:#x}: {source}")]
    Read {
        /// Where in the stream.
        at: u64,
        /// What the operating system says.
        source: io::Error,
    },
    /// The sink can't take it.
    #[error("can't be written at offset {at:#x}: {source}")]
    Write {
        /// Where in the dump.
        at: u64,
        /// What the operating system says.
        source: io::Error,
    },
    /// No signature.
    #[error("is no flattened stream")]
    NotFlattened,
    /// Somebody asked for the stop.
    #[error("was interrupted")]
    Cancelled,
}

/// The stream, and how far it was read.
struct Stream<'r> {
    from: &'r mut dyn Read,
    at: u64,
}

impl Stream<'_> {
    /// Fills `buf` as far as the stream goes.
    fn fill(&mut self, buf: &mut [u8]) -> Result<usize, RearrangeError> {
        let mut got = 0_usize;
        while let Some(room) = buf.get_mut(got..).filter(|room| !room.is_empty()) {
            match self.from.read(room) {
                Ok(0) => break,
                Ok(count) => {
                    got = got.saturating_add(count);
                    self.at = self.at.saturating_add(u64::try_from(count).unwrap_or(0));
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(RearrangeError::Read { at: self.at, source }),
            }
        }
        Ok(got)
    }
}

/// Reads a flattened stream from its first byte to its end mark, and puts each record where it belongs; of records that overlap
/// the last one wins. `cancelled` is asked between pieces.
///
/// # Errors
/// [`RearrangeError`]; a stream that was cut is none, see [`Rearranged::cut`].
pub fn rearrange(
    stream: &mut dyn Read,
    sink: &mut dyn Sink,
    cancelled: &dyn Fn() -> bool,
) -> Result<Rearranged, RearrangeError> {
    let mut stream = Stream { from: stream, at: 0 };
    let mut head = vec![0; usize::try_from(HEADER_BYTES).unwrap_or(4096)];
    let got = stream.fill(&mut head)?;
    if !head.get(..got).is_some_and(|head| head.starts_with(&SIGNATURE)) {
        return Err(RearrangeError::NotFlattened);
    }
    let mut done = Rearranged::default();
    let mut piece = vec![0; PIECE];
    done.cut = loop {
        let begin = stream.at;
        let mut header = [0; 16];
        if stream.fill(&mut header)? < header.len() {
            break Some(format!("ends without its end mark, at stream offset {:#x}", stream.at));
        }
        let Ok(header) = MakedumpfileDataHeader::read_from_bytes(&header) else { break None };
        let (offset, size) = (header.offset.get(), header.buf_size.get());
        if offset == -1 && size == -1 {
            break None;
        }
        let end = offset.checked_add(size);
        let (Ok(mut at), Ok(mut rest), true) = (u64::try_from(offset), u64::try_from(size), end.is_some())
        else {
            break Some(format!("has a record header at stream offset {begin:#x} that makes no sense"));
        };
        done.records = done.records.saturating_add(1);
        while rest > 0 {
            if cancelled() {
                return Err(RearrangeError::Cancelled);
            }
            let count = usize::try_from(rest).unwrap_or(PIECE).min(PIECE);
            let got = stream.fill(piece.get_mut(..count).unwrap_or_default())?;
            let bytes = piece.get(..got).unwrap_or_default();
            sink.put(at, bytes).map_err(|source| RearrangeError::Write { at, source })?;
            let moved = u64::try_from(got).unwrap_or(0);
            at = at.saturating_add(moved);
            rest = rest.saturating_sub(moved);
            if got < count {
                break;
            }
        }
        done.bytes = done.bytes.max(at);
        if rest > 0 {
            break Some(format!("ends inside a record, at stream offset {:#x}", stream.at));
        }
    };
    let at = done.bytes;
    sink.finish(at).map_err(|source| RearrangeError::Write { at, source })?;
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write::{FileSink, FlatSink};

    fn stream() -> Vec<u8> {
        let mut flat = FlatSink::new(Vec::new());
        flat.put(0, b"first").unwrap();
        flat.put(10_000, b"far").unwrap();
        flat.put(0, b"F").unwrap();
        flat.finish(10_003).unwrap();
        flat.into_inner()
    }

    fn back(mut stream: &[u8]) -> (Result<Rearranged, RearrangeError>, Vec<u8>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let done = rearrange(&mut stream, &mut FileSink(file.as_file()), &|| false);
        (done, std::fs::read(file.path()).unwrap())
    }

    #[test]
    fn records_go_where_they_belong_and_the_last_one_wins() {
        let (done, bytes) = back(&stream());
        assert_eq!(done.unwrap(), Rearranged { bytes: 10_003, records: 3, cut: None });
        assert!(bytes.starts_with(b"First\0") && bytes.ends_with(b"\0far"));
        assert_eq!(bytes.len(), 10_003);
    }

    #[test]
    fn a_stream_that_was_cut_says_where_and_keeps_what_arrived() {
        let whole = stream();
        for cut in [4096 + 18, whole.len() - 16, whole.len() - 40] {
            let (done, bytes) = back(&whole[..cut]);
            let why = done.unwrap().cut.unwrap();
            assert!(why.contains(&format!("at stream offset {cut:#x}")), "{why}");
            assert!(bytes.starts_with(if cut == 4096 + 18 { b"fi" } else { b"firs" }));
        }
    }

    #[test]
    fn what_is_no_stream_is_refused_and_a_record_of_nonsense_ends_it() {
        assert!(matches!(back(b"KDUMP   ").0, Err(RearrangeError::NotFlattened)));
        let mut bytes = stream();
        bytes[4096..4104].copy_from_slice(&(-5_i64).to_be_bytes());
        assert!(back(&bytes).0.unwrap().cut.unwrap().contains("makes no sense"));
    }
}
