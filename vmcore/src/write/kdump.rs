//! kdump-compressed, version 6, as makedumpfile 1.7 writes it.
//!
//! Headers and bitmaps come first and room for the descriptors is taken, so that where a disk gets full, what is on it is a
//! dump: an incomplete one, with the pages that were worth most.

use std::ops::Range;

use super::passes;
use super::pipeline::{self, Batch, Stored};
use super::sink::{Sink, no_room};
use super::{Options, Texts, WriteError, Written};
use crate::filter::{Classes, Selection};
use crate::format::Codec;
use crate::mem::{Dump, PhysicalMemory};
use crate::progress::{Cancel, Progress};
use crate::raw::diskdump::{COMPRESSED_INCOMPLETE, EXCLUDED_VMEMMAP, KDUMP_SIGNATURE};

const DESC: u64 = 24;
/// Bytes of descriptors that are gathered before they are put.
const GATHER: usize = 256 << 10;
/// Bytes of descriptors that are gathered for a stream: where it is cut, their pages are lost although they arrived.
const GATHER_STREAM: usize = 16 << 10;

/// Where everything lies.
struct Plan {
    page_size: u64,
    sub_blocks: u64,
    bitmap_blocks: u64,
    end: u64,
    descs_at: u64,
    /// Before the pages: nobody knows whether there is room behind them.
    erased_at: u64,
    data_at: u64,
}

impl Plan {
    fn new(dump: &Dump, texts: &Texts, pages: u64) -> Self {
        let (page_size, end) = (dump.page_size(), dump.end_pfn().0);
        let len = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap_or(0);
        let sub_blocks = 104_u64.saturating_add(len(&texts.notes)).div_ceil(page_size);
        let bitmap_blocks = end.div_ceil(8).div_ceil(page_size).saturating_mul(2);
        let before = sub_blocks.saturating_add(bitmap_blocks).saturating_add(1);
        let descs_at = before.saturating_mul(page_size);
        let erased_at = pages.saturating_mul(DESC).saturating_add(descs_at);
        let erased = texts.erased.as_ref().map_or(0, |text| len(text.as_bytes()));
        let data_at = erased_at.saturating_add(erased);
        Self { page_size, sub_blocks, bitmap_blocks, end, descs_at, erased_at, data_at }
    }
}

/// How a writer says that a page is missing: an empty descriptor.
const MISSING: [u8; 24] = [0; 24];

/// Where the bytes of a batch are.
#[derive(Clone, Copy)]
enum Place {
    /// So many of them, from the first on, lie in the dump.
    There(usize),
    /// None of them does, because the dump may not get larger.
    BeyondLimit,
}

/// Puts pages one behind the other, and each one's descriptor where its frame's is.
struct Pages<'a> {
    plan: &'a Plan,
    kept: &'a Selection,
    /// Descriptors that follow each other, and where the first of them goes.
    descs: Vec<u8>,
    descs_at: u64,
    /// How many bytes of them are put at once.
    gather: usize,
    /// A frame, and how many kept frames of this dump come before it.
    rank: (u64, u64),
    /// Where the next page goes.
    at: u64,
    written: Written,
    /// True once there is no room for a page.
    full: bool,
    /// Bytes that pages may still take, where that is limited.
    room: Option<u64>,
}

impl Pages<'_> {
    fn take(&mut self, batch: &Batch, sink: &mut dyn Sink) -> Result<(), WriteError> {
        let bytes = u64::try_from(batch.bytes.len()).unwrap_or(u64::MAX);
        if self.room.is_some_and(|room| room < bytes) {
            self.room = Some(0);
            return self.describe(batch, Place::BeyondLimit, sink);
        }
        self.room = self.room.map(|room| room.saturating_sub(bytes));
        let put = if batch.bytes.is_empty() { Ok(()) } else { sink.put(self.at, &batch.bytes) };
        let (there, outcome) = match put {
            Ok(()) => (batch.bytes.len(), Ok(())),
            // In a file, what did not fit can be put again in smaller pieces; a stream has taken some of it.
            Err(why) if sink.has_holes() && no_room(&why) => {
                self.full = true;
                (self.squeeze(batch, sink), Err(why))
            }
            Err(why) => return Err(WriteError::at(self.at)(why)),
        };
        self.describe(batch, Place::There(there), sink)?;
        outcome.map_err(WriteError::at(self.at))
    }

    /// Puts page by page until there is no room, and gives how many bytes have found some.
    fn squeeze(&self, batch: &Batch, sink: &mut dyn Sink) -> usize {
        let mut from = 0_usize;
        for page in &batch.pages {
            let Stored::Bytes(len, _) = page else { continue };
            let to = from.saturating_add(*len);
            let at = self.at.saturating_add(u64::try_from(from).unwrap_or(0));
            let Some(bytes) = batch.bytes.get(from..to) else { break };
            if sink.put(at, bytes).is_err() {
                break;
            }
            from = to;
        }
        from
    }

    /// The descriptors of the batch's pages.
    fn describe(&mut self, batch: &Batch, place: Place, sink: &mut dyn Sink) -> Result<(), WriteError> {
        let mut pages = batch.pages.iter();
        let mut used = 0_usize;
        for run in &batch.runs {
            self.seek(run.start, sink)?;
            for page in pages.by_ref().take(usize::try_from(run.end.saturating_sub(run.start)).unwrap_or(0)) {
                match page {
                    Stored::Zero => {
                        self.written.pages = self.written.pages.saturating_add(1);
                        self.written.zero_pages = self.written.zero_pages.saturating_add(1);
                        self.descs.extend(desc(self.plan.data_at, self.plan.page_size, Codec::Raw));
                    }
                    Stored::Bytes(len, codec) => {
                        let Place::There(there) = place else {
                            self.written.cut_off = self.written.cut_off.saturating_add(1);
                            self.descs.extend(MISSING);
                            continue;
                        };
                        used = used.saturating_add(*len);
                        if used > there {
                            return self.flush(sink);
                        }
                        let len = u64::try_from(*len).unwrap_or(0);
                        self.descs.extend(desc(self.at, len, *codec));
                        self.at = self.at.saturating_add(len);
                        self.written.pages = self.written.pages.saturating_add(1);
                    }
                    Stored::Unreadable(why) => {
                        self.written.unreadable = self.written.unreadable.saturating_add(1);
                        self.written.first_unreadable.get_or_insert_with(|| why.clone());
                        self.descs.extend(MISSING);
                    }
                }
            }
            if self.descs.len() >= self.gather {
                self.flush(sink)?;
            }
        }
        Ok(())
    }

    /// Goes to the descriptor of a frame.
    fn seek(&mut self, pfn: u64, sink: &mut dyn Sink) -> Result<(), WriteError> {
        let (frame, rank) = self.rank;
        let rank = rank.saturating_add(self.kept.count(frame..pfn));
        self.rank = (pfn, rank);
        let at = rank.saturating_mul(DESC).saturating_add(self.plan.descs_at);
        if at != self.descs_at.saturating_add(u64::try_from(self.descs.len()).unwrap_or(0)) {
            self.flush(sink)?;
            self.descs_at = at;
        }
        Ok(())
    }

    fn flush(&mut self, sink: &mut dyn Sink) -> Result<(), WriteError> {
        if !self.descs.is_empty() {
            sink.put(self.descs_at, &self.descs).map_err(WriteError::at(self.descs_at))?;
            self.descs_at = self.descs_at.saturating_add(u64::try_from(self.descs.len()).unwrap_or(0));
            self.descs.clear();
        }
        Ok(())
    }
}

#[expect(clippy::too_many_arguments, reason = "one call, and each is a thing of its own")]
pub(super) fn write(
    dump: &Dump,
    classes: &Classes,
    texts: &Texts,
    codec: Codec,
    frames: Range<u64>,
    options: &Options,
    sink: &mut dyn Sink,
    watch: (&Cancel, &dyn Progress),
) -> Result<Written, WriteError> {
    let kept = &classes.kept;
    let all = kept.count(frames.clone());
    let plan = Plan::new(dump, texts, all);
    // The header comes first, so that what was cut off can be read, and says until the end that the dump is not whole.
    let head = |incomplete, sink: &mut dyn Sink| {
        headers(dump, &plan, texts, codec, options, &frames, incomplete, sink)
    };
    head(true, sink)?;
    bitmaps(&plan, classes, sink)?;
    sink.reserve(plan.descs_at..plan.data_at).map_err(WriteError::at(plan.descs_at))?;
    if let Some(erased) = &texts.erased {
        sink.put(plan.erased_at, erased.as_bytes()).map_err(WriteError::at(plan.erased_at))?;
    }
    let drop_zeros = options.level.drops_zeros() || options.share_zeros;
    let gather = if sink.has_holes() { GATHER } else { GATHER_STREAM };
    let mut pages = Pages {
        plan: &plan,
        kept,
        descs: Vec::with_capacity(gather),
        descs_at: plan.descs_at,
        gather,
        rank: (frames.start, 0),
        at: plan.data_at,
        written: Written::default(),
        full: false,
        room: options.limit.map(|limit| limit.saturating_sub(plan.data_at)),
    };
    if drop_zeros {
        pages.room = pages.room.map(|room| room.saturating_sub(plan.page_size));
        let page = vec![0; usize::try_from(plan.page_size).unwrap_or(0)];
        sink.put(pages.at, &page).map_err(WriteError::at(pages.at))?;
        pages.at = pages.at.saturating_add(plan.page_size);
    }
    for pass in passes::of(kept, &options.first, &frames) {
        pages.rank = (frames.start, 0);
        let runs = pass.runs(frames.clone());
        let outcome =
            pipeline::run(dump, runs, codec, drop_zeros, options, watch, |batch| pages.take(batch, sink));
        pages.flush(sink)?;
        match outcome {
            Ok(()) => {}
            Err(WriteError::Io { .. }) if pages.full => break,
            Err(why) => return Err(why),
        }
    }
    let Pages { mut written, at, .. } = pages;
    written.bytes = at;
    let told = written.pages.saturating_add(written.unreadable).saturating_add(written.cut_off);
    written.no_room = all.saturating_sub(told);
    let misplaced = dump.completeness().misplaced_pages;
    if [written.unreadable, written.no_room, written.cut_off, classes.lost, misplaced] == [0; 5] {
        head(false, sink)?;
    }
    sink.finish(written.bytes).map_err(WriteError::at(written.bytes))?;
    Ok(written)
}

fn desc(at: u64, size: u64, codec: Codec) -> [u8; 24] {
    let mut bytes = [0; 24];
    let parts = at.to_le_bytes().into_iter();
    let size = u32::try_from(size).unwrap_or(0).to_le_bytes();
    for (to, from) in bytes.iter_mut().zip(parts.chain(size).chain(codec.flag().to_le_bytes())) {
        *to = from;
    }
    bytes
}

/// Both bitmaps. What is zero is left a hole where the sink has such.
fn bitmaps(plan: &Plan, classes: &Classes, sink: &mut dyn Sink) -> Result<(), WriteError> {
    let half = (plan.bitmap_blocks >> 1).saturating_mul(plan.page_size);
    let start = plan.sub_blocks.saturating_add(1).saturating_mul(plan.page_size);
    let holes = sink.has_holes();
    let mut one = |set: &Selection, at: u64| -> Result<(), WriteError> {
        let mut piece = vec![0; usize::try_from(plan.page_size).unwrap_or(4096)];
        let mut done = 0;
        while done < half {
            set.bitmap(done.saturating_mul(8), &mut piece);
            let here = at.saturating_add(done);
            if !holes || !pipeline::is_zero(&piece) {
                sink.put(here, &piece).map_err(WriteError::at(here))?;
            }
            done = done.saturating_add(plan.page_size);
        }
        Ok(())
    };
    one(&classes.ram, start)?;
    one(&classes.kept, start.saturating_add(half))
}

fn field(bytes: &mut [u8], at: usize, value: &[u8]) {
    let Some(rest) = bytes.get_mut(at..) else { return };
    for (to, from) in rest.iter_mut().zip(value) {
        *to = *from;
    }
}

/// The header, the sub header and the notes.
#[expect(clippy::too_many_arguments, reason = "one call, and each is a thing of its own")]
fn headers(
    dump: &Dump,
    plan: &Plan,
    texts: &Texts,
    codec: Codec,
    options: &Options,
    frames: &Range<u64>,
    incomplete: bool,
    sink: &mut dyn Sink,
) -> Result<(), WriteError> {
    let unfit = || WriteError::Unfit("its notes or bitmaps are too large for a kdump header".into());
    let small = |n: u64| i32::try_from(n).map_err(|_| unfit());
    let facts = dump.facts();
    let mut status = codec.flag();
    if incomplete {
        status |= COMPRESSED_INCOMPLETE;
    }
    if facts.excluded_vmemmap {
        status |= EXCLUDED_VMEMMAP;
    }
    let mut main = vec![0; usize::try_from(plan.page_size).unwrap_or(4096)];
    field(&mut main, 0, &KDUMP_SIGNATURE);
    field(&mut main, 8, &6_i32.to_le_bytes());
    let names = &texts.utsname;
    let machine = if names.machine.is_empty() { facts.arch.name() } else { &names.machine };
    let sysname = if names.sysname.is_empty() { "Linux" } else { &names.sysname };
    let all = [sysname, &names.nodename, &names.release, &names.version, machine, &names.domainname];
    for (name, at) in all.into_iter().zip((12_usize..).step_by(65)) {
        field(&mut main, at, name.as_bytes().get(..64).unwrap_or(name.as_bytes()));
    }
    field(&mut main, 408, &texts.time.0.to_le_bytes());
    field(&mut main, 416, &texts.time.1.to_le_bytes());
    field(&mut main, 424, &status.to_le_bytes());
    field(&mut main, 428, &small(plan.page_size)?.to_le_bytes());
    field(&mut main, 432, &small(plan.sub_blocks)?.to_le_bytes());
    field(&mut main, 436, &small(plan.bitmap_blocks)?.to_le_bytes());
    // Obsolete: the 64-bit number below counts.
    field(&mut main, 440, &u32::try_from(plan.end).unwrap_or(u32::MAX).to_le_bytes());
    field(&mut main, 460, &texts.cpus.to_le_bytes());
    sink.put(0, &main).map_err(WriteError::at(0))?;

    let len = plan.sub_blocks.saturating_mul(plan.page_size);
    let mut sub = vec![0; usize::try_from(len).map_err(|_| unfit())?];
    let notes_at = plan.page_size.saturating_add(104);
    let level = u32::from(options.level.number()) | facts.dump_level.unwrap_or(0);
    field(&mut sub, 0, &texts.phys_base.to_le_bytes());
    field(&mut sub, 8, &level.to_le_bytes());
    if options.part.is_some() {
        field(&mut sub, 12, &1_u32.to_le_bytes());
        field(&mut sub, 16, &frames.start.to_le_bytes());
        field(&mut sub, 24, &frames.end.to_le_bytes());
        field(&mut sub, 80, &frames.start.to_le_bytes());
        field(&mut sub, 88, &frames.end.to_le_bytes());
    }
    if let Some((at, len)) = texts.vmcoreinfo {
        field(&mut sub, 32, &notes_at.saturating_add(at).to_le_bytes());
        field(&mut sub, 40, &len.to_le_bytes());
    }
    if !texts.notes.is_empty() {
        field(&mut sub, 48, &notes_at.to_le_bytes());
        field(&mut sub, 56, &u64::try_from(texts.notes.len()).unwrap_or(0).to_le_bytes());
    }
    if let Some(erased) = &texts.erased {
        field(&mut sub, 64, &plan.erased_at.to_le_bytes());
        field(&mut sub, 72, &u64::try_from(erased.len()).unwrap_or(0).to_le_bytes());
    }
    field(&mut sub, 96, &plan.end.to_le_bytes());
    field(&mut sub, 104, &texts.notes);
    sink.put(plan.page_size, &sub).map_err(WriteError::at(plan.page_size))
}
