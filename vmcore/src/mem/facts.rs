//! What an opened dump tells of itself, and how much of it is there.

use std::ops::Range;

use crate::format::diskdump::Utsname;
use crate::format::{Arch, Codec};

/// What an opened dump tells of itself.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Facts {
    /// `elf` or `kdump-compressed`.
    pub format: &'static str,
    /// From the outermost in: `flattened`, `split`, `kdump`, `elf`.
    pub containers: Vec<&'static str>,
    /// Codecs of the pages, as the header and the descriptors that were looked at name them.
    pub codecs: Vec<Codec>,
    /// Bytes of all files together.
    pub size_bytes: u64,
    /// The machine.
    pub arch: Arch,
    /// Bytes of a page.
    pub page_size: u64,
    /// makedumpfile's `-d`, where the header has it.
    pub dump_level: Option<u32>,
    /// Version of the kdump header.
    pub header_version: Option<u32>,
    /// The machine's names, where the header has any.
    pub utsname: Option<Utsname>,
    /// When the dump was made, on the dumped machine's clock: seconds and microseconds since 1970.
    pub timestamp: Option<(i64, u32)>,
    /// CPUs, where the header has them.
    pub nr_cpus: Option<u32>,
    /// Where the kernel image really lies against its link address, where the header has it; a negative number wraps.
    pub phys_base: Option<u64>,
    /// The frames of each part of a split set that was given, ascending.
    pub parts: Vec<Range<u64>>,
    /// The text that names what was erased.
    pub erase_info: Option<String>,
    /// Unused `struct page` were left out too.
    pub excluded_vmemmap: bool,
}

/// How much of a dump is there. `announced` is always the sum of the three others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Completeness {
    /// Frames of RAM that the dump speaks of.
    pub announced_pages: u64,
    /// Frames whose bytes are in the file. Whether they decode is known once they are read.
    pub present_pages: u64,
    /// Frames left out on purpose.
    pub excluded_pages: u64,
    /// Frames that are announced, and cut off with the end of the file or with a missing part.
    pub lost_pages: u64,
    /// Present pages that can be those of other frames, because the bitmap that says whose they are is damaged.
    pub misplaced_pages: u64,
    /// The writer says that it stopped early.
    pub incomplete_flag: bool,
    /// The length of the file, where it ends before something that it should hold.
    pub truncated_at: Option<u64>,
    /// One sentence per guess that was made to read the dump, and per oddity of it.
    pub repairs: Vec<String>,
}

impl Completeness {
    /// True where nothing shows that anything is missing, or in another's place, that was not left out on purpose.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.lost_pages == 0
            && self.misplaced_pages == 0
            && !self.incomplete_flag
            && self.truncated_at.is_none()
    }
}
