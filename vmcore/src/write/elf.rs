//! ELF: a segment for each run of kept frames, and behind it, as memory without bytes, the frames that were left out.
//!
//! Segments stand in the order of frames. Their bytes do not have to: where the space may not do for all of them, those worth
//! most come first in the file.

use std::borrow::Cow;
use std::ops::Range;

use super::passes;
use super::pipeline::{self, Stored};
use super::sink::{Sink, no_room};
use super::{Options, Texts, WriteError, Written};
use crate::addr::KVirtAddr;
use crate::filter::{Classes, Selection};
use crate::format::{Arch, Codec};
use crate::mem::{Dump, PhysicalMemory};
use crate::progress::{Cancel, Progress};
use crate::raw::elf::{DUMP_ELF_INCOMPLETE, PN_XNUM};

/// Program headers that are put at once.
const HEADERS: usize = 4096;

/// The frames of one segment, of those from its start on that have bytes, and with which pass these are written.
struct Segment {
    start: u64,
    kept: u64,
    frames: u64,
    pass: usize,
}

#[expect(clippy::too_many_arguments, reason = "one call, and each is a thing of its own")]
pub(super) fn write(
    dump: &Dump,
    classes: &Classes,
    texts: &Texts,
    direct: Option<KVirtAddr>,
    frames: Range<u64>,
    options: &Options,
    sink: &mut dyn Sink,
    watch: (&Cancel, &dyn Progress),
) -> Result<Written, WriteError> {
    if options.part.is_some() {
        return Err(WriteError::Unfit("an ELF dump can't be split into a set".into()));
    }
    let mut written = Written::default();
    let kept = stored(dump, classes, options, &mut written, watch)?;
    let passes = passes::of(&kept, &options.first, &frames);
    let segments = || classes.ram.runs(frames.clone()).flat_map(|run| pieces(run, &passes));
    let count = u64::try_from(segments().count()).unwrap_or(u64::MAX).saturating_add(1);
    let headers_at = 64_u64;
    let sections_at = headers_at.saturating_add(count.saturating_mul(56));
    let crowded = count >= u64::from(PN_XNUM);
    let notes_at = if crowded { sections_at.saturating_add(64) } else { sections_at };
    let notes_len = u64::try_from(texts.notes.len()).unwrap_or(0);
    let size = dump.page_size();
    let data_at = notes_at.saturating_add(notes_len).next_multiple_of(size);

    let incomplete = [written.unreadable, classes.lost, dump.completeness().misplaced_pages] != [0; 3];
    sink.put(0, &file_header(dump, count, sections_at, crowded, incomplete)).map_err(WriteError::at(0))?;
    let mut bytes = header(4, notes_at, 0, 0, notes_len, notes_len);
    let mut at = headers_at;
    // Where the next bytes of each pass go.
    let mut offset = data_at;
    let mut offsets: Vec<u64> = Vec::with_capacity(passes.len());
    for pass in &passes {
        offsets.push(offset);
        offset = offset.saturating_add(pass.count(frames.clone()).saturating_mul(size));
    }
    for segment in segments() {
        let paddr = segment.start.saturating_mul(size);
        let kept = segment.kept.saturating_mul(size);
        let vaddr = direct.map_or(0, |direct| direct.0.wrapping_add(paddr));
        let Some(offset) = offsets.get_mut(segment.pass) else { continue };
        bytes.extend(header(1, *offset, vaddr, paddr, kept, segment.frames.saturating_mul(size)));
        *offset = offset.saturating_add(kept);
        if bytes.len() >= HEADERS.saturating_mul(56) {
            sink.put(at, &bytes).map_err(WriteError::at(at))?;
            at = at.saturating_add(u64::try_from(bytes.len()).unwrap_or(0));
            bytes.clear();
        }
    }
    sink.put(at, &bytes).map_err(WriteError::at(at))?;
    if crowded {
        let mut section = vec![0; 64];
        for (to, from) in section.iter_mut().skip(44).zip(u32::try_from(count).unwrap_or(0).to_le_bytes()) {
            *to = from;
        }
        sink.put(sections_at, &section).map_err(WriteError::at(sections_at))?;
    }
    sink.put(notes_at, &texts.notes).map_err(WriteError::at(notes_at))?;
    let pad = data_at.saturating_sub(notes_at.saturating_add(notes_len));
    let pad = vec![0; usize::try_from(pad).unwrap_or(0)];
    sink.put(notes_at.saturating_add(notes_len), &pad).map_err(WriteError::at(notes_at))?;

    let mut at = data_at;
    watch.1.step("write", Some(kept.len()));
    let mut full = false;
    for pass in &passes {
        let runs = pass.runs(frames.clone());
        let outcome = pipeline::run(dump, runs, Codec::Raw, false, options, watch, |batch| {
            for page in &batch.pages {
                if let Stored::Unreadable(why) = page {
                    return Err(WriteError::Unfit(format!("the source changed while it was read: {why}")));
                }
            }
            let put = sink.put(at, &batch.bytes);
            full = put.as_ref().is_err_and(|why| sink.has_holes() && no_room(why));
            put.map_err(WriteError::at(at))?;
            at = at.saturating_add(u64::try_from(batch.bytes.len()).unwrap_or(0));
            written.pages = written.pages.saturating_add(u64::try_from(batch.pages.len()).unwrap_or(0));
            Ok(())
        });
        match outcome {
            // The segments tell what they should hold: what is missing is cut off.
            Err(WriteError::Io { .. }) if full => {
                written.no_room = kept.count(frames).saturating_sub(written.pages);
                let header = file_header(dump, count, sections_at, crowded, true);
                sink.put(0, &header).map_err(WriteError::at(0))?;
                break;
            }
            outcome => outcome?,
        }
    }
    written.bytes = at;
    sink.finish(at).map_err(WriteError::at(at))?;
    Ok(written)
}

/// The kept frames that can be read, without those full of zeros where the level drops them: a segment has no other way to
/// say so. Every page is read for that once more than the writing takes.
fn stored(
    dump: &Dump,
    classes: &Classes,
    options: &Options,
    written: &mut Written,
    (cancel, progress): (&Cancel, &dyn Progress),
) -> Result<Selection, WriteError> {
    let mut kept = classes.kept.clone();
    let mut page = vec![0; usize::try_from(dump.page_size()).unwrap_or(4096)];
    progress.step("look for zeros", Some(classes.kept.len()));
    for run in classes.kept.runs(0..dump.end_pfn().0) {
        for pfn in run.clone() {
            if pfn.is_multiple_of(1 << 12) && cancel.is_cancelled() {
                return Err(WriteError::Cancelled);
            }
            match pipeline::readable(dump, pfn, &mut page) {
                Ok(true) => {}
                Ok(false) if !options.level.drops_zeros() => {}
                Ok(false) => {
                    written.zero_pages = written.zero_pages.saturating_add(1);
                    kept.remove(pfn);
                }
                Err(why) => {
                    written.unreadable = written.unreadable.saturating_add(1);
                    written.first_unreadable.get_or_insert(why);
                    kept.remove(pfn);
                }
            }
        }
        progress.advance(run.end.saturating_sub(run.start));
    }
    Ok(kept)
}

/// The segments of a run of RAM, whose kept frames are those of the passes.
fn pieces(run: Range<u64>, passes: &[Cow<'_, Selection>]) -> impl Iterator<Item = Segment> {
    let mut ahead: Vec<_> = passes.iter().map(|pass| pass.runs(run.clone()).peekable()).collect();
    let mut from = run.start;
    std::iter::from_fn(move || {
        if from >= run.end {
            return None;
        }
        let start = from;
        let mut kept = None;
        for (number, runs) in ahead.iter_mut().enumerate() {
            if let Some(first) = runs.next_if(|first| first.start == start) {
                kept = Some((first.end.saturating_sub(first.start), number));
            }
        }
        let (kept, pass) = kept.unwrap_or((0, 0));
        let next = ahead.iter_mut().filter_map(|runs| runs.peek().map(|next| next.start)).min();
        let end = next.unwrap_or(run.end);
        from = end;
        Some(Segment { start, kept, frames: end.saturating_sub(start), pass })
    })
}

fn header(kind: u32, offset: u64, vaddr: u64, paddr: u64, in_file: u64, in_memory: u64) -> Vec<u8> {
    let flags = if kind == 1 { 7_u32 } else { 0 };
    let mut bytes = Vec::with_capacity(56);
    bytes.extend(kind.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    for field in [offset, vaddr, paddr, in_file, in_memory, 0] {
        bytes.extend(field.to_le_bytes());
    }
    bytes
}

fn file_header(dump: &Dump, count: u64, sections_at: u64, crowded: bool, incomplete: bool) -> Vec<u8> {
    let machine: u16 = match dump.facts().arch {
        Arch::Aarch64 => 183,
        Arch::Ppc64Le => 21,
        _ => 62,
    };
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    bytes.extend(4_u16.to_le_bytes());
    bytes.extend(machine.to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend(0_u64.to_le_bytes());
    bytes.extend(64_u64.to_le_bytes());
    bytes.extend(if crowded { sections_at } else { 0 }.to_le_bytes());
    bytes.extend(if incomplete { DUMP_ELF_INCOMPLETE } else { 0 }.to_le_bytes());
    let number = u16::try_from(count).unwrap_or(PN_XNUM);
    let sections = u16::from(crowded);
    for field in [64, 56, number, if crowded { 64 } else { 0 }, sections, 0] {
        bytes.extend(field.to_le_bytes());
    }
    bytes
}
