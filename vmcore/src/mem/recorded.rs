//! [`Recorder`]: memory that notes which frames were read.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{PageState, PhysicalMemory};
use crate::addr::{Pfn, PhysAddr};
use crate::error::PageError;

/// Frames of one chunk of the notes: 32 KiB of bits stand for 1 GiB of memory.
const CHUNK_FRAMES: u64 = 1 << 18;
/// Frames that the notes can be about: 2^36, as [`crate::limits::Limits::frames`]. The root for all of them has 4 MiB.
const FRAMES: u64 = 1 << 36;

/// A chunk's bits.
type Chunk = Box<[AtomicU64]>;

/// Memory that notes which frames were read, and is otherwise the memory that it stands before.
///
/// Chunks of the notes are made when a frame of theirs is read, so that a header which claims 2^36 frames costs a few
/// bytes for each gibibyte it claims and nothing more. Shared by threads; a read costs one atomic access more.
pub struct Recorder<'m> {
    memory: &'m dyn PhysicalMemory,
    chunks: Box<[OnceLock<Chunk>]>,
}

impl std::fmt::Debug for Recorder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").field("touched", &self.count()).finish_non_exhaustive()
    }
}

impl<'m> Recorder<'m> {
    /// Stands before `memory`, with no frame noted yet.
    #[must_use]
    pub fn new(memory: &'m dyn PhysicalMemory) -> Self {
        let chunks = memory.end_pfn().0.min(FRAMES).div_ceil(CHUNK_FRAMES);
        Self { memory, chunks: (0..chunks).map(|_| OnceLock::new()).collect() }
    }

    /// The memory itself: what is read there is not noted.
    #[must_use]
    pub fn beneath(&self) -> &'m dyn PhysicalMemory {
        self.memory
    }

    /// Notes a frame. Frames that the memory does not speak of are not noted.
    pub fn touch(&self, pfn: Pfn) {
        let index = pfn.0.checked_div(CHUNK_FRAMES).and_then(|index| usize::try_from(index).ok());
        let Some(slot) = index.and_then(|index| self.chunks.get(index)) else { return };
        let chunk = slot.get_or_init(|| (0..CHUNK_FRAMES / 64).map(|_| AtomicU64::new(0)).collect());
        let within = pfn.0 % CHUNK_FRAMES;
        let word = usize::try_from(within / 64).ok().and_then(|word| chunk.get(word));
        let Some((word, bit)) = word.zip(1u64.checked_shl(u32::try_from(within % 64).unwrap_or(0))) else {
            return;
        };
        // Most reads are of a frame that is noted already: looking costs less than writing.
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Notes each frame that has one of the bytes.
    pub fn touch_bytes(&self, paddr: PhysAddr, len: u64) {
        let page_size = self.page_size();
        let Some(last) = len.checked_sub(1) else { return };
        let (first, last) = (paddr.pfn(page_size), PhysAddr(paddr.0.saturating_add(last)).pfn(page_size));
        let Some((first, last)) = first.zip(last) else { return };
        for pfn in first.0..=last.0.min(self.end_pfn().0) {
            self.touch(Pfn(pfn));
        }
    }

    /// True where the frame was noted.
    #[must_use]
    pub fn has(&self, pfn: Pfn) -> bool {
        let index = pfn.0.checked_div(CHUNK_FRAMES).and_then(|index| usize::try_from(index).ok());
        let chunk = index.and_then(|index| self.chunks.get(index)).and_then(OnceLock::get);
        let within = pfn.0 % CHUNK_FRAMES;
        let word = chunk.zip(usize::try_from(within / 64).ok()).and_then(|(chunk, word)| chunk.get(word));
        word.is_some_and(|word| {
            let bit = 1u64.checked_shl(u32::try_from(within % 64).unwrap_or(0)).unwrap_or(0);
            word.load(Ordering::Relaxed) & bit != 0
        })
    }

    /// How many frames were noted.
    #[must_use]
    pub fn count(&self) -> u64 {
        let words = self.chunks.iter().filter_map(OnceLock::get).flatten();
        words.map(|word| u64::from(word.load(Ordering::Relaxed).count_ones())).sum()
    }

    /// The frames that were noted, as runs of neighbours, ascending: the first, and how many.
    pub fn touched(&self) -> impl Iterator<Item = (Pfn, u64)> + '_ {
        let mut next = Some(0);
        std::iter::from_fn(move || {
            let first = self.find(next?, true)?;
            let end = self.find(first, false);
            next = end;
            let all = u64::try_from(self.chunks.len()).unwrap_or(u64::MAX).saturating_mul(CHUNK_FRAMES);
            Some((Pfn(first), end.unwrap_or(all).saturating_sub(first)))
        })
    }

    /// The first frame from `from` on that is noted, or that is not.
    fn find(&self, from: u64, noted: bool) -> Option<u64> {
        let mut at = from;
        loop {
            let slot = self.chunks.get(usize::try_from(at.checked_div(CHUNK_FRAMES)?).ok()?)?;
            let Some(chunk) = slot.get() else {
                if !noted {
                    return Some(at);
                }
                at = at.checked_add(CHUNK_FRAMES)? & !(CHUNK_FRAMES - 1);
                continue;
            };
            let word = chunk.get(usize::try_from(at % CHUNK_FRAMES / 64).ok()?)?.load(Ordering::Relaxed);
            let word = if noted { word } else { !word };
            let rest = word & u64::MAX.checked_shl(u32::try_from(at % 64).ok()?)?;
            if rest == 0 {
                at = at.checked_add(64)? & !63;
            } else {
                return (at & !63).checked_add(rest.trailing_zeros().into());
            }
        }
    }
}

impl PhysicalMemory for Recorder<'_> {
    fn page_size(&self) -> u64 {
        self.memory.page_size()
    }

    fn end_pfn(&self) -> Pfn {
        self.memory.end_pfn()
    }

    fn state(&self, pfn: Pfn) -> PageState {
        self.memory.state(pfn)
    }

    fn read(&self, paddr: PhysAddr, buf: &mut [u8]) -> Result<(), PageError> {
        // A read that fails may have read some of its frames: it is made again on a memory of these frames only, and
        // must fail at the same one.
        self.touch_bytes(paddr, u64::try_from(buf.len()).unwrap_or(u64::MAX));
        self.memory.read(paddr, buf)
    }

    fn next_frame(&self, pfn: Pfn) -> Option<Pfn> {
        self.memory.next_frame(pfn)
    }

    fn next_present(&self, pfn: Pfn) -> Option<Pfn> {
        self.memory.next_present(pfn)
    }

    fn next_written(&self, pfn: Pfn) -> Option<Pfn> {
        self.memory.next_written(pfn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory of any size without a byte in it.
    struct Claims(u64);

    impl PhysicalMemory for Claims {
        fn page_size(&self) -> u64 {
            4096
        }
        fn end_pfn(&self) -> Pfn {
            Pfn(self.0)
        }
        fn state(&self, _: Pfn) -> PageState {
            PageState::Present
        }
        fn read(&self, _: PhysAddr, buf: &mut [u8]) -> Result<(), PageError> {
            buf.fill(7);
            Ok(())
        }
    }

    #[test]
    fn what_was_read_is_noted_and_nothing_else() {
        let memory = Claims(1 << 20);
        let recorder = Recorder::new(&memory);
        assert_eq!(recorder.touched().count(), 0);
        let mut buf = [0; 5000];
        recorder.read(PhysAddr(0x3fff), &mut buf).unwrap();
        recorder.read(PhysAddr(0x10_0000), &mut buf[..1]).unwrap();
        recorder.read(PhysAddr(0x20_0000), &mut buf[..0]).unwrap();
        recorder.touch(Pfn((1 << 18) - 1));
        recorder.touch(Pfn(1 << 18));
        recorder.touch(Pfn((1 << 20) - 1));
        let runs: Vec<_> = recorder.touched().map(|(pfn, count)| (pfn.0, count)).collect();
        assert_eq!(runs, [(3, 3), (0x100, 1), ((1 << 18) - 1, 2), ((1 << 20) - 1, 1)]);
        assert_eq!(recorder.count(), 7);
        assert!(recorder.has(Pfn(5)) && !recorder.has(Pfn(6)) && !recorder.has(Pfn(u64::MAX)));
    }

    #[test]
    fn a_header_that_claims_everything_costs_little() {
        let memory = Claims(u64::MAX);
        let recorder = Recorder::new(&memory);
        recorder.touch(Pfn(u64::MAX));
        recorder.touch_bytes(PhysAddr(u64::MAX - 10), 100);
        recorder.touch(Pfn(FRAMES - 1));
        assert_eq!(recorder.touched().map(|(pfn, n)| (pfn.0, n)).collect::<Vec<_>>(), [(FRAMES - 1, 1)]);
        assert_eq!(recorder.chunks.iter().filter(|chunk| chunk.get().is_some()).count(), 1);
    }

    #[test]
    fn threads_lose_no_frame() {
        let memory = Claims(1 << 20);
        let recorder = Recorder::new(&memory);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let recorder = &recorder;
                scope.spawn(move || (0..10_000).for_each(|n| recorder.touch(Pfn(n * 4 + thread))));
            }
        });
        assert_eq!(recorder.touched().map(|(pfn, n)| (pfn.0, n)).collect::<Vec<_>>(), [(0, 40_000)]);
    }
}
