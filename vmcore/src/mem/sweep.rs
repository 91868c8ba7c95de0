//! Many frames at once, for readers of whole dumps: in the order of the file and with few reads, whatever the order
//! of the frames is.

use std::ops::{ControlFlow, Range};

use super::dump::Memory;
use super::{Dump, PhysicalMemory};
use crate::addr::Pfn;
use crate::error::PageError;
use crate::format::{Codec, decode};
use crate::source::{ReadAt, read_as_far};

/// Bytes of the file that are read at once.
const WINDOW: u64 = 1 << 20;
/// Bytes between two pages that are read along, rather than begin a new read.
const GAP: u64 = 16 << 10;

/// Where the stored bytes of a frame are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The file, of several.
    pub(crate) file: usize,
    /// Where they begin in it.
    pub(crate) offset: u64,
    /// How many they are.
    pub(crate) size: u64,
    /// How they are stored.
    pub(crate) codec: Codec,
}

/// One frame of a sweep.
#[derive(Debug)]
pub struct Swept<'a> {
    /// The frame.
    pub pfn: Pfn,
    /// How it is stored; `None` where nothing says so, because it is lost or its descriptor makes no sense.
    pub codec: Option<Codec>,
    /// How many bytes of the file hold it.
    pub stored_bytes: u64,
    /// Its bytes, or why they can't be had.
    pub page: Result<&'a [u8], PageError>,
}

/// The buffers of one sweep.
struct Buffers {
    window: Vec<u8>,
    page: Vec<u8>,
}

impl Dump {
    /// Decodes `frames`, of which each should be there, and gives each of them to `visit` once, in the order in which
    /// they lie in the files. Holds about a mebibyte of the file at a time, and keeps nothing of it.
    ///
    /// `visit` ends the sweep early with [`ControlFlow::Break`].
    pub fn sweep(
        &self,
        frames: &[Pfn],
        visit: &mut dyn FnMut(Swept<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let page_size = self.page_size();
        let mut buffers =
            Buffers { window: Vec::new(), page: vec![0; usize::try_from(page_size).unwrap_or(0)] };
        let mut places = Vec::with_capacity(frames.len());
        for pfn in frames {
            match self.place(*pfn) {
                Some(place) => places.push((place, *pfn)),
                None => self.alone(*pfn, None, &mut buffers.page, visit)?,
            }
        }
        places.sort_by_key(|(place, pfn)| (place.file, place.offset, *pfn));
        let mut rest = places.as_slice();
        while let Some((first, _)) = rest.first() {
            let (count, bytes) = window(rest);
            let (now, later) = rest.split_at_checked(count.max(1)).unwrap_or((rest, &[]));
            self.read_window(first, &bytes, &mut buffers.window);
            self.decode_window(now, &bytes, &mut buffers, visit)?;
            rest = later;
        }
        ControlFlow::Continue(())
    }

    /// The frames that are lost and have no descriptor that a sweep would find: ranges, ascending, and how many of
    /// each are lost; the others of a range may be anything.
    pub(crate) fn lost_ranges(&self) -> Box<dyn Iterator<Item = (Range<u64>, u64)> + '_> {
        match &self.memory {
            Memory::Elf(memory) => Box::new(memory.lost_frames().map(|range| {
                let count = range.end.saturating_sub(range.start);
                (range, count)
            })),
            Memory::Kdump(memory) => Box::new(memory.unknown().into_iter()),
        }
    }

    /// `None` where there is no one place, or something is the matter with it.
    fn place(&self, pfn: Pfn) -> Option<Place> {
        match &self.memory {
            Memory::Elf(memory) => {
                let offset = memory.place(pfn)?;
                Some(Place { file: 0, offset, size: memory.page_size, codec: Codec::Raw })
            }
            Memory::Kdump(memory) => memory.place(pfn).ok(),
        }
    }

    fn file(&self, index: usize) -> Option<&dyn ReadAt> {
        match &self.memory {
            Memory::Elf(memory) => Some(&*memory.source),
            Memory::Kdump(memory) => memory.file(index),
        }
    }

    /// Fills the window as far as there are bytes; what can't be read is read again page by page, which says why.
    fn read_window(&self, first: &Place, bytes: &Range<u64>, window: &mut Vec<u8>) {
        let length = usize::try_from(bytes.end.saturating_sub(bytes.start)).unwrap_or(0);
        window.resize(length, 0);
        let got = self.file(first.file).and_then(|file| read_as_far(file, bytes.start, window).ok());
        window.truncate(got.unwrap_or(0));
    }

    fn decode_window(
        &self,
        frames: &[(Place, Pfn)],
        bytes: &Range<u64>,
        buffers: &mut Buffers,
        visit: &mut dyn FnMut(Swept<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        // Frames of zeros share one place: what was decoded there last is still in the buffer.
        let mut decoded: Option<Place> = None;
        for (place, pfn) in frames {
            let within = usize::try_from(place.offset.saturating_sub(bytes.start)).unwrap_or(usize::MAX);
            let size = usize::try_from(place.size).unwrap_or(usize::MAX);
            let stored = within.checked_add(size).and_then(|end| buffers.window.get(within..end));
            let page = match stored {
                Some(stored) if place.codec == Codec::Raw && stored.len() == buffers.page.len() => {
                    Some(stored)
                }
                Some(_) if decoded == Some(*place) => Some(buffers.page.as_slice()),
                Some(stored) if decode(place.codec, stored, &mut buffers.page).is_ok() => {
                    decoded = Some(*place);
                    Some(buffers.page.as_slice())
                }
                _ => None,
            };
            let Some(page) = page else {
                decoded = None;
                self.alone(*pfn, Some(*place), &mut buffers.page, visit)?;
                continue;
            };
            let codec = Some(place.codec);
            visit(Swept { pfn: *pfn, codec, stored_bytes: place.size, page: Ok(page) })?;
        }
        ControlFlow::Continue(())
    }

    /// A frame on its own: one in several pieces, or one with which something is the matter.
    fn alone(
        &self,
        pfn: Pfn,
        place: Option<Place>,
        page: &mut [u8],
        visit: &mut dyn FnMut(Swept<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let read = self.read_frame(pfn, page);
        let elf = matches!(self.memory, Memory::Elf(_)) && read.is_ok();
        let codec = place.map(|place| place.codec).or_else(|| elf.then_some(Codec::Raw));
        let stored_bytes = place.map(|place| place.size).or_else(|| read.as_ref().ok().copied()).unwrap_or(0);
        visit(Swept { pfn, codec, stored_bytes, page: read.map(|_| &*page) })
    }
}

/// How many of the frames, which are in the order of the file, are read at once; and the bytes that hold them.
fn window(frames: &[(Place, Pfn)]) -> (usize, Range<u64>) {
    let Some((first, _)) = frames.first() else { return (0, 0..0) };
    let end_of = |place: &Place| place.offset.saturating_add(place.size);
    let (mut count, mut end) = (0usize, end_of(first));
    for (place, _) in frames {
        let new_end = end.max(end_of(place));
        let fits = place.file == first.file
            && place.offset <= end.saturating_add(GAP)
            && new_end.saturating_sub(first.offset) <= WINDOW;
        if !fits && count > 0 {
            break;
        }
        end = new_end;
        count = count.saturating_add(1);
    }
    (count, first.offset..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(file: usize, offset: u64, size: u64) -> (Place, Pfn) {
        (Place { file, offset, size, codec: Codec::Raw }, Pfn(offset))
    }

    #[test]
    fn a_window_ends_at_another_file_a_wide_gap_and_its_size() {
        let near = [at(0, 100, 50), at(0, 100, 50), at(0, 200, 10)];
        assert_eq!(window(&near), (3, 100..210));
        assert_eq!(window(&[at(0, 0, 10), at(1, 10, 10)]), (1, 0..10));
        assert_eq!(window(&[at(0, 0, 10), at(0, 10 + GAP, 10), at(0, 30 + 2 * GAP, 10)]), (2, 0..20 + GAP));
        let many: Vec<_> = (0..1000).map(|n| at(0, n * 4096, 4096)).collect();
        assert_eq!(window(&many), (256, 0..WINDOW));
        assert_eq!(window(&[at(0, 0, WINDOW + 1), at(0, 5, 5)]).0, 1, "one page is read, whatever it claims");
        assert_eq!(window(&[at(0, u64::MAX, 9)]), (1, u64::MAX..u64::MAX));
    }
}
