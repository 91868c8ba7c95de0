//! Bytes at an offset: files, maps, flattened streams. Knows no dump format.

use std::io;
use std::ops::Range;
use std::sync::Arc;

mod file;
mod flattened;
mod mmap;

pub use file::{FileSource, open_file};
pub use flattened::{Flattened, FlattenedError};
pub use mmap::MmapSource;

/// A random-access sequence of bytes that never changes. Shared by threads.
pub trait ReadAt: Send + Sync {
    /// How many bytes there are.
    fn len(&self) -> u64;

    /// True where there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buf` from `offset` on, as far as there are bytes; the count falls short only at the end, or
    /// before bytes that never arrived ([`ReadAt::gaps`]).
    ///
    /// # Errors
    /// What the operating system says of a file that can't be read there; [`NotArrived`] inside an
    /// [`io::Error`] where the first byte asked for never arrived.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// The ranges below [`ReadAt::len`] that never arrived (a stream that was cut has them), ascending and
    /// apart. They are not zeros.
    fn gaps(&self) -> &[Range<u64>] {
        &[]
    }

    /// The first offset from `offset` on at which there may be anything but zeros: what lies before it need not be
    /// read to know it. `None` where only zeros follow, or nothing. A few bytes can announce terabytes of holes.
    fn next_data(&self, offset: u64) -> Option<u64> {
        (offset < self.len()).then_some(offset)
    }
}

/// The bytes at this offset belong to a stream that was cut before they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes of file offset {offset:#x} never arrived, the stream was cut before them")]
pub struct NotArrived {
    /// The offset in the rearranged file.
    pub offset: u64,
}

impl NotArrived {
    /// Finds it inside an error of [`ReadAt::read_at`].
    #[must_use]
    pub fn find(error: &io::Error) -> Option<&Self> {
        error.get_ref().and_then(|inner| inner.downcast_ref())
    }
}

impl From<NotArrived> for io::Error {
    fn from(what: NotArrived) -> Self {
        Self::new(io::ErrorKind::UnexpectedEof, what)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for Arc<T> {
    fn len(&self) -> u64 {
        (**self).len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        (**self).read_at(offset, buf)
    }

    fn gaps(&self) -> &[Range<u64>] {
        (**self).gaps()
    }

    fn next_data(&self, offset: u64) -> Option<u64> {
        (**self).next_data(offset)
    }
}

impl ReadAt for [u8] {
    fn len(&self) -> u64 {
        u64::try_from(<[u8]>::len(self)).unwrap_or(u64::MAX)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        let count = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        Ok(count)
    }
}

impl ReadAt for Vec<u8> {
    fn len(&self) -> u64 {
        ReadAt::len(self.as_slice())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.as_slice().read_at(offset, buf)
    }
}

/// Fills the whole of `buf`.
///
/// # Errors
/// [`io::ErrorKind::UnexpectedEof`] where the source ends before ([`NotArrived`] where it was cut there), and
/// whatever [`ReadAt::read_at`] says.
pub fn read_exact_at(source: &(impl ReadAt + ?Sized), offset: u64, buf: &mut [u8]) -> io::Result<()> {
    if read_as_far(source, offset, buf)? == buf.len() {
        Ok(())
    } else {
        // Asked once more so that a cut stream says which byte it misses.
        let at = offset.saturating_add(u64::try_from(buf.len()).unwrap_or(u64::MAX).saturating_sub(1));
        let gap = source.gaps().iter().find(|gap| gap.start <= at && gap.end > offset);
        Err(gap.map_or_else(
            || io::ErrorKind::UnexpectedEof.into(),
            |gap| NotArrived { offset: gap.start.max(offset) }.into(),
        ))
    }
}

/// Fills `buf` as far as there are bytes: up to the end, or up to the first byte that never arrived.
///
/// # Errors
/// What the operating system says of a file that can't be read there.
pub fn read_as_far(source: &(impl ReadAt + ?Sized), offset: u64, buf: &mut [u8]) -> io::Result<usize> {
    let mut done = 0usize;
    while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let at = offset.checked_add(u64::try_from(done).unwrap_or(u64::MAX));
        let Some(at) = at else { break };
        match source.read_at(at, rest) {
            Ok(0) => break,
            Ok(count) => done = done.saturating_add(count),
            Err(error) if NotArrived::find(&error).is_some() => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// The `size` bytes at `offset`, or as many of them as there are. Allocates no more than the source has.
///
/// # Errors
/// What the operating system says of a file that can't be read there.
pub fn read_vec(source: &(impl ReadAt + ?Sized), offset: u64, size: u64) -> io::Result<Vec<u8>> {
    let there = source.len().saturating_sub(offset).min(size);
    let mut bytes = vec![0; usize::try_from(there).unwrap_or(0)];
    let count = read_as_far(source, offset, &mut bytes)?;
    bytes.truncate(count);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_past_the_end_of_a_slice_gives_what_there_is() {
        let source = vec![1u8, 2, 3];
        let mut buf = [0; 4];
        assert_eq!(source.read_at(1, &mut buf).unwrap(), 2);
        assert_eq!(buf, [2, 3, 0, 0]);
        assert_eq!(source.read_at(u64::MAX, &mut buf).unwrap(), 0);
        assert_eq!(read_exact_at(&source, 2, &mut buf).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(read_vec(&source, 1, u64::MAX).unwrap(), [2, 3]);
    }
}
