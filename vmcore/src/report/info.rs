//! What `kdt info` says of a file: the document `kdt/info/1`.

use serde::{Deserialize, Serialize};

use super::{DumpInfo, KernelInfo, NotLookedAt, ReportError, Tool};

/// The name and version of the document's layout.
pub const INFO_SCHEMA: &str = "kdt/info/1";

/// What a file is, whatever it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Info {
    /// Always [`INFO_SCHEMA`].
    pub schema: String,
    /// The program that made the document.
    pub tool: Tool,
    /// What the file is, in words: `a gzip-compressed file that holds an ELF vmcore`.
    pub what: String,
    /// Whether it can be read as a dump.
    pub usable: bool,
    /// The file, as in the triage document.
    pub dump: DumpInfo,
    /// The kernel, as in the triage document.
    pub kernel: KernelInfo,
    /// The parts of a split set; `null` for what is none.
    pub split: Option<SplitSet>,
    /// The notes in the file, by name and kind.
    pub notes: Vec<NoteCount>,
    /// What this document does not cover, and why.
    pub not_looked_at: Vec<NotLookedAt>,
    /// Why the file can't be used as a dump; `null` where it can.
    pub error: Option<ReportError>,
}

/// The parts of a split set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitSet {
    /// Those that were given, in the order of their frames.
    pub parts: Vec<SplitPart>,
    /// The frames for which no part was given.
    pub missing: Vec<FrameRange>,
}

/// One part of a split set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitPart {
    /// The file.
    pub path: String,
    /// Its first frame.
    pub start_pfn: u64,
    /// One past its last frame.
    pub end_pfn: u64,
}

/// A range of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameRange {
    /// The first frame.
    pub start_pfn: u64,
    /// One past the last frame.
    pub end_pfn: u64,
}

/// Notes of one name and kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteCount {
    /// `CORE`, `VMCOREINFO`, `QEMU`, …
    pub name: String,
    /// The kind, in the name's own numbering.
    pub kind: u32,
    /// How many there are.
    pub count: u64,
    /// The bytes of all of them.
    pub bytes: u64,
}
