//! Physical memory of the dumped machine, by frame; and [`Dump`], an opened dump of any format.

mod bitmap;
mod cache;
mod dump;
mod elf;
mod facts;
mod kdump;
mod open;
mod recorded;
mod segments;
mod sweep;

use std::io;

pub use dump::Dump;
pub use facts::{Completeness, Facts};
pub use open::OpenOptions;
pub use recorded::Recorder;
pub use sweep::Swept;

use crate::addr::{Pfn, PhysAddr};
use crate::error::PageError;
use crate::source::NotArrived;

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

    /// The first frame from `pfn` on that is not a hole: for walks over all memory, which may be far apart.
    fn next_frame(&self, pfn: Pfn) -> Option<Pfn> {
        (pfn.0..self.end_pfn().0).map(Pfn).find(|pfn| self.state(*pfn) != PageState::Hole)
    }

    /// The first frame from `pfn` on that may be present: for walks over all bytes. A header can announce 2^52 bytes of
    /// memory and store none of them, so such a walk must not go from frame to frame.
    fn next_present(&self, pfn: Pfn) -> Option<Pfn> {
        let mut next = self.next_frame(pfn);
        while let Some(pfn) = next
            && self.state(pfn) != PageState::Present
        {
            next = pfn.checked_add(1).and_then(|pfn| self.next_frame(pfn));
        }
        next
    }

    /// The first frame from `pfn` on that is present and may hold anything but zeros: for walks that look for something.
    /// Some bytes of a stream or a sparse file can announce terabytes of zeros.
    fn next_written(&self, pfn: Pfn) -> Option<Pfn> {
        self.next_present(pfn)
    }
}

/// A read that failed, as a reason: what is behind the end or never arrived is lost, the rest is the system's.
fn lost_or_io(pfn: Pfn, at: u64, error: io::Error, len: u64) -> PageError {
    if NotArrived::find(&error).is_some() {
        let why = format!("it should be at file offset {at:#x}, and the stream was cut before that arrived");
        PageError::Lost { pfn, why }
    } else if error.kind() == io::ErrorKind::UnexpectedEof {
        PageError::Lost {
            pfn,
            why: format!("it should be at file offset {at:#x}, but the file ends at {len:#x}"),
        }
    } else {
        PageError::Io { pfn, at, source: error }
    }
}
