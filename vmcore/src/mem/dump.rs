//! [`Dump`]: an opened dump, whatever its format.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cache::PageCache;
use super::elf::ElfMemory;
use super::kdump::KdumpMemory;
use super::{Completeness, Facts, PageState, PhysicalMemory};
use crate::addr::{Pfn, PhysAddr};
use crate::error::PageError;
use crate::format::elf::LoadSegment;
use crate::format::notes::Note;
use crate::format::{Codec, PrStatus, QemuCpu, decode};

/// An opened dump: what it tells of itself, and the dumped machine's memory. Shared by threads.
pub struct Dump {
    pub(super) paths: Vec<PathBuf>,
    pub(super) facts: Facts,
    pub(super) completeness: Completeness,
    pub(super) notes: Vec<Note>,
    pub(super) vmcoreinfo: Option<Vec<u8>>,
    pub(super) prstatus: Vec<PrStatus>,
    pub(super) qemu_cpus: Vec<QemuCpu>,
    pub(super) segments: Vec<LoadSegment>,
    pub(super) memory: Memory,
    pub(super) cache: PageCache,
}

/// The formats' own ways to memory.
pub(super) enum Memory {
    Elf(ElfMemory),
    Kdump(Box<KdumpMemory>),
}

impl std::fmt::Debug for Dump {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dump")
            .field("paths", &self.paths)
            .field("facts", &self.facts)
            .field("completeness", &self.completeness)
            .finish_non_exhaustive()
    }
}

impl Dump {
    /// The file; of a split set the first that was named.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.paths.first().map_or(Path::new(""), PathBuf::as_path)
    }

    /// All files, in the order in which they were named.
    #[must_use]
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// What the dump tells of itself.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// How much of it is there.
    #[must_use]
    pub fn completeness(&self) -> &Completeness {
        &self.completeness
    }

    /// All ELF notes, in file order.
    #[must_use]
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The text that the kernel wrote for its readers, as it is in the file; `None` where there is none, as in the
    /// dump of a guest without `vmcoreinfo` device.
    #[must_use]
    pub fn vmcoreinfo_raw(&self) -> Option<&[u8]> {
        self.vmcoreinfo.as_deref()
    }

    /// The registers of each CPU that answered, in the order of their notes.
    #[must_use]
    pub fn prstatus(&self) -> &[PrStatus] {
        &self.prstatus
    }

    /// The control registers of each CPU, in dumps that QEMU made.
    #[must_use]
    pub fn qemu_cpus(&self) -> &[QemuCpu] {
        &self.qemu_cpus
    }

    /// The memory segments of an ELF vmcore, in file order: their virtual addresses are hints. Empty for other formats.
    #[must_use]
    pub fn segments(&self) -> &[LoadSegment] {
        &self.segments
    }

    /// Fills `page` with one frame, for readers of whole dumps: what it decodes is not kept for the next read.
    ///
    /// RAM may end inside a frame; the bytes behind it, which the dump does not speak of, become zeros here. The
    /// count of bytes that the dump has is given: it is the page size nearly always.
    ///
    /// # Errors
    /// Why the frame, or a part of it that is RAM, can't be had; [`PageError::OutOfRange`] where `page` is shorter
    /// than a page.
    pub fn read_frame(&self, pfn: Pfn, page: &mut [u8]) -> Result<u64, PageError> {
        let size = self.facts.page_size;
        let Some(page) = usize::try_from(size).ok().and_then(|size| page.get_mut(..size)) else {
            return Err(PageError::OutOfRange { paddr: pfn.start(size).unwrap_or_default(), len: size });
        };
        match &self.memory {
            Memory::Elf(memory) => memory.read_frame(pfn, page),
            Memory::Kdump(memory) => {
                if let Some(kept) = self.cache.get(pfn.0).filter(|kept| kept.len() == page.len()) {
                    page.copy_from_slice(&kept);
                } else {
                    memory.read_frame(pfn, page)?;
                }
                Ok(size)
            }
        }
    }

    /// Adds the bytes that hold a frame in the file to `out`, and says how they are stored; of an ELF vmcore the page itself.
    pub(crate) fn read_stored(&self, pfn: Pfn, out: &mut Vec<u8>) -> Result<Codec, PageError> {
        match &self.memory {
            Memory::Elf(memory) => {
                let start = out.len();
                out.resize(start.saturating_add(usize::try_from(self.facts.page_size).unwrap_or(0)), 0);
                memory.read_frame(pfn, out.get_mut(start..).unwrap_or_default())?;
                Ok(Codec::Raw)
            }
            Memory::Kdump(memory) => memory.read_stored(pfn, out),
        }
    }

    /// Decodes what [`Self::read_stored`] gave of a frame.
    pub(crate) fn decode_stored(
        &self,
        pfn: Pfn,
        codec: Codec,
        stored: &[u8],
        page: &mut [u8],
    ) -> Result<(), PageError> {
        match &self.memory {
            Memory::Elf(_) => {
                decode(codec, stored, page).map_err(|why| PageError::Corrupt { pfn, at: 0, why })
            }
            Memory::Kdump(memory) => memory.decode_stored(pfn, codec, stored, page),
        }
    }

    /// The state of a frame, and the end of the frames from it on that are in the same, as far as that is known at once.
    pub(crate) fn states(&self, pfn: Pfn) -> (PageState, Pfn) {
        let many = match &self.memory {
            Memory::Elf(memory) => memory.alike(pfn),
            Memory::Kdump(_) => None,
        };
        many.unwrap_or_else(|| (self.state(pfn), Pfn(pfn.0.saturating_add(1))))
    }

    /// The decoded page, from the store or from the file.
    fn page(&self, pfn: Pfn) -> Result<Arc<[u8]>, PageError> {
        if let Some(page) = self.cache.get(pfn.0) {
            return Ok(page);
        }
        // Decoded where it stays: made from a vector, it would be copied.
        let mut page = self.cache.room(pfn.0, usize::try_from(self.facts.page_size).unwrap_or(0));
        let own = Arc::get_mut(&mut page).unwrap_or_default();
        match &self.memory {
            Memory::Elf(memory) => memory.read_frame(pfn, own).map(drop)?,
            Memory::Kdump(memory) => memory.read_frame(pfn, own)?,
        }
        self.cache.insert(pfn.0, Arc::clone(&page));
        Ok(page)
    }
}

impl PhysicalMemory for Dump {
    fn page_size(&self) -> u64 {
        self.facts.page_size
    }

    fn end_pfn(&self) -> Pfn {
        match &self.memory {
            Memory::Elf(memory) => memory.end_pfn(),
            Memory::Kdump(memory) => memory.end_pfn(),
        }
    }

    fn state(&self, pfn: Pfn) -> PageState {
        match &self.memory {
            Memory::Elf(memory) => memory.state(pfn),
            Memory::Kdump(memory) => memory.state(pfn),
        }
    }

    fn next_frame(&self, pfn: Pfn) -> Option<Pfn> {
        match &self.memory {
            Memory::Elf(memory) => memory.next(pfn),
            Memory::Kdump(memory) => memory.next(pfn),
        }
    }

    fn next_present(&self, pfn: Pfn) -> Option<Pfn> {
        match &self.memory {
            Memory::Elf(memory) => memory.next_present(pfn),
            Memory::Kdump(memory) => memory.next_stored(pfn),
        }
    }

    fn next_written(&self, pfn: Pfn) -> Option<Pfn> {
        match &self.memory {
            Memory::Elf(memory) => memory.next_written(pfn),
            Memory::Kdump(memory) => memory.next_stored(pfn),
        }
    }

    fn read(&self, paddr: PhysAddr, buf: &mut [u8]) -> Result<(), PageError> {
        let len = u64::try_from(buf.len()).unwrap_or(u64::MAX);
        if len > 0 && paddr.0.checked_add(len.saturating_sub(1)).is_none() {
            return Err(PageError::OutOfRange { paddr, len });
        }
        let size = self.facts.page_size;
        if let Memory::Elf(memory) = &self.memory
            && len >= size
        {
            return memory.read(paddr.0, buf);
        }
        let (mut at, mut rest) = (paddr, buf);
        while !rest.is_empty() {
            let (Some(pfn), Some(within)) = (at.pfn(size), at.page_offset(size)) else { break };
            let count = usize::try_from(size.saturating_sub(within)).unwrap_or(usize::MAX).min(rest.len());
            let Some((now, later)) = rest.split_at_mut_checked(count) else { break };
            match &self.memory {
                // Of a frame that is RAM in part only, just these bytes count.
                Memory::Elf(memory) if !memory.is_whole(pfn) => memory.read(at.0, now)?,
                _ => {
                    let page = self.page(pfn)?;
                    let start = usize::try_from(within).unwrap_or(usize::MAX);
                    let from = page.get(start..).and_then(|from| from.get(..count));
                    let Some(from) = from else { return Err(PageError::OutOfRange { paddr: at, len }) };
                    now.copy_from_slice(from);
                }
            }
            at = PhysAddr(at.0.wrapping_add(u64::try_from(count).unwrap_or(0)));
            rest = later;
        }
        Ok(())
    }
}
