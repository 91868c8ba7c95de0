//! What `kdt check` says of a dump: the document `kdt/check/1`.

use serde::{Deserialize, Serialize};

use super::{CanarySearch, DumpInfo, ReportError, Tool};

/// The name and version of the document's layout.
pub const CHECK_SCHEMA: &str = "kdt/check/1";

/// Whether every page of a dump decodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Always [`CHECK_SCHEMA`].
    pub schema: String,
    /// The program that made the document.
    pub tool: Tool,
    /// The file, as in the triage document.
    pub dump: DumpInfo,
    /// In one word.
    pub verdict: CheckVerdict,
    /// The frames by what became of them.
    pub pages: CheckedPages,
    /// The pages by how they are stored.
    pub codecs: Vec<CheckedCodec>,
    /// The pages that can't be had, and should be there.
    pub bad: BadPages,
    /// A digest of what all pages hold; `null` where nobody asked for it, or a page that is stored does not decode.
    pub digest: Option<PagesDigest>,
    /// What a search for texts that must not be there found; `null` where nobody named one.
    #[serde(default)]
    pub canaries: Option<CanarySearch>,
    /// Why the file can't be checked; `null` where it was.
    pub error: Option<ReportError>,
}

/// Whether every page of a dump decodes, in one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckVerdict {
    /// All that it announces is there and decodes.
    Clean,
    /// What is there decodes, and something is not there.
    Incomplete,
    /// Pages that are stored do not decode, or can't be read.
    Corrupt,
    /// It can't be opened as a dump.
    #[default]
    Unusable,
}

/// The frames of a dump by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckedPages {
    /// Frames of RAM that the dump speaks of.
    pub announced: u64,
    /// Those whose bytes are there and decode.
    pub decoded: u64,
    /// Those whose bytes, or whose descriptors, are damaged.
    pub corrupt: u64,
    /// Those that the operating system could not read.
    pub unreadable: u64,
    /// Those that were cut off, or whose part of a split set was not given.
    pub lost: u64,
    /// Those left out on purpose.
    pub excluded: u64,
}

/// The pages that are stored in one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckedCodec {
    /// `zlib`, `lzo`, `snappy`, `zstd`, `raw`.
    pub codec: String,
    /// Pages that decode.
    pub decoded: u64,
    /// Pages that do not.
    pub corrupt: u64,
    /// Bytes that hold those that decode; of pages that share a place, each counts.
    pub stored_bytes: u64,
}

/// The pages that can't be had, and should be there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadPages {
    /// How many runs there are in all.
    pub runs: u64,
    /// The first of them, ascending.
    pub first: Vec<PageRun>,
    /// The last one.
    pub last: Option<PageRun>,
}

/// Pages with the same fault, between which no good one lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRun {
    /// The first frame.
    pub first_pfn: u64,
    /// The last one. Frames that are not stored may lie between.
    pub last_pfn: u64,
    /// How many they are.
    pub pages: u64,
    /// What is the matter with them.
    pub fault: PageFault,
    /// How they are stored, where that is known.
    pub codec: Option<String>,
    /// Where the first one, or its descriptor, lies in the file; `null` for what is lost.
    pub file_offset: Option<u64>,
    /// The first one in words.
    pub why: String,
}

/// Why a page can't be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PageFault {
    /// It was cut off.
    Lost,
    /// It is damaged.
    Corrupt,
    /// The operating system could not read it.
    Unreadable,
}

impl PageFault {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Corrupt => "corrupt",
            Self::Unreadable => "unreadable",
        }
    }
}

/// A digest of what the pages of a dump hold, the same for each format, codec and container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PagesDigest {
    /// SHA-256 over, for each page that is there in the order of their frames: the frame number as 8 bytes, the lowest
    /// first, then the SHA-256 of the page's bytes. In hexadecimal.
    pub sha256: String,
    /// How many pages it covers.
    pub pages: u64,
}
