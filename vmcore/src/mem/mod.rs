//! Physical memory of the dumped machine, by frame.

use crate::addr::{Pfn, PhysAddr};
use crate::error::PageError;

/// What a dump knows of a frame without decoding it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PageState {
    /// Its bytes are in the file (whether they decode is known only when they are read).
    Present,
    /// Left out on purpose.
    Excluded,
    /// Not RAM.
    Hole,
    /// Announced, and cut off with the end of the file or with a missing part.
    Lost,
}

/// The dumped machine's physical memory. Never invents bytes: what is not there is an error.
pub trait PhysicalMemory: Send + Sync {
    /// Bytes in a page of the dumped kernel: a power of two, at least 4096.
    fn page_size(&self) -> u64;

    /// One past the highest frame that the dump speaks of.
    fn end_pfn(&self) -> Pfn;

    /// What is known of a frame, without decoding it.
    fn state(&self, pfn: Pfn) -> PageState;

    /// Fills `buf` from `paddr` on, across frames where needed, or fails with the first frame's reason.
    ///
    /// # Errors
    /// The first page that could not be had, and why.
    fn read(&self, paddr: PhysAddr, buf: &mut [u8]) -> Result<(), PageError>;
}
