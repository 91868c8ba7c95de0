//! Writes dumps: kdump-compressed and ELF, to files and as flattened streams, and images of physical memory.
//!
//! [`write()`] takes the frames that are kept, reads, encodes and checks them on several threads, and gives them to a [`Sink`] in
//! the order of their frames. The memory that it holds does not grow with the dump, but for a bit for each frame of it.
//! Nothing here gives a file its name, or decides which pages are worth keeping.

mod codec;
mod deflate;
mod elf;
mod estimate;
mod huffman;
mod image;
mod kdump;
mod lzo;
mod passes;
mod pipeline;
mod rearrange;
mod sink;
mod texts;

pub use codec::{Effort, Encoder};
pub use estimate::{Encoded, Estimate, Sample, at_level, sample, stored};
pub use rearrange::{RearrangeError, Rearranged, rearrange};
pub use sink::{FileSink, FlatSink, Sink, no_room};
pub use texts::Texts;

use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::addr::KVirtAddr;
use crate::filter::{Classes, Level, Selection};
use crate::format::Codec;
use crate::mem::{Dump, PhysicalMemory};
use crate::progress::{Cancel, Progress};
use crate::scrub::Blanks;

/// What is to be written.
#[derive(Clone, Debug)]
pub struct Options {
    /// The form.
    pub form: Form,
    /// The level that the pages were chosen at.
    pub level: Level,
    /// How much work a page is worth.
    pub effort: Effort,
    /// Threads that read and encode.
    pub jobs: usize,
    /// Whether each page is decoded again and compared.
    pub verify: bool,
    /// The frames of this part of a split set; `None` for a whole dump.
    pub part: Option<Range<u64>>,
    /// Frames that are written before all others, those of the first set first: what a dump has where the space does not do
    /// for all. Empty for the order of frames. The image has no other.
    pub first: Vec<Selection>,
    /// Which pages are taken over in the form in which the source stores them.
    pub reuse: Reuse,
    /// Whether pages full of zeros share one place of a kdump although the level keeps them: each of them is still there.
    pub share_zeros: bool,
    /// The most bytes that a kdump may get: the pages for which there is no room are marked as missing.
    pub limit: Option<u64>,
    /// What is erased of each page before it is encoded.
    pub blanks: Option<Arc<Blanks>>,
}

impl Options {
    /// Pages of `level` in this form, encoded on one thread and verified.
    #[must_use]
    pub fn new(form: Form, level: Level) -> Self {
        Self {
            form,
            level,
            effort: Effort::default(),
            jobs: 1,
            verify: true,
            part: None,
            first: Vec::new(),
            reuse: Reuse::default(),
            share_zeros: false,
            limit: None,
            blanks: None,
        }
    }
}

/// Which pages are taken over in the form in which the source stores them, instead of being encoded anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reuse {
    /// None.
    #[default]
    None,
    /// Those that are stored in the codec that is asked for.
    SameCodec,
    /// All of them.
    All,
}

/// The forms of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// kdump-compressed, version 6.
    Kdump(Codec),
    /// ELF.
    Elf,
    /// Physical memory from its first byte on, and nothing else: what is missing reads as zeros.
    Image,
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Written {
    /// Frames of which the output has the bytes.
    pub pages: u64,
    /// Of these, how many are full of zeros and share one place.
    pub zero_pages: u64,
    /// Length of the dump; a flattened stream of it is longer.
    pub bytes: u64,
    /// Frames that should be kept and can't be read: the output says that they are missing.
    pub unreadable: u64,
    /// Why the first of them can't be read.
    pub first_unreadable: Option<String>,
    /// Frames that should be kept and found no room: the dump is one, and says that it is not whole.
    pub no_room: u64,
    /// Frames for which [`Options::limit`] left no room: the output says that they are missing.
    pub cut_off: u64,
    /// Pages of the source that can be those of other frames: the output says that it is not whole.
    pub misplaced: u64,
}

/// Why a dump can't be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The operating system says no.
    #[error("can't write at offset {at:#x}: {source}")]
    Io {
        /// Where in the dump.
        at: u64,
        /// What it says.
        source: io::Error,
    },
    /// A page does not come back as it was.
    #[error("the page of pfn {pfn:#x} does not decode to what was encoded: {why}")]
    Verify {
        /// Its frame.
        pfn: u64,
        /// What is wrong.
        why: String,
    },
    /// Somebody asked for the stop.
    #[error("it was interrupted")]
    Cancelled,
    /// The form can't hold it.
    #[error("{0}")]
    Unfit(String),
    /// A thread ended early.
    #[error("a thread that encodes pages ended before its work was done")]
    Thread,
}

impl WriteError {
    fn at(at: u64) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { at, source }
    }
}

/// Writes the kept frames of `dump`. `direct` is where the direct map of the dumped kernel begins, where that is known.
///
/// # Errors
/// [`WriteError`]; what is in the sink then is no dump. That a file has no room for all pages is no error where it has room for
/// the headers: [`Written::no_room`] says it.
pub fn write(
    dump: &Dump,
    classes: &Classes,
    texts: &Texts,
    direct: Option<KVirtAddr>,
    options: &Options,
    sink: &mut dyn Sink,
    watch: (&Cancel, &dyn Progress),
) -> Result<Written, WriteError> {
    let whole = 0..dump.end_pfn().0;
    let frames = options.part.clone().unwrap_or(whole);
    watch.1.step("write", Some(classes.kept.count(frames.clone())));
    let mut written = match options.form {
        Form::Kdump(codec) => kdump::write(dump, classes, texts, codec, frames, options, sink, watch),
        Form::Elf => elf::write(dump, classes, texts, direct, frames, options, sink, watch),
        Form::Image => image::write(dump, classes, frames, options, sink, watch),
    }?;
    written.misplaced = dump.completeness().misplaced_pages;
    Ok(written)
}

/// A part begins where the bits of its frames begin a byte of the bitmaps: crash moves a part's bitmap by whole bytes
/// (seen with crash 9.0.2, which reads no part that begins in between).
pub const PART_ALIGN: u64 = 64;

/// Where a set of `parts` is cut, so that each has as many kept frames as the others, but for less than [`PART_ALIGN`].
#[must_use]
pub fn cut(classes: &Classes, end: u64, parts: u64) -> Vec<Range<u64>> {
    let each = classes.kept.len().div_ceil(parts.max(1)).max(1);
    let (mut cuts, mut start, mut have) = (Vec::new(), 0, 0_u64);
    // Where the part ends, once it has its frames.
    let mut ends: Option<u64> = None;
    for run in classes.kept.runs(0..end) {
        let mut from = run.start;
        while from < run.end {
            match ends {
                Some(at) if from < at => from = run.end.min(at),
                Some(at) => {
                    cuts.push(start..at);
                    (start, have, ends) = (at, 0, None);
                }
                None => {
                    let room = each.saturating_sub(have);
                    let to = from.saturating_add(room).min(run.end);
                    have = have.saturating_add(to.saturating_sub(from));
                    from = to;
                    if have >= each {
                        ends = Some(to.checked_next_multiple_of(PART_ALIGN).unwrap_or(end).min(end));
                    }
                }
            }
        }
    }
    cuts.push(start..end);
    cuts
}
