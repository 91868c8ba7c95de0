//! A file mapped into memory: the one place with `unsafe`.
//!
//! A map saves a system call per read. It is the caller's choice, and only for a local file that is complete
//! and that nobody cuts: touching a page past a new end ends the process with SIGBUS, as does a disk error.
#![expect(unsafe_code, reason = "mapping a file is unsafe, and this module is there to hold it")]

use std::io;
use std::ops::Range;

use memmap2::{Advice, Mmap, UncheckedAdvice};

use super::{FileSource, ReadAt};

/// A file mapped into memory.
#[derive(Debug)]
pub struct MmapSource {
    map: Mmap,
}

impl MmapSource {
    /// Maps a file as long as it is now.
    ///
    /// # Errors
    /// What the operating system says: many file systems of `/proc` and some FUSE ones can't be mapped.
    pub fn new(file: &FileSource) -> io::Result<Self> {
        // SAFETY: the map is private and read-only. Another process that changes the file changes bytes that are
        // only ever copied out and treated as hostile; one that cuts it is excluded by the caller's choice, which
        // the module's documentation states.
        let map = unsafe { Mmap::map(file.file())? };
        // Frames are read in no order of the file; a refusal changes nothing but the speed.
        let _ = map.advise(Advice::Random);
        Ok(Self { map })
    }

    /// Tells the system that the file is read in its order: it reads ahead.
    pub fn read_in_order(&self) {
        let _ = self.map.advise(Advice::Normal);
    }

    /// The bytes themselves, for a reader that wants a slice.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Gives the pages inside of `range` back to the system; they come again from the file when they are touched.
    pub fn forget(&self, range: Range<usize>) {
        if range.start < range.end && range.end <= self.map.len() {
            // SAFETY: the map is read-only and was never written to, so a page that is dropped and comes again from the
            // file has the bytes that it had.
            let _ = unsafe {
                self.map.unchecked_advise_range(
                    UncheckedAdvice::DontNeed,
                    range.start,
                    range.end.saturating_sub(range.start),
                )
            };
        }
    }
}

impl ReadAt for MmapSource {
    fn len(&self) -> u64 {
        ReadAt::len(&*self.map)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.map.read_at(offset, buf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_gives_the_same_bytes_as_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, (0..=255u8).cycle().take(10_000).collect::<Vec<_>>()).unwrap();
        let file = crate::source::open_file(&path).unwrap();
        let map = MmapSource::new(&file).unwrap();
        assert_eq!(map.len(), file.len());
        for at in [0, 1, 4095, 4096, 9_990, 10_000, u64::MAX] {
            let (mut a, mut b) = ([0; 32], [0; 32]);
            assert_eq!(map.read_at(at, &mut a).unwrap(), file.read_at(at, &mut b).unwrap(), "at {at}");
            assert_eq!(a, b);
        }
        let before = map.bytes().to_vec();
        map.read_in_order();
        map.forget(0..9_000);
        map.forget(5..1 << 40);
        assert_eq!(map.bytes(), before);
    }
}
