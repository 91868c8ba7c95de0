//! Why a file can't be opened, and why a page is not there.

use std::io;
use std::path::PathBuf;

use crate::addr::{KVirtAddr, Pfn, PhysAddr};

/// Why one page's bytes can't be had. The five kinds of "not in the dump" are never folded into one
/// (the fifth, not mapped, is [`MemError::NotMapped`], because only a translation can know it).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PageError {
    /// The writer left it out on purpose: no fault of the file.
    #[error("{pfn} was left out when the dump was made (dump level {level})")]
    Excluded {
        /// The frame.
        pfn: Pfn,
        /// The dump level that the header tells; 0 where it tells none.
        level: u32,
    },
    /// The machine had no RAM there.
    #[error("{pfn} is not RAM of the dumped machine")]
    Hole {
        /// The frame.
        pfn: Pfn,
    },
    /// The index names it, but the file (or the part of a split set that had it) ends before it.
    #[error("{pfn} is lost: {why}")]
    Lost {
        /// The frame.
        pfn: Pfn,
        /// What is missing of the file: «it should be at file offset 0x2000, but the file ends at 0x1000».
        why: String,
    },
    /// Its bytes are there and do not decode to a page.
    #[error("{pfn} at file offset {at:#x} is corrupt: {why}")]
    Corrupt {
        /// The frame.
        pfn: Pfn,
        /// Where its bytes are in the file.
        at: u64,
        /// What is wrong with them.
        why: String,
    },
    /// The operating system could not read the file there.
    #[error("{pfn} can't be read at file offset {at:#x}: {source}")]
    Io {
        /// The frame.
        pfn: Pfn,
        /// Where its bytes are in the file.
        at: u64,
        /// What the operating system said.
        source: io::Error,
    },
    /// The address is past the end of what 64 bits can name.
    #[error("{paddr} and {len} bytes more leave the physical address space")]
    OutOfRange {
        /// The first byte asked for.
        paddr: PhysAddr,
        /// How many bytes were asked for.
        len: u64,
    },
}

/// Why bytes at a kernel virtual address can't be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemError {
    /// The page tables map nothing there.
    #[error("{kaddr} is not mapped ({level})")]
    NotMapped {
        /// The address asked for.
        kaddr: KVirtAddr,
        /// Which table says so: `PGD`, `P4D`, `PUD`, `PMD`, `PTE`.
        level: &'static str,
    },
    /// A page table that the translation needs is not in the dump.
    #[error("{kaddr} can't be translated, its {level} is unreadable: {source}")]
    Table {
        /// The address asked for.
        kaddr: KVirtAddr,
        /// Which table.
        level: &'static str,
        /// Why.
        source: PageError,
    },
    /// It is mapped, and the page behind it is not in the dump.
    #[error("{kaddr}: {source}")]
    Page {
        /// The address asked for.
        kaddr: KVirtAddr,
        /// Why.
        source: PageError,
    },
    /// The address and length leave the 64-bit address space.
    #[error("{kaddr} and {len} bytes more leave the address space")]
    OutOfRange {
        /// The first byte asked for.
        kaddr: KVirtAddr,
        /// How many bytes were asked for.
        len: u64,
    },
}

/// Why a file is not usable as a dump. `Display` is one sentence; [`OpenError::hint`] is the next step.
#[derive(Debug, thiserror::Error)]
#[error("{}: {kind}", path.display())]
pub struct OpenError {
    /// The file.
    pub path: PathBuf,
    /// What is the matter with it.
    pub kind: OpenErrorKind,
}

/// What is the matter with a file that can't be opened as a dump.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenErrorKind {
    /// The operating system said no.
    #[error("can't be read: {0}")]
    Io(#[from] io::Error),
    /// Nothing in it.
    #[error("is an empty file")]
    Empty,
    /// Not a regular file or block device: a directory, a socket, a terminal.
    #[error("is {what}, not a dump file")]
    NotAFile {
        /// What it is: «a directory».
        what: String,
    },
    /// It is something else, and we can tell what.
    #[error("is {what}, not a memory dump")]
    NotADump {
        /// What it is: «a gzip archive», «a text file».
        what: String,
        /// What to do with it, or where the dump may be.
        hint: String,
    },
    /// It is a dump, of a kind that we can't read.
    #[error("is {what}, which kdt does not read")]
    Unsupported {
        /// What it is, and what in it is not supported.
        what: String,
        /// What turns it into something that can be read.
        hint: String,
    },
    /// It is a dump, and does not belong to the others that were named with it.
    #[error("does not belong to the same split set as {}: {why}", first.display())]
    NotOfSet {
        /// A file of the set.
        first: PathBuf,
        /// In what they differ.
        why: String,
    },
    /// It is a dump, and so damaged that no page can be found.
    #[error("is {what}, but {why} (file offset {at:#x})")]
    Damaged {
        /// The format it says it is.
        what: &'static str,
        /// What is wrong with it.
        why: String,
        /// Where.
        at: u64,
    },
}

impl OpenErrorKind {
    /// A file that is `what` and not a dump.
    pub fn not_a_dump(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::NotADump { what: what.into(), hint: hint.into() }
    }
}

impl OpenError {
    /// An error about `path`.
    pub fn new(path: impl Into<PathBuf>, kind: impl Into<OpenErrorKind>) -> Self {
        Self { path: path.into(), kind: kind.into() }
    }

    /// The next step, in one line.
    #[must_use]
    pub fn hint(&self) -> String {
        match &self.kind {
            OpenErrorKind::Io(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                "dumps are readable by root only: run it with sudo, or copy the file".into()
            }
            OpenErrorKind::Io(e) if e.kind() == io::ErrorKind::NotFound => {
                "check the name; kdump writes to /var/crash by default".into()
            }
            OpenErrorKind::Io(_) => "copy the file to a healthy disk and try again".into(),
            OpenErrorKind::Empty => {
                "the writer never got to it: look at the console log of the capture kernel, and at the space on the dump target".into()
            }
            OpenErrorKind::NotAFile { .. } => "name the dump file itself".into(),
            OpenErrorKind::NotADump { hint, .. } | OpenErrorKind::Unsupported { hint, .. } => hint.clone(),
            OpenErrorKind::NotOfSet { .. } => {
                "name the parts of one dump only; parts of another one are opened on their own".into()
            }
            OpenErrorKind::Damaged { .. } => {
                "compare size and checksum with the original; if they agree, the writer was cut off before its header".into()
            }
        }
    }
}
