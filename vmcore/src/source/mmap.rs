//! A file mapped into memory: the one place with `unsafe`.
//!
//! A map saves a system call per read. It is the caller's choice, and only for a local file that is complete
//! and that nobody cuts: touching a page past a new end ends the process with SIGBUS, as does a disk error.
#![expect(unsafe_code, reason = "mapping a file is unsafe, and this module is there to hold it")]

use std::io;

use memmap2::{Advice, Mmap};

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
    }
}
