//! What was erased from a dump that was written: the document `kdt/scrub/1`, and what a search for canaries found.

use serde::{Deserialize, Serialize};

use super::Tool;

/// The name and version of the document's layout.
pub const SCRUB_SCHEMA: &str = "kdt/scrub/1";

/// What was erased. Nothing of what was erased, or looked for, is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubAudit {
    /// Always [`SCRUB_SCHEMA`].
    pub schema: String,
    /// The program that made the document.
    pub tool: Tool,
    /// The dump that was read.
    pub source: String,
    /// The files that were written.
    pub outputs: Vec<ScrubOutput>,
    /// What erased bytes hold now.
    pub fill: String,
    /// True where all that was asked for was reached, and the proof was made and found nothing.
    pub whole: bool,
    /// Pages of which something is erased, whatever for.
    pub pages: u64,
    /// Bytes that are erased, each counted once.
    pub bytes: u64,
    /// The account of each kind.
    pub what: Vec<ScrubAccount>,
    /// Texts that somebody named and that must not be there.
    pub canaries_named: u64,
    /// Beginnings of what was erased that must not be there.
    pub canaries_sampled: u64,
}

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubOutput {
    /// Its name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
    /// What was found when it was read back; `null` where it was not, because it went to a stream.
    pub proof: Option<CanarySearch>,
}

/// What was erased of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubAccount {
    /// `user`, `args`, `keys`, `net`, `tty`, `pipes`, `names`, `strings`.
    pub what: String,
    /// Objects of the kernel, or hits of a text, that were looked at.
    pub objects: u64,
    /// Pieces of memory.
    pub ranges: u64,
    /// Bytes.
    pub bytes: u64,
    /// Pages of which something is erased.
    pub pages: u64,
    /// Pages that are not written at all.
    pub left_out_pages: u64,
    /// Bytes of these objects that the new dump does not have anyhow.
    pub absent_bytes: u64,
    /// How many things could not be reached.
    pub not_scrubbed_count: u64,
    /// The first of them, and why.
    pub not_scrubbed: Vec<String>,
    /// What this kind is never meant to reach.
    pub limits: Vec<String>,
}

/// What a search for texts that must not be in a dump found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanarySearch {
    /// How many texts were looked for.
    pub canaries: u64,
    /// Pages that were looked at.
    pub pages: u64,
    /// Pages that can't be read: what they hold is not known.
    pub unreadable: u64,
    /// Borders of pages that follow each other in virtual memory only that were looked at, some more than once.
    #[serde(default)]
    pub borders: u64,
    /// Why others could not be, the first of the reasons.
    #[serde(default)]
    pub borders_lost: Vec<String>,
    /// How often one of the texts is there.
    pub count: u64,
    /// How many of them are beside the pages: in names, notes and texts of the dump's headers.
    #[serde(default)]
    pub in_headers: u64,
    /// The first places, by frame.
    pub hits: Vec<CanaryHit>,
}

/// A place where a text is that must not be there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryHit {
    /// Which, from 0 in the order in which they were named.
    pub canary: u64,
    /// The frame in which it begins.
    pub pfn: u64,
    /// And where in it.
    pub offset: u64,
}
