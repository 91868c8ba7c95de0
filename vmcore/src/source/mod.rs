//! Bytes at an offset: files, maps, flattened streams, split sets. Knows no dump format.

use std::io;

/// A random-access sequence of bytes that never changes. Shared by threads.
pub trait ReadAt: Send + Sync {
    /// How many bytes there are.
    fn len(&self) -> u64;

    /// True where there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buf` from `offset` on, as far as there are bytes; the count falls short only at the end.
    ///
    /// # Errors
    /// What the operating system says of a file that can't be read there.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
}
