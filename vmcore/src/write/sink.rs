//! Where a dump goes: a file, or a flattened stream.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::raw::flattened;

/// True where what the operating system says is that there is no room.
#[must_use]
pub fn no_room(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// Takes pieces of a dump, each with its place.
pub trait Sink {
    /// Takes the bytes that belong at `at`.
    ///
    /// # Errors
    /// What the operating system says.
    fn put(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// True where a stretch that is never put reads as zeros.
    fn has_holes(&self) -> bool;

    /// Takes the room for a range, which then reads as zeros and can be put whatever else is. Whoever can't, doesn't.
    ///
    /// # Errors
    /// What the operating system says, above all that there is no room.
    fn reserve(&mut self, _range: Range<u64>) -> io::Result<()> {
        Ok(())
    }

    /// The dump is `len` bytes long, and all of it was put.
    ///
    /// # Errors
    /// What the operating system says.
    fn finish(&mut self, len: u64) -> io::Result<()>;
}

/// A file that was empty.
#[derive(Debug)]
pub struct FileSink<'f>(pub &'f File);

impl Sink for FileSink<'_> {
    fn put(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, at)
    }

    fn has_holes(&self) -> bool {
        true
    }

    fn finish(&mut self, len: u64) -> io::Result<()> {
        // Longer it is where half of a page has found room.
        if self.0.metadata()?.len() == len { Ok(()) } else { self.0.set_len(len) }
    }
}

/// A flattened stream, for what can't seek.
#[derive(Debug)]
pub struct FlatSink<W> {
    to: W,
    begun: bool,
}

impl<W: Write> FlatSink<W> {
    /// A stream that begins with the first piece.
    pub fn new(to: W) -> Self {
        Self { to, begun: false }
    }

    /// What the stream was written to.
    pub fn into_inner(self) -> W {
        self.to
    }

    fn begin(&mut self) -> io::Result<()> {
        if !self.begun {
            self.begun = true;
            let mut header = vec![0; usize::try_from(flattened::HEADER_BYTES).unwrap_or(4096)];
            let parts =
                flattened::SIGNATURE.iter().chain(&[0, 0, 0, 0, 0, 0, 0, 1]).chain(&[0, 0, 0, 0, 0, 0, 0, 1]);
            for (to, from) in header.iter_mut().zip(parts) {
                *to = *from;
            }
            self.to.write_all(&header)?;
        }
        Ok(())
    }
}

impl<W: Write> Sink for FlatSink<W> {
    fn put(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.begin()?;
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX).to_be_bytes();
        self.to.write_all(&number(at))?;
        self.to.write_all(&number(u64::try_from(bytes.len()).unwrap_or(0)))?;
        self.to.write_all(bytes)
    }

    fn has_holes(&self) -> bool {
        false
    }

    fn finish(&mut self, _: u64) -> io::Result<()> {
        self.begin()?;
        self.to.write_all(&[0xff; 16])?;
        self.to.flush()
    }
}
